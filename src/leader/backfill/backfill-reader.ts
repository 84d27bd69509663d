/**
 * Reads the chunks of a backfill. Flows in: what backfill-merge.ts wants to be read; flows out:
 * rows and watermarks for it, from a session of its own that is opened at the first need. Each
 * chunk is one short transaction, and grows or shrinks with the time it takes. A table that is
 * locked, or a transaction that has been open for long, delays the backfill and nothing else.
 */
import type { Client } from 'pg';
import { identityColumns } from '../../catalog/key-lookup.ts';
import { rowsInOrderSql } from '../../catalog/key-order.ts';
import type { PgText } from '../../change/change.ts';
import { bug } from '../../errors/bug.ts';
import { rowUnreadable } from '../../errors/row.ts';
import { hit } from '../../failpoints.ts';
import type { Logger } from '../../logger.ts';
import { progressLogEveryMs, sleepOrAbort } from '../../waiting.ts';
import type { KnownTables, ReadableTable } from '../tables/known-tables.ts';
import type { BackfillMerge, NextChunk } from './backfill-merge.ts';
import type { ReadRow } from './row-overlay.ts';
import { isBusy, isPassing, nextTransactionId, readRow, readWithWatermark } from './row-reader.ts';

interface BackfillReaderParts {
  readonly backfill: BackfillMerge;
  readonly tables: Pick<KnownTables, 'oidOf' | 'readable'>;
  /** A session on the leader's database, for reads alone. */
  readonly openReadSession: () => Promise<Client>;
  readonly log: Logger;
  readonly nowMs: () => number;
  readonly randomId: () => string;
}

interface ReadTable extends ReadableTable {
  /** Of its columns, when they were compared with those of the stream. */
  readonly stamp: string;
}

interface TableState {
  readonly stamp: string;
  readonly estimate: number | null;
}

const pollEveryMs = 20;
const idlePollEveryMs = 200;
const retryMs = 500;
/** The row that stops a backfill is named this often. */
const brokenLogEveryMs = 60_000;
/** Bounds what a chunk holds in memory, except for the last row. */
const bytesMax = 4 * 1024 * 1024;
const rowsAtFirst = 500;
const rowsMax = 5_000;
const fetchRowsMax = 500;
/** A chunk that takes less time is doubled, one that takes longer than `slowMs` is halved. */
const quickMs = 100;
const slowMs = 500;

export class BackfillReader {
  readonly #parts: BackfillReaderParts;
  #session: Client | null = null;
  #table: ReadTable | null = null;
  #rows = rowsAtFirst;
  #namedMs = Number.NEGATIVE_INFINITY;
  #logged: { readonly atMs: number; readonly table: string; readonly rows: number };
  #isDone: boolean;

  constructor(parts: BackfillReaderParts) {
    this.#parts = parts;
    this.#logged = { atMs: parts.nowMs(), table: '', rows: 0 };
    this.#isDone = parts.backfill.isDone;
  }

