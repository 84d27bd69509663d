/**
 * The types of the path, before any encoding: what a leader publishes and a follower applies. Row
 * values are Postgres text under fixed session settings (docs/types.md), null is SQL NULL; nothing
 * on the path holds a value in another form, so nothing can round or normalise it.
 */
import type { Lsn } from './lsn.ts';
import { compareEpochLsn, type EpochLsn } from './position.ts';

/** Given when a table enters the stream; kept over renames, never reused: `public.orders`, `#2`. */
export type RelationId = string;
/** Given when a column enters its relation; kept over renames, never reused: `price`, `price#2`. */
export type ColumnId = string;

export type PgText = string | null;

/** c insert, u update, d delete, r read (backfill or reselect). */
export type RowOp = 'c' | 'u' | 'd' | 'r';

export interface ColumnShape {
  readonly id: ColumnId;
  readonly name: string;
  /** As format_type prints it under an empty search_path, with its modifier: `numeric(10,2)`. */
  readonly type: string;
  readonly nullable: boolean;
  /** The value of rows older than the column, as text; null when there is none. */
  readonly missing: PgText;
}

/** A table as the stream knows it. Columns are in the order of the table's attnums. */
export interface RelationShape {
  readonly id: RelationId;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly ColumnShape[];
  /**
   * Column ids of the replica identity, in the order of its index. Empty for a table without one,
   * whose rows can only be added: the position of a row is its key.
   */
  readonly identity: readonly ColumnId[];
  readonly dropped: boolean;
}

export interface RowChange {
  readonly kind: 'row';
  readonly op: RowOp;
  readonly relation: RelationShape;
  /** Text of the identity columns, in the order of `relation.identity`; else the position. */
  readonly identity: readonly string[];
  /** One value per column of `relation`, or null when the row is deleted. */
  readonly values: readonly PgText[] | null;
  /** Columns whose value Postgres did not send, because it is unchanged: null in `values`. */
  readonly unchanged: readonly ColumnId[];
  /** The old identity, on the new row of a key change. */
  readonly was: readonly string[] | null;
}

/** Which row: its relation, and the text of its identity columns. */
export interface RowKey {
  readonly relationId: RelationId;
  readonly identity: readonly string[];
}

interface TruncateChange {
  readonly kind: 'truncate';
  readonly relation: RelationShape;
}

/**
 * A resnapshot of the table begins: all its rows follow. A row that has not followed once points no
 * longer name the table as unfinished was deleted.
 */
interface RereadChange {
  readonly kind: 'reread';
  readonly relation: RelationShape;
}

interface RelationChange {
  readonly kind: 'relation';
  readonly relation: RelationShape;
}

/** The parts of a source transaction, in order; each takes one ordinal. */
export type Change = RowChange | TruncateChange | RereadChange | RelationChange;

/** A table that is backfilling, and how far it is. */
export interface UnfinishedTable {
  readonly relation: RelationId;
  /** The last key that was read, in the order of the identity's index; null before the first. */
  readonly after: readonly string[] | null;
  /** How many rows were read. */
  readonly rows: number;
  /** The estimate of Postgres of all rows; null when it has none. */
  readonly estimate: number | null;
  /** When the backfill began, milliseconds since 1970; null before. */
  readonly since: number | null;
}

/** A table whose backfill has not begun. */
export function unreadTable(relation: RelationId): UnfinishedTable {
  return { relation, after: null, rows: 0, estimate: null, since: null };
}

/** How far a sequence of the leader was when its agent read it. */
export interface SequencePosition {
  readonly schema: string;
  readonly name: string;
  readonly lastValue: bigint;
  /** False: nextval gives `lastValue` itself. */
  readonly isCalled: boolean;
}

/** The end of a batch, in every partition: all transactions below `upto` are in the log, whole. */
export interface Point {
  readonly streamId: string;
  readonly label: string | null;
  readonly epoch: number;
  /** Commit LSN of the last transaction covered, for display; 0/0 before the first. */
  readonly commit: Lsn;
  readonly upto: Lsn;
  readonly commitTimeMicros: bigint;
  /** Per partition: committed records of this epoch since the previous point, points excluded. */
  readonly counts: readonly number[];
  readonly previous: Checkpoint;
  /** The tables that are backfilling. */
  readonly unfinished: readonly UnfinishedTable[];
  readonly uncovered: readonly string[];
  /** Rows after this checkpoint may be partial; null when none is. */
  readonly unhealed: Checkpoint | null;
}

/** A point or a whole epoch begin, which every partition holds, and the offsets after it. */
export interface Checkpoint {
  readonly at: EpochLsn;
  /** Per partition, the offset after the record of the checkpoint. */
  readonly nextOffsets: readonly bigint[];
}

/** Of checkpoints of one log; null is none. */
export function oldestCheckpoint(checkpoints: readonly (Checkpoint | null)[]): Checkpoint | null {
  return checkpoints.reduce((a, b) => {
    if (a === null || b === null) return a ?? b;
    return compareEpochLsn(a.at, b.at) <= 0 ? a : b;
  }, null);
}

export interface EpochBegin {
  readonly streamId: string;
  readonly epoch: number;
  readonly leader: string;
  readonly systemId: string;
  readonly timeline: number;
  /** The checkpoint this epoch continues; null for the first. */
  readonly base: EpochLsn | null;
  readonly startLsn: Lsn;
  readonly slot: string;
  readonly keySchemaId: number;
  /** As in a point. */
  readonly unfinished: readonly UnfinishedTable[];
}
