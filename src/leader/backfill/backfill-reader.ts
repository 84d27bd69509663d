/**
 * Reads the rows from before the stream, chunk after chunk. Flows in: what chunk-merge.ts wants to
 * be read; flows out: rows and watermarks for it, from a session of its own that is opened with the
 * first need. Each chunk is one short transaction, and grows or shrinks with the time it takes. A
 * table that is locked, or a transaction that has run for long, delays the reading and nothing
 * else.
 */
import type { Client } from 'pg';
import { rowsInOrderSql } from '../../catalog/key-order.ts';
import type { PgText } from '../../change/change.ts';
import { hit } from '../../failpoints.ts';
import type { Logger } from '../../logger.ts';
import { sleepOrAbort } from '../../waiting.ts';
import type { KnownTables } from '../tables/known-tables.ts';
import type { BackfillMerge, NextChunk } from './backfill-merge.ts';
import type { ReadRow } from './row-overlay.ts';
import {
  isBusy,
  isPassing,
  nextTransactionId,
  type ReadableTable,
  readMarked,
  readRow,
} from './row-reader.ts';

interface BackfillReaderParts {
  readonly chunks: BackfillMerge;
  readonly tables: Pick<KnownTables, 'oidOf' | 'readable'>;
  /** Of the leader's database, for reads alone. */
  readonly openReadSession: () => Promise<Client>;
  readonly log: Logger;
  readonly nowMs: () => number;
  readonly randomId: () => string;
}

interface ReadTable extends ReadableTable {
  /** Of its columns, when they were compared with those of the stream. */
  readonly stamp: string;
}

interface Look {
  readonly stamp: string;
  readonly estimate: number | null;
}

const lookEveryMs = 20;
const idleLookEveryMs = 200;
const retryMs = 500;
/** What a chunk may hold in memory, but for the last row. */
const bytesMax = 4 * 1024 * 1024;
const rowsAtFirst = 500;
const rowsMax = 5_000;
const fetchRowsMax = 500;
/** A chunk that takes less is doubled, one that takes longer halved. */
const quickMs = 100;
const slowMs = 500;
const tellEveryMs = 10_000;

export class BackfillReader {
  readonly #parts: BackfillReaderParts;
  #session: Client | null = null;
  #table: ReadTable | null = null;
  #rows = rowsAtFirst;
  #told: { readonly atMs: number; readonly table: string; readonly rows: number };
  #isDone: boolean;

  constructor(parts: BackfillReaderParts) {
    this.#parts = parts;
    this.#told = { atMs: parts.nowMs(), table: '', rows: 0 };
    this.#isDone = parts.chunks.isDone;
  }

  /** Until `signal` aborts; rejects when a session is lost. */
  async run(signal: AbortSignal): Promise<void> {
    const { chunks } = this.#parts;
    while (!signal.aborted) {
      this.#tell();
      if (chunks.wantsHorizon && !chunks.isDone) {
        const { forgotten } = chunks;
        chunks.setHorizon(await nextTransactionId(await this.#opened()), forgotten);
      }
      const next = chunks.next();
      const isRead = next !== null && (await this.#read(next));
      if (!isRead) await sleepOrAbort(next === null ? this.#pauseMs() : retryMs, signal);
    }
  }

  /** A watermark that is on its way comes at once. */
  #pauseMs(): number {
    return this.#isDone ? idleLookEveryMs : lookEveryMs;
  }

  /** False where it was in vain. */
  async #read(next: NextChunk): Promise<boolean> {
    const { chunks, randomId, log } = this.#parts;
    try {
      const session = await this.#opened();
      const table = await this.#tableOf(session, next.relationId);
      const id = randomId();
      let isTaken = false;
      await readMarked(session, table, id, async (snapshot) => {
        const { stamp, estimate } = await lookAt(session, table.oid);
        // Nobody can change it now; whether it is as the stream says has to be found out anew.
        if (stamp !== table.stamp) return false;
        const read = await this.#readChunk(session, table, next);
        await hit('chunk.after-read');
        isTaken = chunks.read(id, { ...read, shape: table.shape, snapshot, estimate });
        return isTaken;
      });
      if (!isTaken) this.#table = null;
      await hit('chunk.after-watermark');
      return isTaken;
    } catch (error) {
      if (!isPassing(error)) throw error;
      chunks.abandon(next.relationId);
      this.#table = null;
      const level = isBusy(error) ? 'debug' : 'warn';
      log[level]({ relationId: next.relationId, error }, 'rows are read again later');
      return false;
    }
  }

  async #readChunk(
    session: Client,
    { keyed }: ReadTable,
    { after }: NextChunk,
  ): Promise<{ readonly rows: readonly ReadRow[]; readonly isLast: boolean }> {
    const beganMs = this.#parts.nowMs();
    const wanted = this.#rows;
    // The order is the index's: whatever else looks cheaper for one chunk reads all of the table.
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
    const stamp = oid === null ? '' : (await lookAt(session, oid)).stamp;
    // Compared after the stamp was taken: while it stays the same, so does what was compared.
    const table = await tables.readable(relationId);
    if (table === null) throw new RangeError(`${relationId} was never a table of this node`);
    this.#table = { ...table, stamp };
    return this.#table;
  }

  async #opened(): Promise<Client> {
    this.#session ??= await this.#parts.openReadSession();
    return this.#session;
  }

  #tell(): void {
    const { chunks, log, nowMs } = this.#parts;
    const wasDone = this.#isDone;
    this.#isDone = chunks.isDone;
    if (this.#isDone && !wasDone) log.info({}, 'every row from before the stream was read');
    if (this.#isDone || wasDone) return;
    const { atMs, table, rows } = this.#told;
    const [reading, ...more] = chunks.reading;
    if (reading === undefined || nowMs() - atMs < tellEveryMs) return;
    this.#told = { atMs: nowMs(), table: reading.relation, rows: reading.rows };
    const seconds = (nowMs() - atMs) / 1_000;
    const perSecond = table === reading.relation ? (reading.rows - rows) / seconds : null;
    const left = reading.estimate === null ? null : reading.estimate - reading.rows;
    const secondsLeft = left === null || !perSecond ? null : Math.max(0, left / perSecond);
    log.info(
      {
        ...{ table: reading.relation, rows: reading.rows, estimate: reading.estimate },
        ...{ perSecond: rounded(perSecond), secondsLeft: rounded(secondsLeft) },
        tablesToCome: more.length,
      },
      'reading rows from before the stream',
    );
  }
}

function rounded(value: number | null): number | null {
  return value === null ? null : Math.round(value);
}

/** Its columns as they are now, by the rows that describe them, and how many rows there may be. */
async function lookAt(session: Client, oid: number): Promise<Look> {
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
