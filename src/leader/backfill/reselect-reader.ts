/**
 * Reads the rows that reselect.ts wants. Flows in: which keys to read; flows out: their rows and
 * watermarks, from a session of its own that is opened at the first need, and keys that a search of
 * the topic found. A table that is locked, or a transaction that has been open for long, delays its
 * rows and nothing else.
 */
import type { Client } from 'pg';
import { readEpochBases } from '../../catalog/understudy-schema.ts';
import type { Checkpoint } from '../../change/change.ts';
import type { EpochLsn } from '../../change/position.ts';
import { rowUnreadable } from '../../errors/row.ts';
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
  readonly reselect: Reselect;
  readonly tables: KnownTables;
  readonly decoder: RecordDecoder;
  /** A session on the leader's database, for reads alone. */
  readonly openReadSession: () => Promise<Client>;
  readonly openReader: () => CommittedReader;
  /** Up to where every partition was read back. */
  readonly seenAt: () => EpochLsn;
  readonly log: Logger;
  readonly nowMs: () => number;
  readonly randomId: () => string;
}

const pollEveryMs = 200;
const watermarkPollEveryMs = 20;
/** After a locked table, and other failures that end by themselves. */
const retryMs = 1_000;
/** After a row that cannot be read even alone. */
const brokenRetryMs = 60_000;
const failuresWorthAWarning = 10;

export class ReselectReader {
  readonly #parts: ReselectReaderParts;
  #session: Client | null = null;
  #open: ReselectSearch | null = null;
  #failuresInARow = 0;
  #keysMax = roundKeysMax;

  constructor(parts: ReselectReaderParts) {
    this.#parts = parts;
  }

  /** Runs until `signal` aborts; rejects when a session or the topic is lost. */
  async run(signal: AbortSignal): Promise<void> {
    const { reselect, nowMs } = this.#parts;
    while (!signal.aborted) {
      await this.#search();
      const round = reselect.next(nowMs(), this.#keysMax);
      if ('atMs' in round) await sleepOrAbort(pollEveryMs, signal);
      else await this.#read(round, signal);
    }
  }

  async #search(): Promise<void> {
    const { reselect, nowMs, log } = this.#parts;
    const from = reselect.takeSearch(this.#parts.seenAt());
    if (from !== null) this.#open = await this.#searchFrom(from);
    else if (!reselect.wantsMoreFound) return;
    const search = this.#open;
    if (search === null) return;
    const { keys, isAll } = await search.next();
    reselect.found(keys, isAll, nowMs());
    log.info({ keys: keys.length, isAll }, 'searched the topic for rows to reselect');
    if (!isAll) return;
    this.#open = null;
    await search.close();
  }

  async #searchFrom(from: Checkpoint): Promise<ReselectSearch> {
    const { openReader, decoder } = this.#parts;
    const epochs = await readEpochBases(await this.#opened());
    return new ReselectSearch(openReader(), decoder, epochs, from);
  }

  async #read({ relationId, keys }: ReadRound, signal: AbortSignal): Promise<void> {
    const { reselect, tables, nowMs, randomId, log } = this.#parts;
    const session = await this.#opened();
    const { ready, waiting } = await this.#split(session, keys);
    reselect.postpone(waiting, nowMs() + retryMs);
    if (ready.length === 0) return;
    try {
      const table = await tables.readable(relationId);
      if (table === null || table.keyed.identity.length === 0) {
        // Void rows of a table that this node never had, or without a key: no valid record can be
        // below theirs.
        log.info({ relationId, keys: ready.length }, 'void rows of an unknown table are kept');
        reselect.drop(ready);
        return;
      }
      const id = randomId();
      reselect.begin(id, table, ready);
      await readRows(session, table, ready, id, (read) => reselect.read(read.snapshot, read.rows));
    } catch (error) {
      reselect.abandon();
      if (!isPassing(error)) throw error;
      this.#postpone(relationId, ready, error);
      return;
    }
    this.#failuresInARow = 0;
    this.#keysMax = Math.min(roundKeysMax, this.#keysMax * 2);
    await hit('heal.after-watermark');
    while (reselect.isReading && !signal.aborted) await sleepOrAbort(watermarkPollEveryMs, signal);
  }

  /**
   * Which keys a snapshot taken now may be used for: it sees all changes that were not observed.
   */
  async #split(session: Client, keys: readonly WantedRow[]) {
    const { reselect } = this.#parts;
    if (keys.some(({ horizon }) => horizon === 'unknown')) {
      const { resnapshots } = reselect;
      reselect.setHorizon(keys, await nextTransactionId(session), resnapshots);
    }
    const isObserved = keys.every(({ horizon }) => horizon === null);
    const oldest = isObserved ? 0n : await oldestRunning(session);
    const isReady = ({ horizon }: WantedRow): boolean => {
      return horizon === null || (horizon !== 'unknown' && oldest >= horizon);
    };
    return { ready: keys.filter(isReady), waiting: keys.filter((key) => !isReady(key)) };
  }

  /** A row that cannot be read must not delay the others: they are read in smaller parts. */
  #postpone(relationId: string, keys: readonly WantedRow[], error: unknown): void {
    const { reselect, nowMs, log } = this.#parts;
    const [only, ...more] = keys;
    if (isBusy(error) || only === undefined || more.length > 0) {
      this.#logFailure(relationId, error);
      if (!isBusy(error)) this.#keysMax = Math.max(1, Math.ceil(keys.length / 2));
      reselect.postpone(keys, nowMs() + retryMs);
      return;
    }
    const unreadable = rowUnreadable(relationId, only.identity, error);
    log.warn({ error: unreadable }, 'a row cannot be reselected, retrying later');
    reselect.postpone(keys, nowMs() + brokenRetryMs);
  }

  async #opened(): Promise<Client> {
    this.#session ??= await this.#parts.openReadSession();
    return this.#session;
  }

  #logFailure(relationId: string, error: unknown): void {
    this.#failuresInARow += 1;
    const level = this.#failuresInARow < failuresWorthAWarning ? 'debug' : 'warn';
    this.#parts.log[level]({ relationId, error }, 'reselect failed, retrying later');
  }
}
