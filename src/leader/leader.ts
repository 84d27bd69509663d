/**
 * A leader at work: one run from an owned epoch to the first error or the end. Flows in: a verified
 * producer, the checkpoint where the log stands and the slot; flows out: the leader's WAL as
 * batches in the topic. It compares slot and server with the epoch before it starts, because
 * Postgres would begin anywhere without a word, and it ends with the first error: whoever started
 * it owns the epoch anew before another run.
 */
import { setMaxListeners } from 'node:events';
import type { Client } from 'pg';
import { sessionConfig } from '../catalog/postgres-session.ts';
import type { Checkpoint, Point, UnfinishedTable } from '../change/change.ts';
import { type Lsn, parseLsn, zeroLsn } from '../change/lsn.ts';
import { formatEpochLsn } from '../change/position.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import type { Logger } from '../logger.ts';
import type { CommittedReader, OutgoingRecord, TransactionalProducer } from '../topic/log.ts';
import type { RecordDecoder } from '../topic/records/decoder.ts';
import type { RecordEncoder } from '../topic/records/encoder.ts';
import { backoffDelayMs, sleepOrAbort, unlessAborted } from '../waiting.ts';
import { BackfillMerge } from './backfill/backfill-merge.ts';
import { BackfillReader } from './backfill/backfill-reader.ts';
import { Reselect } from './backfill/reselect.ts';
import { ReselectReader } from './backfill/reselect-reader.ts';
import type { RowKey } from './backfill/row-overlay.ts';
import { Batcher } from './stream/batcher.ts';
import { PublishLoop } from './stream/publish-loop.ts';
import { readBack } from './stream/read-back.ts';
import { checkSlot, readSlot } from './stream/slot.ts';
import { TransactionBuilder } from './stream/transaction-builder.ts';
import { WalSession } from './stream/wal-session.ts';
import { KnownTables } from './tables/known-tables.ts';

export interface LeaderParts {
  readonly url: string;
  readonly node: string;
  /** A session of ours on the leader's database. */
  readonly client: Client;
  readonly streamId: string;
  readonly epoch: number;
  readonly slot: string;
  readonly publication: string;
  /** Where the log stands: a point or the begin of this epoch. */
  readonly checkpoint: Checkpoint;
  /** The point at the checkpoint; null when the checkpoint is the epoch begin. */
  readonly lastPoint: Point | null;
  /** Since where keys lack values in the topic. */
  readonly unhealed: Checkpoint | null;
  /** Whose rows from before the stream are still missing in it. */
  readonly unfinished: readonly UnfinishedTable[];
  readonly producer: TransactionalProducer;
  readonly encoder: RecordEncoder;
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
  readonly pointsEveryMs: number;
  /** Globs of the tables that are to be in the stream. */
  readonly patterns: readonly string[];
  /** A session of its own for reads of rows. */
  readonly openReadSession: () => Promise<Client>;
  readonly openReader: () => CommittedReader;
  readonly log: Logger;
  readonly randomId: () => string;
  /** Tables that match and are not in the stream: their rows reach nobody. */
  readonly onUncovered: (tables: readonly string[]) => void;
  /** Tells the control log of a named point, once it was read back and before it is confirmed. */
  readonly recordLabel: (label: string, point: Point, checkpoint: Checkpoint) => Promise<void>;
  readonly onPoint: (point: Point, checkpoint: Checkpoint, records: number) => void;
  readonly nowMs: () => number;
  readonly random: () => number;
}

/** A leader at work, for who asks something of it. */
export interface Leading {
  /** Publishes what the table holds under the keys now; resolves once it is in the stream. */
  readonly publishRows: (keys: readonly RowKey[]) => Promise<void>;
  /** Publishes records that are no part of the stream; resolves once they are committed. */
  readonly publishBeside: (records: readonly OutgoingRecord[]) => Promise<void>;
}

/** Bounds what waits for Kafka in memory; larger batches gain nothing measurable. */
const batchRecordsMax = 4_000;
const batchBytesMax = 4 * 1024 * 1024;
const idleSoonMs = 100;
const publishedLookMs = 50;
const abortListenersMax = 50;
/** A lock, or a transaction that is older than the request. */
const publishRowsMaxMs = 100_000;
const catalogCheckEveryMs = 2_000;
/** The walsender of a connection that died may still hold the slot until Postgres notices. */
const slotInUsePatienceMs = 30_000;
const slotInUsePauses = { baseMs: 250, capMs: 2_000 };

