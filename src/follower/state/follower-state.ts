/**
 * The position of a follower, kept in its own database and moved in the same transaction as the
 * rows. Checkpoints of applied batches come in; the offsets to continue at come out. The move names
 * the position it starts from, so a second applier, or one whose answer was lost, changes nothing.
 */
import type { Client } from 'pg';
import type { Checkpoint, EpochBegin, Point, RelationId } from '../../change/change.ts';
import { formatLsn, parseLsn } from '../../change/lsn.ts';
import type { EpochLsn } from '../../change/position.ts';
import { positionMoved } from '../../errors/unreachable.ts';

export interface FollowerPosition {
  readonly streamId: string;
  /** Rows are those of this position: everything below is in, nothing at or above. */
  readonly at: EpochLsn;
  readonly commitTimeMicros: bigint;
  /** The last common point or epoch begin; `at` is past it only after an exact stop. */
  readonly checkpoint: Checkpoint;
  /** Per partition, the LogAppendTime of the checkpoint, milliseconds. */
  readonly appendMs: readonly number[];
  /** Tables that are backfilling at the checkpoint. */
  readonly unfinished: readonly RelationId[];
}

interface PositionRow {
  stream_id: string;
  epoch: string;
  upto: string;
  commit_time_us: string;
  mark_epoch: string;
  mark_upto: string;
  next_offsets: string;
  last_append_ms: string;
  unfinished: string;
}

/** Null when this database has never followed. */
export async function readPosition(client: Client): Promise<FollowerPosition | null> {
  const { rows } = await client.query<PositionRow>(
    `SELECT stream_id, epoch, upto, commit_time_us, mark_epoch, mark_upto, next_offsets,
            last_append_ms, pg_catalog.to_json(unfinished) AS unfinished
     FROM understudy.position`,
  );
  const row = rows[0];
  if (row === undefined) return null;
  return {
    streamId: row.stream_id,
    at: { epoch: Number(row.epoch), lsn: parseLsn(row.upto) },
    commitTimeMicros: BigInt(row.commit_time_us),
    checkpoint: {
      at: { epoch: Number(row.mark_epoch), lsn: parseLsn(row.mark_upto) },
      nextOffsets: arrayItems(row.next_offsets).map(BigInt),
    },
    appendMs: arrayItems(row.last_append_ms).map(Number),
    unfinished: JSON.parse(row.unfinished) as string[],
  };
}

/** `{1,2}` of bigints. */
function arrayItems(text: string): string[] {
  return text.length <= 2 ? [] : text.slice(1, -1).split(',');
}

const positionColumns = [
  'stream_id',
  'epoch',
  'upto',
  'commit_time_us',
  'mark_epoch',
  'mark_upto',
  'next_offsets',
  'last_append_ms',
  'unfinished',
];

function positionValues(position: FollowerPosition): unknown[] {
  const { streamId, at, commitTimeMicros, checkpoint, appendMs, unfinished } = position;
  return [
    streamId,
    at.epoch,
    formatLsn(at.lsn),
    String(commitTimeMicros),
    checkpoint.at.epoch,
    formatLsn(checkpoint.at.lsn),
    checkpoint.nextOffsets.map(String),
    appendMs.map(String),
    unfinished,
  ];
}

/** Sets the position where a node begins to follow; in the caller's transaction. */
export async function writePosition(
  client: Client,
  position: FollowerPosition,
  format: number,
): Promise<void> {
  const values = positionValues(position);
  const parameters = values.map((_, i) => `$${i + 1}`);
  const updates = [...positionColumns, 'format'].map((name) => `${name} = EXCLUDED.${name}`);
  await client.query(
    `INSERT INTO understudy.position (${positionColumns.join(', ')}, format)
     VALUES (${parameters.join(', ')}, $${values.length + 1})
     ON CONFLICT (only_row) DO UPDATE SET ${updates.join(', ')}`,
    [...values, format],
  );
}

/** Moves the position from `from`, in the transaction that writes the rows. */
export async function movePosition(
  client: Client,
  from: FollowerPosition,
  to: FollowerPosition,
): Promise<void> {
  const values = positionValues(to);
  const sets = positionColumns.map((name, i) => `${name} = $${i + 1}`);
  const n = values.length;
  const { rowCount } = await client.query({
    name: 'understudy-move-position',
    text: `UPDATE understudy.position SET ${sets.join(', ')}
           WHERE epoch = $${n + 1} AND upto = $${n + 2} AND stream_id = $1
             AND NOT detached`,
    values: [...values, from.at.epoch, formatLsn(from.at.lsn)],
  });
  // rule: position-moves-from-where-it-was
  if (rowCount === 1) return;
  throw positionMoved(from.at);
}

/** Ends applying in this database, for every agent, if its position is exactly `at`. */
export async function saveDetached(client: Client, { epoch, lsn }: EpochLsn): Promise<void> {
  const { rowCount } = await client.query(
    'UPDATE understudy.position SET detached = true WHERE epoch = $1 AND upto = $2',
    [epoch, formatLsn(lsn)],
  );
  if (rowCount !== 1) throw positionMoved({ epoch, lsn });
}

/** The position at which the node was detached; null where it was not. */
export async function readDetached(client: Client): Promise<EpochLsn | null> {
  const { rows } = await client.query<{ epoch: string; upto: string }>(
    'SELECT epoch, upto FROM understudy.position WHERE detached',
  );
  const [row] = rows;
  return row === undefined ? null : { epoch: Number(row.epoch), lsn: parseLsn(row.upto) };
}

/** Saves the history that tokens of ended epochs are judged by. */
export async function saveEpoch(client: Client, begin: EpochBegin): Promise<void> {
  await client.query(
    `INSERT INTO understudy.epochs
       (epoch, leader, system_id, timeline, base_epoch, base_upto, start_lsn)
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (epoch) DO NOTHING`,
    [
      begin.epoch,
      begin.leader,
      begin.systemId,
      begin.timeline,
      begin.base?.epoch ?? null,
      begin.base === null ? null : formatLsn(begin.base.lsn),
      formatLsn(begin.startLsn),
    ],
  );
}

/** Labels are unique on every node that may lead, so every node has those of the stream. */
export async function saveLabel(client: Client, point: Point): Promise<void> {
  if (point.label === null) return;
  await client.query(
    `INSERT INTO understudy.points (label, epoch, upto, commit_time_us) VALUES ($1, $2, $3, $4)
     ON CONFLICT (label) DO UPDATE SET epoch = EXCLUDED.epoch, upto = EXCLUDED.upto,
       commit_time_us = EXCLUDED.commit_time_us`,
    [point.label, point.epoch, formatLsn(point.upto), String(point.commitTimeMicros)],
  );
}
