/**
 * The state of a node that is being built from the topic alone, kept in its own database and saved
 * in the transactions that write its rows, so that the next start continues where a kill stopped.
 * While there is such a state, the node is not exact; it is deleted in the transaction that makes
 * it so.
 */
import type { Client } from 'pg';
import type { Checkpoint, RelationId } from '../../change/change.ts';
import {
  formatEpochLsn,
  formatPosition,
  type Position,
  parseEpochLsn,
  parsePosition,
} from '../../change/position.ts';
import { bug } from '../../errors/bug.ts';

/** A relation has no row of a lower position. */
export type Emptied = ReadonlyMap<RelationId, Position>;

export interface BootstrapState {
  readonly streamId: string;
  /** Up to here rows are read without being counted; after it the node follows. */
  readonly checkpoint: Checkpoint;
  /**
   * The LogAppendTime of a checkpoint that was chosen for an LSN, by which its rows may be known
   * to be complete; null for the last checkpoint of the log.
   */
  readonly checkpointAppendMs: number | null;
  /** Whether the topic has every row below the checkpoint in full, as a point there records. */
  readonly isWhole: boolean;
  readonly commitTimeMicros: bigint;
  readonly unfinished: readonly RelationId[];
  /** Where each relation was emptied last below the checkpoint. */
  readonly emptied: Emptied;
  /**
   * The low watermarks at the start, and the offsets to continue at; at the end they are those of
   * the checkpoint.
   */
  readonly firstOffsets: readonly bigint[];
  readonly offsets: readonly bigint[];
  /** Per partition, the LogAppendTime of the last record that was read, milliseconds. */
  readonly appendMs: readonly number[];
  /** Per partition, the broker whose log is read; null before the first record. */
  readonly brokers: readonly (number | null)[];
  /** The first fetch, by this machine's clock, and how long reading has taken. */
  readonly beganMs: number;
  readonly readMs: number;
  readonly rows: number;
  readonly deleteRetentionMs: number;
  /** Per partition, the offset that a point has to reach; null before the checkpoint is reached. */
  readonly horizon: readonly bigint[] | null;
  /** Whether the node was a follower before; otherwise it is a new one. */
  readonly isRebuild: boolean;
  /** How many restarts in a row were because of rows in conflict. */
  readonly conflicts: number;
}

interface StateJson extends Omit<BootstrapState, 'checkpoint' | 'commitTimeMicros' | 'emptied'> {
  readonly emptied: readonly (readonly [RelationId, string])[];
  /** The checkpoint, by its name in the stored state. */
  readonly mark: { readonly at: string; readonly nextOffsets: readonly string[] };
  readonly commitTimeMicros: string;
}

const bigintFields: readonly string[] = ['firstOffsets', 'offsets', 'horizon'];

/** Null when the node is not being built. */
export async function readBootstrap(client: Client): Promise<BootstrapState | null> {
  const { rows } = await client.query<{ state: string }>(
    'SELECT state::text AS state FROM understudy.bootstrap',
  );
  const [row] = rows;
  if (row === undefined) return null;
  const { mark, ...state } = JSON.parse(row.state, (key, value: unknown) => {
    return bigintFields.includes(key) && Array.isArray(value) ? value.map(BigInt) : value;
  }) as StateJson;
  const at = parseEpochLsn(mark.at);
  if (at === null) throw bug('a bootstrap has no checkpoint');
  const emptied = state.emptied.map(([relation, text]): readonly [RelationId, Position] => {
    const position = parsePosition(text);
    if (position === null) throw bug(`a bootstrap has no position of ${relation}`);
    return [relation, position];
  });
  return {
    ...state,
    emptied: new Map(emptied),
    checkpoint: { at, nextOffsets: mark.nextOffsets.map(BigInt) },
    commitTimeMicros: BigInt(state.commitTimeMicros),
  };
}

/** Inside the caller's transaction. */
export async function saveBootstrap(client: Client, state: BootstrapState): Promise<void> {
  const { checkpoint, ...rest } = state;
  const emptied = [...state.emptied].map(([relation, at]) => [relation, formatPosition(at)]);
  const json = JSON.stringify(
    {
      ...rest,
      emptied,
      mark: { at: formatEpochLsn(checkpoint.at), nextOffsets: checkpoint.nextOffsets },
    },
    (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value),
  );
  await client.query({
    name: 'understudy-save-bootstrap',
    text: `INSERT INTO understudy.bootstrap (state) VALUES ($1)
           ON CONFLICT (only_row) DO UPDATE SET state = excluded.state`,
    values: [json],
  });
}

/** Inside the transaction after which the node is exact. */
export async function endBootstrap(client: Client): Promise<void> {
  await client.query('DELETE FROM understudy.bootstrap');
}

/** The share of the log that is read, from 0 to 1. */
export function shareRead({ firstOffsets, offsets, checkpoint }: BootstrapState): number {
  let all = 0n;
  let done = 0n;
  for (const [partition, end] of checkpoint.nextOffsets.entries()) {
    const first = firstOffsets[partition] ?? 0n;
    all += end - first;
    done += (offsets[partition] ?? first) - first;
  }
  return all === 0n ? 1 : Number((done * 1_000n) / all) / 1_000;
}