/**
 * Runs until `signal` aborts or something fails; `onStreaming` is called once WAL flows, and may go
 * on beside it until its own signal aborts.
 */
export async function lead(
  parts: LeaderParts,
  signal: AbortSignal,
  onStreaming: (signal: AbortSignal, leading: Leading) => Promise<void>,
): Promise<void> {
  const start = parts.checkpoint.at.lsn;
  if (parts.lastPoint?.label != null) {
    // The label of a point that was committed just before a crash may not have been told.
    await parts.recordLabel(parts.lastPoint.label, parts.lastPoint, parts.checkpoint);
  }
  const statusEveryMs = await checkServer(parts, start);
  const healing = new Reselect(parts.unhealed);
  const chunks = new BackfillMerge(parts.unfinished);
  const batcher = batcherOf(parts, healing, chunks);
  const tables = await KnownTables.open({
    ...parts,
    onEnter: (relation) => chunks.enter(relation),
    onOutside: (table, { message, hint }) => {
      // No point covers what is passed over without naming its table.
      batcher.addUncovered(table);
      parts.log.warn({ table, reason: message, hint }, 'its changes are passed over');
    },
  });
  await checkTables(parts, tables, batcher);
  const wal = await openWal(parts, start, statusEveryMs, signal);
  const inner = new AbortController();
  const all = AbortSignal.any([signal, inner.signal]);
  // Everything that works beside each other listens, some of it twice.
  setMaxListeners(abortListenersMax, all);
  try {
    const loop = new PublishLoop({
      healing,
      chunks,
      wal,
      tables,
      builder: new TransactionBuilder(parts.streamId, parts.epoch, (message) => {
        return tables.shapeOf(message);
      }),
      batcher,
      encoder: parts.encoder,
      producer: parts.producer,
      start: parts.checkpoint,
      recordLabel: parts.recordLabel,
      onPoint: (point, checkpoint, records) => {
        tables.named(point.unfinished.map(({ relation }) => relation));
        parts.onPoint(point, checkpoint, records);
      },
      log: parts.log,
      nowMs: parts.nowMs,
    });
    await allUntilFailure(inner, [
      loop.run(all),
      readBack(parts.reader, parts.decoder, parts.checkpoint, all, loop),
      watchTables(parts, tables, batcher, all),
      unlessAborted(
        new ReselectReader({ ...parts, healing, tables, seenAt: () => loop.seenAt }).run(all),
        all,
      ),
      unlessAborted(new BackfillReader({ ...parts, chunks, tables }).run(all), all),
      onStreaming(all, {
        publishRows: (keys) => publishRows({ ...parts, tables, batcher, healing }, keys, all),
        publishBeside: (records) => loop.publishBeside(records),
      }),
    ]);
  } catch (error) {
    if (!isUndefinedObject(error)) throw error;
    // It says that there is no publication, not what that means for the stream.
    await checkTables(parts, tables, batcher);
    throw olderThanPublication(parts, error);
  } finally {
    await wal.close();
  }
}

interface RowsParts extends Pick<LeaderParts, 'nowMs'> {
  readonly tables: KnownTables;
  readonly batcher: Batcher;
  readonly healing: Reselect;
}

/** A key that cannot be a key of the table would be read in vain for ever. */
async function publishRows(
  { tables, batcher, healing, nowMs }: RowsParts,
  keys: readonly RowKey[],
  signal: AbortSignal,
): Promise<void> {
  for (const key of keys) tables.requireKey(key);
  const deadlineMs = nowMs() + publishRowsMaxMs;
  const wanted = healing.want(keys, batcher.previous, nowMs());
  while (wanted.some((row) => healing.isOpen(row)) && !signal.aborted) {
    if (nowMs() > deadlineMs)
      throw notPublished(wanted.filter((row) => healing.isOpen(row)).length);
    await sleepOrAbort(publishedLookMs, signal);
  }
}

function notPublished(count: number): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `${count} rows could not be read within ${publishRowsMaxMs} ms`,
    'See what holds them up on the leader: SELECT pid, xact_start, query FROM pg_stat_activity ' +
      'ORDER BY xact_start; they are published once it has ended.',
  );
}

