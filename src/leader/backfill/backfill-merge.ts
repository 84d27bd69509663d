/**
 * Merges a backfill into the stream: rows that predate it, and all rows of a table at a resnapshot.
 * Flows in: the tables that are backfilling, every change of a row as it is streamed, and chunks of
 * these tables read in the order of their keys; flows out: which chunk to read next, the rows to
 * publish at a chunk's watermark, and the progress of each table. Pure: no I/O and no clock.
 *
 * A row that was read goes out unless its key was streamed since a snapshot saw all its changes:
 * then the topic has it, or it is partial and reselect.ts reads it, so a row that is always being
 * changed does not starve. That a change was streamed before the chunk was read says nothing:
 * commits do not become visible in the order in which the WAL has them, and one that waits for a
 * synchronous standby is streamed long before it is visible. So changed keys are remembered until a
 * chunk's snapshot sees them. Where they are not remembered (after a restart, and beyond a bound),
 * the next snapshot has to see every transaction that began before.
 */

import type {
  Checkpoint,
  RelationId,
  RelationShape,
  RowChange,
  UnfinishedTable,
} from '../../change/change.ts';
import { unreadTable } from '../../change/change.ts';
import { compareEpochLsn } from '../../change/position.ts';
import { keyText, type ReadRow, rowOf } from './row-overlay.ts';
import { type Snapshot, sees } from './snapshot.ts';

/** The next chunk to read: rows with keys after `after`. */
export interface NextChunk {
  readonly relationId: RelationId;
  readonly after: readonly string[] | null;
}

export interface ChunkRead {
  readonly shape: RelationShape;
  readonly snapshot: Snapshot;
  /** In the order of keys. */
  readonly rows: readonly ReadRow[];
  /** Whether the table has no rows after them. */
  readonly isLast: boolean;
  readonly estimate: number | null;
}

interface TakenChunk {
  readonly shape: RelationShape;
  readonly rows: readonly RowChange[];
}

interface OpenChunk extends ChunkRead {
  readonly id: string;
}

interface Table {
  readonly relation: RelationId;
  after: readonly string[] | null;
  rows: number;
  estimate: number | null;
  since: number | null;
  /** The checkpoint before the batch that took the last chunk; null while there is more to read. */
  readTo: Checkpoint | null;
  /** Whether a point has named it: until then followers would take its missing rows for damage. */
  isNamed: boolean;
}

interface Changed {
  readonly relationId: RelationId;
  xid: number;
}

function asUnfinished({ relation, after, rows, estimate, since }: Table): UnfinishedTable {
  return { relation, after, rows, estimate, since };
}

/** One is read while the watermark of the other is on its way. */
const openMax = 2;
const changedMax = 100_000;

export class BackfillMerge {
  readonly #tables = new Map<RelationId, Table>();
  readonly #changedMax: number;
  /** The last streamed transaction that changed a key, by its text. */
  readonly #changed = new Map<string, Changed>();
  /**
   * The next chunk must see all transactions below. Unknown until it is set; null where any
   * snapshot will do.
   */
  #horizon: bigint | 'unknown' | null = 'unknown';
  #forgotten = 0;
  /** In the order in which they were read. */
  #open: OpenChunk[] = [];

  constructor(
    backfilling: readonly UnfinishedTable[],
    limits: { readonly changedMax?: number } = {},
  ) {
    for (const table of backfilling)
      this.#tables.set(table.relation, { ...table, readTo: null, isNamed: true });
    this.#changedMax = limits.changedMax ?? changedMax;
  }

