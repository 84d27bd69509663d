/**
 * Reads the rows that the topic lacks. Flows in: what healing.ts wants to be read; flows out: rows
 * and watermarks for it, from a session of its own that is opened with the first need, and keys
 * that a search of the topic found. A table that is locked, or a transaction that has run for long,
 * delays its rows and nothing else.
 */
import type { Client } from 'pg';
import { readEpochBases } from '../../catalog/understudy-schema.ts';
import type { Checkpoint } from '../../change/change.ts';
import type { EpochLsn } from '../../change/position.ts';
import { hit } from '../../failpoints.ts';
import type { Logger } from '../../logger.ts';
import type { CommittedReader } from '../../topic/log.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import { sleepOrAbort } from '../../waiting.ts';
import type { KnownTables } from '../tables/known-tables.ts';
import { type ReadRound, type Reselect, roundKeysMax, type WantedRow } from './reselect.ts';
import { ReselectSearch } from './reselect-search.ts';
import { isBusy, isPassing, nextTransactionId, oldestRunning, readRows } from './row-reader.ts';

interface ReselectReaderParts {
  readonly healing: Reselect;
  readonly tables: KnownTables;
  readonly decoder: RecordDecoder;
  /** Of the leader's database, for reads alone. */
  readonly openReadSession: () => Promise<Client>;
  readonly openReader: () => CommittedReader;
  /** How far every partition was read back. */
  readonly seenAt: () => EpochLsn;
  readonly log: Logger;
  readonly nowMs: () => number;
  readonly randomId: () => string;
}

const lookEveryMs = 200;
const watermarkLookEveryMs = 20;
/** A locked table, and what else ends by itself. */
const retryMs = 1_000;
/** A row that cannot be read, alone. */
const brokenRetryMs = 60_000;
const failuresWorthAWarning = 10;

export class ReselectReader {
  readonly #parts: ReselectReaderParts;
  #session: Client | null = null;
  #search: ReselectSearch | null = null;
  #failuresInARow = 0;
  #keysMax = roundKeysMax;

  constructor(parts: ReselectReaderParts) {
    this.#parts = parts;
  }

  /** Until `signal` aborts; rejects when a session or the topic is lost. */
  async run(signal: AbortSignal): Promise<void> {
    const { healing, nowMs } = this.#parts;
    while (!signal.aborted) {
      await this.#searchOn();
      const round = healing.next(nowMs(), this.#keysMax);
      if ('atMs' in round) await sleepOrAbort(lookEveryMs, signal);
      else await this.#read(round, signal);
    }
  }

  async #searchOn(): Promise<void> {
    const { healing, nowMs, log } = this.#parts;
    const from = healing.nextSearch(this.#parts.seenAt());
    if (from !== null) this.#search = await this.#searchFrom(from);
    else if (!healing.wantsMoreFound) return;
    const search = this.#search;
    if (search === null) return;
    const { keys, isAll } = await search.next();
    healing.found(keys, isAll, nowMs());
    log.info({ keys: keys.length, isAll }, 'searched the topic for rows that lack values');
    if (!isAll) return;
    this.#search = null;
    await search.close();
  }

  async #searchFrom(from: Checkpoint): Promise<ReselectSearch> {
    const { openReader, decoder } = this.#parts;
    const epochs = await readEpochBases(await this.#opened());
    return new ReselectSearch(openReader(), decoder, epochs, from);
  }

  async #read({ relationId, keys }: ReadRound, signal: AbortSignal): Promise<void> {
    const { healing, tables, nowMs, randomId, log } = this.#parts;
    const session = await this.#opened();
    const { ready, waiting } = await this.#split(session, keys);
    healing.postpone(waiting, nowMs() + retryMs);
    if (ready.length === 0) return;
    try {
      const table = await tables.readable(relationId);
      if (table === null || table.keyed.identity.length === 0) {
        // Void rows of a table that never was here, or without a key: no other record can stand
        // under theirs.
        log.info({ relationId, keys: ready.length }, 'void rows of no table are left as they are');
        healing.drop(ready);
        return;
      }
      const id = randomId();
      healing.begin(id, table, ready);
      await readRows(session, table, ready, id, (read) => healing.read(read.snapshot, read.rows));
    } catch (error) {
      healing.abandon();
      if (!isPassing(error)) throw error;
      this.#putOff(relationId, ready, error);
      return;
    }
    this.#failuresInARow = 0;
    this.#keysMax = Math.min(roundKeysMax, this.#keysMax * 2);
    await hit('heal.after-watermark');
    while (healing.isReading && !signal.aborted) await sleepOrAbort(watermarkLookEveryMs, signal);
  }

  /** Those for which a snapshot of now sees all that their unwatched changes may have been. */
  async #split(session: Client, keys: readonly WantedRow[]) {
    const { healing } = this.#parts;
    if (keys.some(({ horizon }) => horizon === 'unknown')) {
      const { rereads } = healing;
      healing.setHorizon(keys, await nextTransactionId(session), rereads);
    }
    const isWatched = keys.every(({ horizon }) => horizon === null);
    const oldest = isWatched ? 0n : await oldestRunning(session);
    const isReady = ({ horizon }: WantedRow): boolean => {
      return horizon === null || (horizon !== 'unknown' && oldest >= horizon);
    };
    return { ready: keys.filter(isReady), waiting: keys.filter((key) => !isReady(key)) };
  }

  /** What is wrong with one row must not hold up the others: they are read in smaller parts. */
  #putOff(relationId: string, keys: readonly WantedRow[], error: unknown): void {
    const { healing, nowMs } = this.#parts;
    this.#tell(relationId, error);
    if (isBusy(error)) {
      healing.postpone(keys, nowMs() + retryMs);
      return;
    }
    this.#keysMax = Math.max(1, Math.ceil(keys.length / 2));
    healing.postpone(keys, nowMs() + (keys.length === 1 ? brokenRetryMs : retryMs));
  }

  async #opened(): Promise<Client> {
    this.#session ??= await this.#parts.openReadSession();
    return this.#session;
  }

  #tell(relationId: string, error: unknown): void {
    this.#failuresInARow += 1;
    const level = this.#failuresInARow < failuresWorthAWarning ? 'debug' : 'warn';
    this.#parts.log[level]({ relationId, error }, 'rows that lack values are read again later');
  }
}
