/**
 * Where a new node begins that is to stand at a chosen place. Flows in: the records of one
 * partition in their order, and from when on the broker has kept everything; flows out: the newest
 * checkpoint at or below the place at which every row stands whole in the topic, and the earliest
 * such checkpoint that can still be begun with. Pure: no I/O.
 *
 * A broker takes a record away only for a newer one of its key that is at least as old as
 * min.compaction.lag.ms itself. So as long as all records behind a checkpoint are younger than
 * that, whatever is missing below the checkpoint was replaced below the checkpoint: what is left is
 * the rows as they were there. This has to hold until the reading has arrived at the checkpoint.
 * Rows that lack values there, or wait for being published anew, are whole at a later checkpoint
 * only.
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

  /** `keptFromMs`: what is younger has replaced nothing that is gone. */
  constructor(until: EpochLsn, keptFromMs: number) {
    this.#until = until;
    this.#keptFromMs = keptFromMs;
  }

  take(record: StreamRecord): void {
    if (record.kind !== 'point') return;
    const last = this.#last;
    const { point, timestampMs } = record;
    // A point is written once the one it continues is in every partition.
    if (last !== null && compareEpochLsn(point.previous.at, atOf(last.point)) === 0) {
      this.#found({ ...last, checkpoint: point.previous });
    }
    this.#last = isWholePoint(point) ? { point, appendMs: timestampMs } : null;
  }

  #found(start: StartCheckpoint): void {
    if (compareEpochLsn(start.checkpoint.at, this.#until) <= 0) this.#start = start;
    if (isKept(start.appendMs, this.#keptFromMs)) this.#earliest ??= start.checkpoint.at;
  }

  /** Null where nothing at or below the place can be begun with any more. */
  get start(): StartCheckpoint | null {
    const start = this.#start;
    return start !== null && isKept(start.appendMs, this.#keptFromMs) ? start : null;
  }

  get earliest(): EpochLsn | null {
    return this.#earliest;
  }
}

/** Whether all that was appended behind a record of this time has replaced nothing yet. */
export function isKept(appendMs: number, keptFromMs: number): boolean {
  return appendMs >= keptFromMs;
}

function atOf({ epoch, upto }: Point): EpochLsn {
  return { epoch, lsn: upto };
}