  /**
   * A table enters the stream, before any change of it: its rows are read from the first on, by a
   * snapshot that sees every transaction that was open when it entered: those are not streamed.
   */
  enter(relation: RelationId): void {
    if (!this.#tables.has(relation)) this.restart(relation);
  }

  /**
   * All its rows have to be read, also those that were read before. What was streamed before this
   * position does not count, so every snapshot must see it. Points name the table at least once.
   */
  restart(relation: RelationId): void {
    // rule: resnapshot-starts-over
    this.#tables.set(relation, { ...unreadTable(relation), readTo: null, isNamed: false });
    // rule: resnapshot-forgets-changes
    this.#forgetChanges();
  }

  /**
   * What a point says, where rows are partial since `unhealed`; this counts as having been said.
   * A table is complete, and no longer named, once all of it is published and so is the whole row
   * of every key that was streamed as a partial row meanwhile.
   */
  takeForPoint(unhealed: Checkpoint | null): readonly UnfinishedTable[] {
    for (const [relation, table] of this.#tables) {
      const { readTo, isNamed } = table;
      table.isNamed = true;
      if (readTo === null || !isNamed) continue;
      // rule: complete-without-partial-rows
      if (unhealed !== null && compareEpochLsn(unhealed.at, readTo.at) <= 0) continue;
      this.#tables.delete(relation);
    }
    return [...this.#tables.values()].map(asUnfinished);
  }

  /** The tables with rows not yet read, the one that is being read first. */
  get reading(): readonly UnfinishedTable[] {
    return [...this.#tables.values()].filter(({ readTo }) => readTo === null).map(asUnfinished);
  }

  /**
   * A change was streamed, by the transaction `xid`; `previous` is the checkpoint before its batch.
   * Rows of a read are no changes. A partial row whose key changed may have had no base under its
   * old key: it is reselected before the table counts as complete.
   */
  row(
    { op, relation, identity, was, unchanged }: RowChange,
    xid: number,
    previous: Checkpoint,
  ): void {
    const table = this.#tables.get(relation.id);
    if (op === 'r' || table === undefined) return;
    if (table.readTo !== null) {
      // rule: moved-partial-row-delays-completion
      if (was !== null && unchanged.length > 0) table.readTo = previous;
      return;
    }
    const text = keyText({ relationId: relation.id, identity });
    const known = this.#changed.get(text);
    if (known !== undefined) {
      // rule: last-change-of-key-counts
      known.xid = xid;
      return;
    }
    if (this.#changed.size >= this.#changedMax) this.#forgetChanges();
    this.#changed.set(text, { relationId: relation.id, xid });
  }

  #forgetChanges(): void {
    this.#changed.clear();
    // rule: forgotten-changes-set-horizon
    this.#horizon = 'unknown';
    // rule: forgotten-changes-drop-chunks
    this.#open = [];
    this.#forgotten += 1;
  }

  /** Whether `setHorizon` has to be called before the next chunk. */
  get wantsHorizon(): boolean {
    return this.#horizon === 'unknown';
  }

  /** How many times changes were forgotten so far. */
  get forgotten(): number {
    return this.#forgotten;
  }

  /** `nextXid` was the next transaction id at a time when `forgotten` had this value. */
  setHorizon(nextXid: bigint, forgotten: number): void {
    // rule: horizon-since-last-forgotten
    if (this.#horizon === 'unknown' && forgotten === this.#forgotten) this.#horizon = nextXid;
  }

  /** Null while there is nothing to read, or enough chunks wait for their watermarks. */
  next(): NextChunk | null {
    if (this.#open.length >= openMax || this.#horizon === 'unknown') return null;
    for (const { relation, after, readTo } of this.#tables.values()) {
      if (readTo !== null) continue;
      const chunks = this.#open.filter(({ shape }) => shape.id === relation);
      const last = chunks[chunks.length - 1];
      if (last === undefined) return { relationId: relation, after };
      const end = last.rows[last.rows.length - 1];
      // rule: chunk-follows-last-key
      if (!last.isLast && end !== undefined) return { relationId: relation, after: end.identity };
    }
    return null;
  }

  /** Whether no rows are left to be read. */
  get isDone(): boolean {
    for (const { readTo } of this.#tables.values()) if (readTo === null) return false;
    return true;
  }

  /**
   * The chunk that `next` gave last was read; its watermark `id` is not yet written. False where
   * its snapshot is too old: the chunk has to be read again.
   */
  read(id: string, chunk: ChunkRead): boolean {
    if (this.#horizon === 'unknown') return false;
    // rule: chunk-sees-earlier-transactions
    if (this.#horizon !== null && chunk.snapshot.xmin < this.#horizon) return false;
    this.#horizon = null;
    this.#open.push({ ...chunk, id });
    return true;
  }

  /** A read failed: chunks without their watermark are dropped, and other tables are read first. */
  abandon(relation: RelationId): void {
    this.#open = [];
    const table = this.#tables.get(relation);
    if (table === undefined) return;
    this.#tables.delete(relation);
    this.#tables.set(relation, table);
  }

  /** The watermark is reached: the table, and the rows to publish at its position. */
  take(id: string, previous: Checkpoint, nowMs: number): TakenChunk | null {
    const [chunk, ...rest] = this.#open;
    if (chunk === undefined || chunk.id !== id) return null;
    this.#open = rest;
    const { shape } = chunk;
    const table = this.#tables.get(shape.id);
    if (table === undefined) return null;
    const isChanged = ({ identity }: ReadRow): boolean => {
      return this.#changed.has(keyText({ relationId: shape.id, identity }));
    };
    // rule: streamed-row-beats-read-row
    const rows = chunk.rows.filter((row) => !isChanged(row)).map((row) => rowOf(shape, row, null));
    table.after = chunk.rows[chunk.rows.length - 1]?.identity ?? table.after;
    table.rows += chunk.rows.length;
    table.estimate = chunk.estimate;
    table.since ??= nowMs;
    if (chunk.isLast) table.readTo = previous;
    this.#forgetSeen(chunk.snapshot);
    return { shape, rows };
  }

  /** Every later snapshot sees them too. */
  #forgetSeen(snapshot: Snapshot): void {
    const seen = new Map<number, boolean>();
    for (const [text, { relationId, xid }] of this.#changed) {
      let isSeen = seen.get(xid);
      if (isSeen === undefined) {
        // rule: change-kept-until-seen
        isSeen = sees(snapshot, xid);
        seen.set(xid, isSeen);
      }
      if (isSeen || this.#tables.get(relationId)?.readTo !== null) this.#changed.delete(text);
    }
  }
}
