/**
 * Rows from before the stream, merged into it. Flows in: the tables that are unfinished, every
 * change of a row as it is streamed, and chunks of these tables read in the order of their keys;
 * flows out: which chunk to read next, the rows to publish at a chunk's watermark, and how far each
 * table is. Pure: no I/O and no clock.
 *
 * A row that was read goes out unless its key was streamed since a snapshot saw all its changes:
 * then the topic has it, or it is partial and healing.ts reads it, so a row that never rests does
 * not starve. That a change was streamed before the chunk was read says nothing: commits are not
 * seen in the order in which the WAL has them, and one that waits for a synchronous standby is
 * streamed long before it is seen. So changed keys are remembered until a chunk's snapshot sees
 * them. Where nobody remembers (after a restart, and beyond a bound), the next snapshot has to see
 * every transaction that began before.
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
import { type ReadRow, rowOf, textOf } from './row-overlay.ts';
import { type Snapshot, sees } from './snapshot.ts';

/** Where to read on. */
export interface NextChunk {
  readonly relationId: RelationId;
  readonly after: readonly string[] | null;
}

export interface ChunkRead {
  readonly shape: RelationShape;
  readonly snapshot: Snapshot;
  /** In the order of keys. */
  readonly rows: readonly ReadRow[];
  /** Nothing comes after them. */
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
  /** Whether a point has named it: what it misses at first must not look like damage. */
  isNamed: boolean;
}

interface Changed {
  readonly relationId: RelationId;
  xid: number;
}

function asUnfinished({ relation, after, rows, estimate, since }: Table): UnfinishedTable {
  return { relation, after, rows, estimate, since };
}

/** One is read while the other's watermark is on its way. */
const openMax = 2;
const changedMax = 100_000;

export class BackfillMerge {
  readonly #tables = new Map<RelationId, Table>();
  readonly #changedMax: number;
  /** The last streamed transaction that changed a key, by its text. */
  readonly #changed = new Map<string, Changed>();
  /** Transactions below are to be seen by the next chunk; null where none is unknown. */
  #horizon: bigint | 'unknown' | null = 'unknown';
  #forgotten = 0;
  /** In the order in which they were read. */
  #open: OpenChunk[] = [];

  constructor(
    unfinished: readonly UnfinishedTable[],
    limits: { readonly changedMax?: number } = {},
  ) {
    for (const table of unfinished)
      this.#tables.set(table.relation, { ...table, readTo: null, isNamed: true });
    this.#changedMax = limits.changedMax ?? changedMax;
  }

