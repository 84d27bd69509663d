/**
 * One run of a leader: from an owned epoch to the first error or the end. Flows in: a verified
 * producer, the checkpoint at the end of the log, and the slot; flows out: the leader's WAL as
 * batches in the topic. Slot and server are checked against the epoch before the run starts,
 * because Postgres would silently begin elsewhere. The run ends with the first error, and its
 * caller owns the epoch again before another one.
 */
import { setMaxListeners } from 'node:events';
import type { Client } from 'pg';
import { sessionConfig } from '../catalog/postgres-session.ts';
import type { SchemaChange } from '../catalog/schema-changes.ts';
import type { Checkpoint, Point, RowKey, UnfinishedTable } from '../change/change.ts';
import { type Lsn, parseLsn } from '../change/lsn.ts';
import { formatEpochLsn } from '../change/position.ts';
import { serverBehindEpoch } from '../errors/ownership.ts';
import { slotOlderThanPublication } from '../errors/slot.ts';
import { rowsNotPublished } from '../errors/timed-out.ts';
import type { Logger } from '../logger.ts';
import type { CommittedReader, OutgoingRecord, TransactionalProducer } from '../topic/log.ts';
import type { RecordDecoder } from '../topic/records/decoder.ts';
import type { RecordEncoder } from '../topic/records/encoder.ts';
import { backoffDelayMs, sleepOrAbort, someAtATime, unlessAborted } from '../waiting.ts';
import { BackfillMerge } from './backfill/backfill-merge.ts';
import { BackfillReader } from './backfill/backfill-reader.ts';
import { Reselect } from './backfill/reselect.ts';
import { ReselectReader } from './backfill/reselect-reader.ts';
import { StreamObserver } from './backfill/stream-observer.ts';
import type { Batcher } from './stream/batcher.ts';
import { readBack } from './stream/read-back.ts';
import { readSlot } from './stream/slot.ts';
import { StreamRun } from './stream/stream-run.ts';
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
  /** The end of the log: a point, or the begin of this epoch. */
  readonly checkpoint: Checkpoint;
  /** The point at the checkpoint; null when the checkpoint is the epoch begin. */
  readonly lastPoint: Point | null;
  /** Since where rows of the topic are partial. */
  readonly unhealed: Checkpoint | null;
  /** Tables that are backfilling. */
  readonly unfinished: readonly UnfinishedTable[];
  readonly producer: TransactionalProducer;
  readonly encoder: RecordEncoder;
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
  readonly pointsEveryMs: number;
  /** Globs of the tables that should be in the stream. */
  readonly patterns: readonly string[];
  /** Opens a session for reads of rows. */
  readonly openReadSession: () => Promise<Client>;
  readonly openReader: () => CommittedReader;
  readonly log: Logger;
  readonly randomId: () => string;
  /** Called with tables that match and are not published: their rows reach no follower. */
  readonly onUncovered: (tables: readonly string[]) => void;
  /** Called at each check, with changes of published tables that the stream cannot carry. */
  readonly onChanges: (changes: readonly SchemaChange[]) => void;
  /** Writes a named point to the control log, once it was read back and before it is confirmed. */
  readonly recordLabel: (label: string, point: Point, checkpoint: Checkpoint) => Promise<void>;
  readonly onPoint: (point: Point, checkpoint: Checkpoint, records: number) => void;
  readonly nowMs: () => number;
  readonly random: () => number;
}

/** What can be requested of a leader while it streams. */
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
const publishedPollMs = 50;
const abortListenersMax = 50;
/** How long a lock, or a transaction that is older than the request, may delay it. */
const publishRowsMaxMs = 100_000;
const registrationsAtATimeMax = 8;
/** Before each of them: a row that waits for its schema has the registry to itself. */
const registrationPauseMs = 10;
const catalogCheckEveryMs = 2_000;
/** With thousands of tables a check takes long: it is at work for a fifth of the time at most. */
const pausePerCheck = 4;
/** The walsender of a connection that died may still hold the slot until Postgres notices. */
const slotInUsePatienceMs = 30_000;
const slotInUsePauses = { baseMs: 250, capMs: 2_000 };

/**
 * Runs until `signal` aborts or something fails. `onStreaming` is called once WAL flows, and its
 * work may continue beside the stream until its own signal aborts.
 */
export async function lead(
  parts: LeaderParts,
  signal: AbortSignal,
  onStreaming: (signal: AbortSignal, leading: Leading) => Promise<void>,
): Promise<void> {
  const { client, slot, nowMs, log } = parts;
  const reselect = new Reselect(parts.unhealed);
  const backfill = new BackfillMerge(parts.unfinished);
  const observer = new StreamObserver(reselect, backfill, nowMs);
  const bounds = { recordsMax: batchRecordsMax, bytesMax: batchBytesMax };
  const idle = { idleSoonMs, idleEveryMs: parts.pointsEveryMs };
  const run = new StreamRun({ ...parts, observer }, { ...bounds, ...idle });
  const start = await run.prepare(() => readSlot(client, slot));
  const walSenderTimeoutMs = await checkServer(parts, start);
  const { batcher } = run;
  const tables = await KnownTables.open({
    ...parts,
    onEnter: (relation) => backfill.enter(relation),
    onOutside: (table, { message, hint }) => {
      // A point that covers changes which were left out has to name their table.
      batcher.addUncovered(table);
      log.warn({ table, reason: message, hint }, 'table is not part of the stream');
    },
  });
  await checkTables(parts, tables, batcher);
  const wal = await openWal(parts, start, walSenderTimeoutMs, signal);
  const inner = new AbortController();
  const all = AbortSignal.any([signal, inner.signal]);
  // All the work that runs side by side listens to it, some of it twice.
  setMaxListeners(abortListenersMax, all);
  try {
    const loop = run.loop(wal, tables, (point, checkpoint, records) => {
      tables.named(point.unfinished.map(({ relation }) => relation));
      parts.onPoint(point, checkpoint, records);
    });
    const reselecting = new ReselectReader({
      ...{ ...parts, reselect, tables },
      seenAt: () => loop.seenAt,
    });
    const backfilling = new BackfillReader({ ...parts, backfill, tables });
    await allUntilFailure(inner, [
      loop.run(all),
      readBack(parts.reader, parts.decoder, parts.checkpoint, all, loop),
      watchTables(parts, tables, batcher, all),
      announceTables(parts, tables, all),
      unlessAborted(reselecting.run(all), all),
      unlessAborted(backfilling.run(all), all),
      onStreaming(all, {
        publishRows: (keys) => publishRows({ tables, batcher, reselect, nowMs }, keys, all),
        publishBeside: (records) => loop.publishBeside(records),
      }),
    ]);
  } catch (error) {
    if (!isUndefinedObject(error)) throw error;
    // It says that there is no publication, not what that means for the stream.
    await checkTables(parts, tables, batcher);
    throw slotOlderThanPublication(slot, parts.publication, error);
  } finally {
    await wal.close();
  }
}

