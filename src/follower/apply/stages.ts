/**
 * The stages of a row's way through a follower, and what flows between them:
 *
 *     reader of each partition -> align -> fold -> apply
 *
 * Records flow one way, in the order of positions, and the unit that leaves the last stage is one
 * Postgres transaction. Only `apply` changes the database, and only `apply` commits the position:
 * in the transaction that writes the rows. So no stage has to learn of a commit or a failure. After
 * an error all of them are thrown away, and new ones start from the position row. Back-pressure is
 * the reader's: follower.ts does not fetch while what is aligned costs more than a bound.
 */
import type {
  Checkpoint,
  EpochBegin,
  Point,
  RelationId,
  RelationShape,
  SequencePosition,
} from '../../change/change.ts';
import type { EpochLsn } from '../../change/position.ts';
import type {
  RelationRecord,
  RereadRecord,
  RowRecord,
  StreamRecord,
  TruncateRecord,
} from '../../topic/records/stream-record.ts';
import type { FollowerPosition } from '../state/follower-state.ts';

/** From the readers to whole batches. */
export interface AlignStage {
  /** Takes records of one partition, which follow those of the last push without a gap. */
  push(partition: number, records: readonly StreamRecord[]): void;
  /**
   * Takes out the next whole batch or epoch begin; null until more records are pushed. Throws
   * where the records are not what the consistency point counts.
   */
  next(): Aligned | null;
  /** Whether the partition has arrived at a point or epoch begin that others have not reached. */
  waits(partition: number): boolean;
}

/** From batches to the final rows of each key between two barriers. */
export type FoldStage = (
  batches: readonly Pick<AlignedBatch, 'partitions'>[],
  window: ApplyWindow,
) => readonly ApplyStep[];

/** From steps to a committed transaction. */
export interface ApplyStage {
  /**
   * Applies all steps and moves the position, or changes nothing; resolves with the number of
   * rows after the commit.
   */
  apply(steps: ApplySteps, move: ApplyMove): Promise<number>;
}

export type ContentRecord = RowRecord | RelationRecord | TruncateRecord | RereadRecord;

/** Whole source transactions up to a consistency point that every partition has. */
export interface AlignedBatch {
  readonly kind: 'batch';
  readonly point: Point;
  /** Per partition, in offset order. */
  readonly partitions: readonly (readonly ContentRecord[])[];
  /** What holding it costs, roughly. */
  readonly bytes: number;
  readonly checkpoint: Checkpoint;
  /** Per partition, the LogAppendTime of the point, milliseconds. */
  readonly appendMs: readonly number[];
  /** The newest commit time of its records, which is not always the last one's; null: no record. */
  readonly newestCommitMicros: bigint | null;
}

/** A whole batch that was too large to hold: it is read again, from `from` up to its point. */
export interface AlignedLarge extends Omit<AlignedBatch, 'kind' | 'partitions' | 'bytes'> {
  readonly kind: 'large';
  readonly from: Checkpoint;
}

export interface AlignedEpoch {
  readonly kind: 'epoch';
  readonly begin: EpochBegin;
  readonly checkpoint: Checkpoint;
  readonly appendMs: readonly number[];
}

export type Aligned = AlignedBatch | AlignedLarge | AlignedEpoch;

/** Records below `from` were applied before an exact stop; records at or above `to` come later. */
export interface ApplyWindow {
  readonly from: EpochLsn;
  readonly to: EpochLsn | null;
}

export type ApplyStep =
  | { readonly kind: 'rows'; readonly tables: readonly TableRows[] }
  | { readonly kind: 'truncate'; readonly relationIds: readonly RelationId[] }
  | { readonly kind: 'reread'; readonly relationId: RelationId }
  | { readonly kind: 'relation'; readonly relation: RelationShape };

/** The last change of every key of one relation. */
export interface TableRows {
  readonly relationId: RelationId;
  readonly deletes: readonly RowRecord[];
  readonly upserts: readonly WholeRow[];
  readonly partials: readonly PartialRow[];
}

export type WholeRow = RowRecord & { readonly value: Buffer };

export interface PartialRow {
  /** The newest first; the last may be whole, and completes the others then. */
  readonly layers: readonly [WholeRow, ...WholeRow[]];
  /** The key under which the table holds the missing values; null when none is missing. */
  readonly base: readonly string[] | null;
}

/**
 * Whether a partial row of the relation may come without the row that completes it: then it is not
 * applied, and a whole one follows.
 */
export type MayLackBase = (relationId: RelationId) => boolean;

/** What to apply, from the start at each call: of a large batch, that reads it once more. */
export type ApplySteps = () => Iterable<ApplyStep> | AsyncIterable<ApplyStep>;

/** Where a transaction leads, and what it may rely on. */
export interface ApplyMove {
  readonly from: FollowerPosition;
  readonly to: FollowerPosition;
  /** Named points on the way. */
  readonly labelled: readonly Point[];
  /** Positions of sequences that were read on the way, each sequence once. */
  readonly sequences: readonly SequencePosition[];
  readonly mayLackBase: MayLackBase;
  /** Whether a node that is being built is exact from there on. */
  readonly becomesExact?: boolean;
}