  /**
   * A table enters the stream, before any change of it: its rows are to be read from the first on,
   * by who sees whatever was open when it entered: that is not in the stream.
   */
  enter(relation: RelationId): void {
    if (!this.#tables.has(relation)) this.reread(relation);
  }

  /**
   * All its rows are to be read, also those that were: what was streamed before this place counts
   * for nothing, so it has to be seen by whoever reads. Points name the table at least once.
   */
  reread(relation: RelationId): void {
    this.#tables.set(relation, { ...unreadTable(relation), readTo: null, isNamed: false });
    this.#forgetChanges();
  }

  /**
   * What a point says, where rows lack values since `unhealed`. A table is finished once all of it
   * is out and every key that was streamed without its row's values meanwhile is whole.
   */
  unfinished(unhealed: Checkpoint | null): readonly UnfinishedTable[] {
    for (const [relation, table] of this.#tables) {
      const { readTo, isNamed } = table;
      table.isNamed = true;
      if (readTo === null || !isNamed) continue;
      if (unhealed !== null && compareEpochLsn(unhealed.at, readTo.at) <= 0) continue;
      this.#tables.delete(relation);
    }
    return [...this.#tables.values()].map(asUnfinished);
  }

  /** What is left to be read, the table under way first. */
  get reading(): readonly UnfinishedTable[] {
    return [...this.#tables.values()].filter(({ readTo }) => readTo === null).map(asUnfinished);
  }

  /**
   * A change was streamed, by the transaction `xid`; `previous` is the checkpoint before its batch.
   * A read changes nothing that others wrote. A key that is moved takes what its row lacks along,
   * and is to be healed before the table is finished.
   */
  row(
    { op, relation, identity, was, unchanged }: RowChange,
    xid: number,
    previous: Checkpoint,
  ): void {
    const table = this.#tables.get(relation.id);
    if (op === 'r' || table === undefined) return;
    if (table.readTo !== null) {
      if (was !== null && unchanged.length > 0) table.readTo = previous;
      return;
    }
    const text = textOf({ relationId: relation.id, identity });
    const known = this.#changed.get(text);
    if (known !== undefined) {
      known.xid = xid;
      return;
    }
    if (this.#changed.size >= this.#changedMax) this.#forgetChanges();
    this.#changed.set(text, { relationId: relation.id, xid });
  }

  #forgetChanges(): void {
    this.#changed.clear();
    this.#horizon = 'unknown';
    this.#open = [];
    this.#forgotten += 1;
  }

  /** Whether the id of a transaction that begins now has to be told before the next chunk. */
  get wantsHorizon(): boolean {
    return this.#horizon === 'unknown';
  }

  /** How often changes were forgotten so far. */
  get forgotten(): number {
    return this.#forgotten;
  }

  /** `nextXid` was the next transaction id at a time after changes were `forgotten` so often. */
  setHorizon(nextXid: bigint, forgotten: number): void {
    if (this.#horizon === 'unknown' && forgotten === this.#forgotten) this.#horizon = nextXid;
  }

  /** Null while nothing is to be read, or enough waits for its watermark. */
  next(): NextChunk | null {
    if (this.#open.length >= openMax || this.#horizon === 'unknown') return null;
    for (const { relation, after, readTo } of this.#tables.values()) {
      if (readTo !== null) continue;
      const chunks = this.#open.filter(({ shape }) => shape.id === relation);
      const last = chunks[chunks.length - 1];
      if (last === undefined) return { relationId: relation, after };
      const end = last.rows[last.rows.length - 1];
      if (!last.isLast && end !== undefined) return { relationId: relation, after: end.identity };
    }
    return null;
  }

  /** Whether anything is left to be read. */
  get isDone(): boolean {
    for (const { readTo } of this.#tables.values()) if (readTo === null) return false;
    return true;
  }

  /**
   * The chunk that was asked for last, before its watermark `id` is written. False where it came
   * too early, or for nothing: it is to be read again.
   */
  read(id: string, chunk: ChunkRead): boolean {
    if (this.#horizon === 'unknown') return false;
    if (this.#horizon !== null && chunk.snapshot.xmin < this.#horizon) return false;
    this.#horizon = null;
    this.#open.push({ ...chunk, id });
    return true;
  }

  /** What was read and has not come to its watermark came to nothing; others are read first. */
  abandon(relation: RelationId): void {
    this.#open = [];
    const table = this.#tables.get(relation);
    if (table === undefined) return;
    this.#tables.delete(relation);
    this.#tables.set(relation, table);
  }

  /** The watermark has come: the table, and the rows that stand at its place in the stream. */
  take(id: string, previous: Checkpoint, nowMs: number): TakenChunk | null {
    const [chunk, ...rest] = this.#open;
    if (chunk === undefined || chunk.id !== id) return null;
    this.#open = rest;
    const { shape } = chunk;
    const table = this.#tables.get(shape.id);
    if (table === undefined) return null;
    const isChanged = ({ identity }: ReadRow): boolean => {
      return this.#changed.has(textOf({ relationId: shape.id, identity }));
    };
    const rows = chunk.rows.filter((row) => !isChanged(row)).map((row) => rowOf(shape, row, null));
    table.after = chunk.rows[chunk.rows.length - 1]?.identity ?? table.after;
    table.rows += chunk.rows.length;
    table.estimate = chunk.estimate;
    table.since ??= nowMs;
    if (chunk.isLast) table.readTo = previous;
    this.#forgetSeen(chunk.snapshot);
    return { shape, rows };
  }

  /** Whatever reads from now on sees them too. */
  #forgetSeen(snapshot: Snapshot): void {
    const seen = new Map<number, boolean>();
    for (const [text, { relationId, xid }] of this.#changed) {
      let isSeen = seen.get(xid);
      if (isSeen === undefined) {
        isSeen = sees(snapshot, xid);
        seen.set(xid, isSeen);
      }
      if (isSeen || this.#tables.get(relationId)?.readTo !== null) this.#changed.delete(text);
    }
  }
}
