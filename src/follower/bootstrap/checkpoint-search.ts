/**
 * Finds the checkpoint that a node begins with which is to stop at a chosen LSN. Flows in: the
 * records of one partition in their order, and since when the broker has kept everything; flows
 * out: the newest checkpoint at or below the LSN at which the topic has every row in full, and the
 * earliest such checkpoint that can still be used. Pure: no I/O.
 *
 * A broker removes a record only for a newer one of its key that is at least as old as
 * min.compaction.lag.ms itself. So as long as all records past a checkpoint are younger than that,
 * a record that is missing below the checkpoint was replaced below the checkpoint: the others are
 * the rows as they were there. This has to hold until the bootstrap has read up to the checkpoint.
 * Rows that are partial there, or were voided and not yet published again, are whole at a later
 * checkpoint only.
 */
import type { Checkpoint, Point } from '../../change/change.ts';
import { compareEpochLsn, type EpochLsn } from '../../change/position.ts';
import type { StreamRecord } from '../../topic/records/stream-record.ts';
import { isWholePoint } from '../state/exactness.ts';

export interface StartCheckpoint {
  readonly checkpoint: Checkpoint;
  /** The LogAppendTime of its record, milliseconds. */
  readonly appendMs: number;
  readonly point: Point;
}

export class CheckpointSearch {
  readonly #until: EpochLsn;
  readonly #keptFromMs: number;
  #last: Omit<StartCheckpoint, 'checkpoint'> | null = null;
  #start: StartCheckpoint | null = null;
  #earliest: EpochLsn | null = null;

  /** `keptFromMs`: no record was removed for a younger one. */
  constructor(until: EpochLsn, keptFromMs: number) {
    this.#until = until;
    this.#keptFromMs = keptFromMs;
  }

  take(record: StreamRecord): void {
    if (record.kind !== 'point') return;
    const last = this.#last;
    const { point, timestampMs } = record;
    // A point is written only once the one that it continues is in every partition.
    if (last !== null && compareEpochLsn(point.previous.at, atOf(last.point)) === 0) {
      this.#found({ ...last, checkpoint: point.previous });
    }
    // rule: place-at-whole-point
    this.#last = isWholePoint(point) ? { point, appendMs: timestampMs } : null;
  }

  /** The end of the log: no later point continues it. */
  endsAt(checkpoint: Checkpoint): void {
    const last = this.#last;
    if (last === null || compareEpochLsn(checkpoint.at, atOf(last.point)) !== 0) return;
    this.#found({ ...last, checkpoint });
  }

  #found(start: StartCheckpoint): void {
    if (compareEpochLsn(start.checkpoint.at, this.#until) <= 0) this.#start = start;
    if (isKept(start.appendMs, this.#keptFromMs)) this.#earliest ??= start.checkpoint.at;
  }

  /** Null where no checkpoint at or below the LSN can be used any more. */
  get start(): StartCheckpoint | null {
    const start = this.#start;
    return start !== null && isKept(start.appendMs, this.#keptFromMs) ? start : null;
  }

  get earliest(): EpochLsn | null {
    return this.#earliest;
  }
}

/** Whether no record was removed for one that was appended after this time. */
export function isKept(appendMs: number, keptFromMs: number): boolean {
  // rule: place-while-all-is-kept
  return appendMs >= keptFromMs;
}

function atOf({ epoch, upto }: Point): EpochLsn {
  return { epoch, lsn: upto };
}