  /** Runs until `signal` aborts; rejects when a session is lost. */
  async run(signal: AbortSignal): Promise<void> {
    const { backfill } = this.#parts;
    while (!signal.aborted) {
      this.#logProgress();
      if (backfill.wantsHorizon && !backfill.isDone) {
        const { forgotten } = backfill;
        backfill.setHorizon(await nextTransactionId(await this.#opened()), forgotten);
      }
      const next = backfill.next();
      const isRead = next !== null && (await this.#read(next));
      if (!isRead) await sleepOrAbort(next === null ? this.#pauseMs() : retryMs, signal);
    }
  }

  /**
   * While there is something to read, the watermark that frees a place comes within milliseconds.
   */
  #pauseMs(): number {
    return this.#isDone ? idlePollEveryMs : pollEveryMs;
  }

  /** False where the chunk could not be used. */
  async #read(next: NextChunk): Promise<boolean> {
    const { backfill, randomId, log } = this.#parts;
    try {
      const session = await this.#opened();
      const table = await this.#tableOf(session, next.relationId);
      const id = randomId();
      let isTaken = false;
      await readWithWatermark(session, table, id, async (snapshot) => {
        const { stamp, estimate } = await readState(session, table.oid);
        // The table is locked now, and was changed before: it has to be compared again.
        if (stamp !== table.stamp) return false;
        const read = await this.#readChunk(session, table, next);
        await hit('chunk.after-read');
        isTaken = backfill.read(id, { ...read, shape: table.shape, snapshot, estimate });
        return isTaken;
      });
      if (!isTaken) this.#table = null;
      await hit('chunk.after-watermark');
      return isTaken;
    } catch (error) {
      if (!isPassing(error)) throw error;
      backfill.abandon(next.relationId);
      const failed = this.#table;
      this.#table = null;
      if (isBusy(error)) {
        log.debug({ relationId: next.relationId, error }, 'backfill failed, retrying later');
        return false;
      }
      log.warn({ relationId: next.relationId, error }, 'backfill failed, retrying later');
      // A row that cannot be read is found by chunks that become smaller, until it is alone.
      if (this.#rows === 1 && failed !== null) await this.#nameRow(failed, next, error);
      this.#rows = Math.max(1, Math.floor(this.#rows / 4));
      return false;
    }
  }

  /** The key alone can be read where another value of the row cannot. */
  async #nameRow({ keyed }: ReadTable, next: NextChunk, cause: unknown): Promise<void> {
    const { log, nowMs } = this.#parts;
    if (nowMs() - this.#namedMs < brokenLogEveryMs) return;
    const columns = identityColumns(keyed);
    const keyOnly = { ...keyed, columns, identity: columns.map((_, index) => index) };
    const session = await this.#opened();
    const text = rowsInOrderSql(keyOnly, next.after !== null, 1);
    const query = { text, values: [...(next.after ?? [])], rowMode: 'array' as const };
    // Where the key cannot be read either, the table itself is the trouble: that was logged.
    const { rows } = await session.query<PgText[]>(query).catch((error: unknown) => {
      if (isPassing(error)) return { rows: [] };
      throw error;
    });
    const [key] = rows;
    if (key === undefined) return;
    this.#namedMs = nowMs();
    const texts = key.map((value) => value ?? '');
    const unreadable = rowUnreadable(next.relationId, texts, cause);
    log.warn({ error: unreadable }, 'a row cannot be backfilled, retrying later');
  }

  async #readChunk(
    session: Client,
    { keyed }: ReadTable,
    { after }: NextChunk,
  ): Promise<{ readonly rows: readonly ReadRow[]; readonly isLast: boolean }> {
    const beganMs = this.#parts.nowMs();
    const wanted = this.#rows;
    // The index gives the order; any plan that seems cheaper for one chunk reads the whole table.
    await session.query(
      'SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; ' +
        'SET LOCAL enable_sort = off',
    );
    const select = rowsInOrderSql(keyed, after !== null, wanted);
    const text = `DECLARE chunk NO SCROLL CURSOR FOR ${select}`;
    await session.query({ text, values: [...(after ?? [])] });
    const rows: ReadRow[] = [];
    let bytes = 0;
    let isLast = false;
    for (let count = 1; rows.length < wanted && bytes < bytesMax && !isLast; ) {
      const fetched = await session.query<PgText[]>({
        text: `FETCH FORWARD ${count} FROM chunk`,
        rowMode: 'array',
      });
      for (const values of fetched.rows) {
        rows.push(readRow(keyed, values));
        bytes += values.reduce((sum, value) => sum + (value?.length ?? 0), 0);
      }
      isLast = fetched.rows.length < count;
      const each = Math.max(1, bytes / Math.max(1, rows.length));
      const fitting = Math.floor((bytesMax - bytes) / each);
      count = Math.min(fetchRowsMax, fitting, count * 4, wanted - rows.length);
      count = Math.max(1, count);
    }
    this.#adapt(this.#parts.nowMs() - beganMs);
    return { rows, isLast };
  }

  #adapt(tookMs: number): void {
    if (tookMs < quickMs) this.#rows = Math.min(rowsMax, this.#rows * 2);
    if (tookMs > slowMs) this.#rows = Math.max(1, Math.floor(this.#rows / 2));
  }

  async #tableOf(session: Client, relationId: string): Promise<ReadTable> {
    if (this.#table?.shape.id === relationId) return this.#table;
    const { tables } = this.#parts;
    const oid = tables.oidOf(relationId);
    const stamp = oid === null ? '' : (await readState(session, oid)).stamp;
    // The stamp is read first: while it stays the same, so does what is compared here.
    const table = await tables.readable(relationId);
    if (table === null) throw bug(`${relationId} is backfilling and not a table of this node`);
    this.#table = { ...table, stamp };
    return this.#table;
  }

  async #opened(): Promise<Client> {
    this.#session ??= await this.#parts.openReadSession();
    return this.#session;
  }

  #logProgress(): void {
    const { backfill, log, nowMs } = this.#parts;
    const wasDone = this.#isDone;
    this.#isDone = backfill.isDone;
    if (this.#isDone && !wasDone) log.info({}, 'backfill complete');
    if (this.#isDone || wasDone) return;
    const { atMs, table, rows } = this.#logged;
    const [reading, ...more] = backfill.reading;
    if (reading === undefined || nowMs() - atMs < progressLogEveryMs) return;
    this.#logged = { atMs: nowMs(), table: reading.relation, rows: reading.rows };
    const seconds = (nowMs() - atMs) / 1_000;
    const perSecond = table === reading.relation ? (reading.rows - rows) / seconds : null;
    const left = reading.estimate === null ? null : reading.estimate - reading.rows;
    const secondsLeft = left === null || !perSecond ? null : Math.max(0, left / perSecond);
    log.info(
      {
        ...{ table: reading.relation, rows: reading.rows, estimate: reading.estimate },
        ...{ perSecond: rounded(perSecond), secondsLeft: rounded(secondsLeft) },
        tablesLeft: more.length,
      },
      'backfill progress',
    );
  }
}

function rounded(value: number | null): number | null {
  return value === null ? null : Math.round(value);
}

/**
 * A stamp of its columns, from the catalog rows that describe them, and how many rows it may have.
 */
async function readState(session: Client, oid: number): Promise<TableState> {
  const { rows } = await session.query<{ stamp: string | null; estimate: string }>(
    `SELECT c.reltuples::bigint AS estimate, (
       SELECT string_agg(a.attnum || ':' || a.xmin, ',' ORDER BY a.attnum)
       FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) AS stamp
     FROM pg_catalog.pg_class c WHERE c.oid = $1`,
    [oid],
  );
  const estimate = Number(rows[0]?.estimate ?? -1);
  return { stamp: rows[0]?.stamp ?? '', estimate: estimate < 0 ? null : estimate };
}
