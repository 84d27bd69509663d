/**
 * Reads the rows that the topic lacks. Flows in: what healing.ts wants to be read; flows out: rows
 * and watermarks for it, from a session of its own that is opened with the first need, and keys
 * that a search of the topic found. A table that is locked, or a transaction that has run for long,
 * delays its rows and nothing else.
 */
import { type Client, DatabaseError } from 'pg';
import type { Mark } from '../change/change.ts';
import { parseLsn } from '../change/lsn.ts';
import { hit } from '../failpoints.ts';
import { sleepOrAbort } from '../lifecycle.ts';
import type { Logger } from '../logger.ts';
import type { CommittedReader } from '../topic/log.ts';
import type { RecordDecoder } from '../topic/record-decoder.ts';
import type { Healing, ReadRound } from './healing.ts';
import type { KnownTables } from './known-tables.ts';
import { nextTransactionId, oldestRunning, readRows } from './row-reader.ts';
import { type EpochBase, RowSearch } from './row-search.ts';

export interface HealerParts {
  readonly healing: Healing;
  readonly tables: KnownTables;
  readonly decoder: RecordDecoder;
  /** Of the leader's database, for reads alone. */
  readonly openReadSession: () => Promise<Client>;
  readonly openReader: () => CommittedReader;
  readonly log: Logger;
  readonly nowMs: () => number;
  readonly randomId: () => string;
}

const lookEveryMs = 200;
const watermarkLookEveryMs = 20;
/** A locked table, and what else ends by itself. */
const retryMs = 1_000;
const failuresWorthAWarning = 10;

export class Healer {
  readonly #parts: HealerParts;
  #session: Client | null = null;
  #search: RowSearch | null = null;
  #searched: CommittedReader | null = null;
  #failuresInARow = 0;

  constructor(parts: HealerParts) {
    this.#parts = parts;
  }

  /** Until `signal` aborts; rejects when a session or the topic is lost. */
  async run(signal: AbortSignal): Promise<void> {
    const { healing, nowMs } = this.#parts;
    while (!signal.aborted) {
      await this.#searchOn();
      const round = healing.next(nowMs());
      if ('atMs' in round) await sleepOrAbort(lookEveryMs, signal);
      else await this.#read(round, signal);
    }
  }

  async #searchOn(): Promise<void> {
    const { healing, nowMs, log } = this.#parts;
    const from = healing.nextSearch();
    if (from !== null) this.#search = await this.#searchFrom(from);
    else if (!healing.wantsMoreFound) return;
    const search = this.#search;
    if (search === null) return;
    const { keys, isAll } = await search.next();
    healing.found(keys, isAll, nowMs());
    log.info({ keys: keys.length, isAll }, 'searched the topic for rows that lack values');
    if (isAll) await this.#endSearch();
  }

  async #searchFrom(from: Mark): Promise<RowSearch> {
    const { openReader, decoder } = this.#parts;
    const epochs = await readEpochs(await this.#opened());
    this.#searched = openReader();
    return new RowSearch(this.#searched, decoder, epochs, from);
  }

  async #endSearch(): Promise<void> {
    const searched = this.#searched;
    this.#search = null;
    this.#searched = null;
    await searched?.close();
  }

  async #read(round: ReadRound, signal: AbortSignal): Promise<void> {
    const { healing, tables, nowMs, randomId } = this.#parts;
    const session = await this.#opened();
    const { relationId, keys } = round;
    if (!(await this.#reaches(session, round))) {
      healing.postpone(keys, nowMs() + retryMs);
      return;
    }
    const id = randomId();
    try {
      const table = await tables.readable(relationId);
      healing.begin(id, table, keys);
      await readRows(session, table, keys, id, ({ snapshot, rows }) => {
        healing.read(snapshot, rows);
      });
    } catch (error) {
      healing.abandon(nowMs() + retryMs);
      if (!isPassing(error)) throw error;
      this.#tell(relationId, error);
      return;
    }
    this.#failuresInARow = 0;
    await hit('heal.after-watermark');
    while (healing.isReading && !signal.aborted) await sleepOrAbort(watermarkLookEveryMs, signal);
  }

  /** Whether a snapshot of now sees all that the keys' unwatched changes may have been. */
  async #reaches(session: Client, { keys, horizon, needsHorizon }: ReadRound): Promise<boolean> {
    if (needsHorizon) {
      this.#parts.healing.setHorizon(keys, await nextTransactionId(session));
      return false;
    }
    return horizon === null || (await oldestRunning(session)) >= horizon;
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

/** A lock that was not to be had, or a table that is being changed: the stream looks after that. */
function isPassing(error: unknown): boolean {
  return error instanceof DatabaseError && !/^(08|57)/.test(error.code ?? '08');
}

async function readEpochs(session: Client): Promise<EpochBase[]> {
  const { rows } = await session.query<{
    epoch: string;
    base_epoch: string | null;
    base_upto: string | null;
  }>('SELECT epoch, base_epoch, base_upto FROM understudy.epochs');
  return rows.map(({ epoch, base_epoch, base_upto }) => ({
    epoch: Number(epoch),
    base:
      base_epoch === null || base_upto === null
        ? null
        : { epoch: Number(base_epoch), lsn: parseLsn(base_upto) },
  }));
}
