/**
 * The one observer of the path: reselect and backfill behind one interface. Both hear of every
 * change, and what both read goes out at its watermark; a point says what both do not have whole.
 */
import type { Checkpoint, RelationId, RowChange } from '../../change/change.ts';
import type { Position } from '../../change/position.ts';
import type { Incomplete, ObservedRead, RowObserver } from '../stream/stages.ts';
import type { BackfillMerge } from './backfill-merge.ts';
import type { Reselect } from './reselect.ts';

export class StreamObserver implements RowObserver {
  readonly #reselect: Reselect;
  readonly #backfill: BackfillMerge;
  readonly #nowMs: () => number;

  constructor(reselect: Reselect, backfill: BackfillMerge, nowMs: () => number) {
    this.#reselect = reselect;
    this.#backfill = backfill;
    this.#nowMs = nowMs;
  }

  row(change: RowChange, xid: number, previous: Checkpoint, position: Position): void {
    this.#reselect.row(change, xid, previous, position);
    this.#backfill.row(change, xid, previous);
  }

  truncated(relation: RelationId): void {
    this.#reselect.truncated(relation);
  }

  resnapshot(relation: RelationId): void {
    this.#reselect.resnapshot(relation);
    this.#backfill.restart(relation);
  }

  takeAt(watermark: string, previous: Checkpoint): ObservedRead {
    const reselected = this.#reselect.take(watermark, this.#nowMs());
    const chunk = this.#backfill.take(watermark, previous, this.#nowMs());
    if (chunk === null) return { relation: null, rows: reselected };
    // A table without rows is announced too: followers publish it once they are promoted.
    return { relation: chunk.shape, rows: [...reselected, ...chunk.rows] };
  }

  /** A table is complete only where none of its rows is partial, so reselect is asked first. */
  takeForPoint(): Incomplete {
    const { unhealed } = this.#reselect;
    return { unhealed, unfinished: this.#backfill.takeForPoint(unhealed) };
  }
}