interface RowsParts extends Pick<LeaderParts, 'nowMs'> {
  readonly tables: KnownTables;
  readonly batcher: Batcher;
  readonly reselect: Reselect;
}

async function publishRows(
  { tables, batcher, reselect, nowMs }: RowsParts,
  keys: readonly RowKey[],
  signal: AbortSignal,
): Promise<void> {
  for (const key of keys) tables.requireKey(key);
  const deadlineMs = nowMs() + publishRowsMaxMs;
  const wanted = reselect.want(keys, batcher.previous, nowMs());
  for (;;) {
    const open = wanted.filter((row) => reselect.isOpen(row)).length;
    if (open === 0 || signal.aborted) return;
    if (nowMs() > deadlineMs) throw rowsNotPublished(open, publishRowsMaxMs);
    await sleepOrAbort(publishedPollMs, signal);
  }
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

/** The error of Postgres when the walsender finds no publication, in the middle of the WAL. */
function isUndefinedObject(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '42704';
}

/** Returns its wal_sender_timeout in milliseconds. */
async function checkServer({ client, checkpoint }: LeaderParts, start: Lsn): Promise<number> {
  const { rows } = await client.query<{ flushed: string; timeout_ms: string }>(
    `SELECT pg_catalog.pg_current_wal_flush_lsn() AS flushed,
       (SELECT setting FROM pg_catalog.pg_settings
        WHERE name = 'wal_sender_timeout') AS timeout_ms`,
  );
  const flushedLsn = parseLsn(rows[0]?.flushed ?? '0/0');
  if (start > flushedLsn) throw serverBehindEpoch(formatEpochLsn(checkpoint.at));
  return Number(rows[0]?.timeout_ms ?? 0);
}

async function openWal(
  parts: LeaderParts,
  startLsn: Lsn,
  walSenderTimeoutMs: number,
  signal: AbortSignal,
): Promise<WalSession> {
  const applicationName = `understudy ${parts.node} walsender`;
  const connection = sessionConfig(parts.url, { applicationName });
  const { slot, publication } = parts;
  const patientUntilMs = parts.nowMs() + slotInUsePatienceMs;
  for (let tries = 1; ; tries += 1) {
    try {
      const from = { slot, publication, startLsn };
      return await WalSession.open({ connection, ...from, walSenderTimeoutMs });
    } catch (error) {
      const inUse = error instanceof Error && 'code' in error && error.code === '55006';
      if (!inUse || parts.nowMs() > patientUntilMs || signal.aborted) throw error;
      await sleepOrAbort(backoffDelayMs(tries, slotInUsePauses, parts.random), signal);
    }
  }
}

/**
 * Registers the schemas of all tables beside the stream: each takes several requests, and the first
 * rows of a thousand tables would wait for one after the other. A failure is left to the row that
 * needs the schema.
 */
async function announceTables(
  { encoder, log }: LeaderParts,
  tables: KnownTables,
  signal: AbortSignal,
): Promise<void> {
  const shapes = (await unlessAborted(tables.shapes(), signal)) ?? [];
  const announced = someAtATime(shapes, registrationsAtATimeMax, async (shape) => {
    do await sleepOrAbort(registrationPauseMs, signal);
    while (encoder.isPreparing && !signal.aborted);
    if (!signal.aborted) await encoder.announce(shape);
  });
  await unlessAborted(announced, signal).catch((error: unknown) => {
    log.debug({ error }, 'registering schemas ahead of their rows failed');
  });
}

async function watchTables(
  parts: LeaderParts,
  tables: KnownTables,
  batcher: Batcher,
  signal: AbortSignal,
): Promise<void> {
  let pauseMs = catalogCheckEveryMs;
  for (;;) {
    await sleepOrAbort(pauseMs, signal);
    if (signal.aborted) return;
    const beganMs = parts.nowMs();
    await unlessAborted(checkTables(parts, tables, batcher), signal);
    pauseMs = Math.max(catalogCheckEveryMs, pausePerCheck * (parts.nowMs() - beganMs));
  }
}

async function checkTables(
  parts: LeaderParts,
  tables: KnownTables,
  batcher: Batcher,
): Promise<void> {
  const { unpublished, outside, changes } = await tables.check(parts.patterns);
  parts.onChanges(changes);
  const isNew = batcher.setUncovered([...unpublished, ...outside]);
  if (isNew && unpublished.length > 0) parts.onUncovered(unpublished);
}