/** The first failure ends the others; it alone is thrown, once all have ended. */
async function allUntilFailure(
  ending: AbortController,
  work: readonly Promise<void>[],
): Promise<void> {
  let failure: { readonly error: unknown } | null = null;
  const guarded = work.map((part) =>
    part.catch((error: unknown) => {
      failure ??= { error };
      ending.abort();
    }),
  );
  await Promise.all(guarded);
  if (failure !== null) throw (failure as { readonly error: unknown }).error;
}

function batcherOf(parts: LeaderParts, healing: Reselect, chunks: BackfillMerge): Batcher {
  return new Batcher({
    streamId: parts.streamId,
    epoch: parts.epoch,
    partitions: parts.checkpoint.nextOffsets.length,
    recordsMax: batchRecordsMax,
    bytesMax: batchBytesMax,
    idleSoonMs,
    idleEveryMs: parts.pointsEveryMs,
    start: parts.checkpoint,
    unhealed: () => healing.unhealed,
    unfinished: () => chunks.unfinished(healing.unhealed),
    lastCommit: parts.lastPoint?.commit ?? zeroLsn,
    lastCommitTimeMicros: parts.lastPoint?.commitTimeMicros ?? BigInt(parts.nowMs()) * 1000n,
  });
}

/** Postgres' own words when the walsender misses the publication, in the middle of the WAL. */
function isUndefinedObject(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '42704';
}

/** Somebody made it again: what was written meanwhile cannot be decoded. */
function olderThanPublication({ slot, publication }: LeaderParts, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'SLOT_MISMATCH',
    `the slot ${slot} is older than the publication ${publication}, which was made again`,
    'Have every row read anew, from a new slot: understudy resnapshot --all --new-slot',
    cause,
  );
}

/** Gives how often to send a status, in milliseconds. */
async function checkServer(parts: LeaderParts, start: Lsn): Promise<number> {
  const { client, slot } = parts;
  checkSlot(await readSlot(client, slot), slot, start);
  const { rows } = await client.query<{ flushed: string; timeout_ms: string }>(
    `SELECT pg_catalog.pg_current_wal_flush_lsn() AS flushed,
       (SELECT setting FROM pg_catalog.pg_settings
        WHERE name = 'wal_sender_timeout') AS timeout_ms`,
  );
  const flushed = parseLsn(rows[0]?.flushed ?? '0/0');
  if (start > flushed) {
    throw new UnderstudyError(
      'TIMELINE_MISMATCH',
      `position ${formatEpochLsn(parts.checkpoint.at)} is past the end of this server’s WAL`,
      'This server was restored from an older copy: fail over to a follower.',
    );
  }
  return Math.floor(Number(rows[0]?.timeout_ms ?? 0) / 3);
}

async function openWal(
  parts: LeaderParts,
  startLsn: Lsn,
  statusEveryMs: number,
  signal: AbortSignal,
): Promise<WalSession> {
  const applicationName = `understudy ${parts.node} walsender`;
  const connection = sessionConfig(parts.url, { applicationName });
  const { slot, publication } = parts;
  const patientUntilMs = parts.nowMs() + slotInUsePatienceMs;
  for (let tries = 1; ; tries += 1) {
    try {
      return await WalSession.open({ connection, slot, publication, startLsn, statusEveryMs });
    } catch (error) {
      const inUse = error instanceof Error && 'code' in error && error.code === '55006';
      if (!inUse || parts.nowMs() > patientUntilMs || signal.aborted) throw error;
      await sleepOrAbort(backoffDelayMs(tries, slotInUsePauses, parts.random), signal);
    }
  }
}

async function watchTables(
  parts: LeaderParts,
  tables: KnownTables,
  batcher: Batcher,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await sleepOrAbort(catalogCheckEveryMs, signal);
    if (!signal.aborted) await unlessAborted(checkTables(parts, tables, batcher), signal);
  }
}

async function checkTables(
  parts: LeaderParts,
  tables: KnownTables,
  batcher: Batcher,
): Promise<void> {
  const { unpublished, outside } = await tables.check(parts.patterns);
  const isNew = batcher.setUncovered([...unpublished, ...outside]);
  if (isNew && unpublished.length > 0) parts.onUncovered(unpublished);
}
