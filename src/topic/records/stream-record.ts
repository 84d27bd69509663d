/**
 * The records of the changes topic, decoded as far as the aligner needs: a row keeps its value as
 * bytes, because only the last change of a key in a batch is ever decoded into columns.
 */
import type { EpochBegin, Point, RelationId, RelationShape, RowOp } from '../../change/change.ts';
import type { Position } from '../../change/position.ts';

interface Placed {
  readonly partition: number;
  readonly offset: bigint;
  /** LogAppendTime, milliseconds since 1970. */
  readonly timestampMs: number;
  readonly position: Position;
  readonly commitTimeMicros: bigint;
}

export interface RowRecord extends Placed {
  readonly kind: 'row';
  readonly op: RowOp;
  readonly relationId: RelationId;
  readonly identity: readonly string[];
  readonly key: Buffer;
  /** Framed Avro; null when the row is deleted. */
  readonly value: Buffer | null;
  readonly was: readonly string[] | null;
  /** On a partial row, the ids of the columns that keep their values; null on a whole row. */
  readonly unchanged: readonly string[] | null;
}

export interface PointRecord extends Placed {
  readonly kind: 'point';
  readonly point: Point;
}

export interface EpochRecord extends Placed {
  readonly kind: 'epoch';
  readonly begin: EpochBegin;
}

export interface RelationRecord extends Placed {
  readonly kind: 'relation';
  readonly relation: RelationShape;
}

export interface TruncateRecord extends Placed {
  readonly kind: 'truncate';
  readonly relationId: RelationId;
}

/** A resnapshot of the relation begins: all its rows follow above this position. */
export interface RereadRecord extends Placed {
  readonly kind: 'reread';
  readonly relationId: RelationId;
}

export type StreamRecord =
  | RowRecord
  | PointRecord
  | EpochRecord
  | RelationRecord
  | TruncateRecord
  | RereadRecord;
