/**
 * What a follower applies next. The aligned batches that are not applied yet come in, with a delay
 * and a limit; the batches of the next transaction come out, with the position that it leads to,
 * or how long to wait. What they cost to hold, by which reading pauses, is computed here too. Pure.
 *
 * A delay judges a batch by the newest commit time of its records: the records of two commits may
 * be in the log in the other order, and a leader's clock may have been set. So rows become older
 * than asked for by the length of a batch, never younger. What has no row (points of a quiet
 * leader, epoch begins) is judged by its LogAppendTime, so that an LSN taken on the leader is not
 * passed before its time; it delays no later batch, because it is empty.
 *
 * An exact stop may fall inside a batch: its transactions below the limit are applied, the position
 * moves to the limit, and the offsets stay those of the last common point.
 */
import type { RelationId, UnfinishedTable } from '../../change/change.ts';
import { compareEpochLsn, type EpochLsn } from '../../change/position.ts';
import { isExactAt, isWholePoint } from '../state/exactness.ts';
import type { FollowerPosition } from '../state/follower-state.ts';
import type { Aligned, AlignedBatch, AlignedEpoch, AlignedLarge } from './stages.ts';

interface Due {
  /** How many of the waiting batches may be applied, from the first on. */
  readonly count: number;
  /** How long until one more may be; null when only a new batch can change that. */
  readonly inMs: number | null;
}

/** Clocks are set, and a leader's may be far ahead: the delay is checked at least this often. */
const delayCheckMs = 60_000;

export function dueOf(waiting: readonly Aligned[], delayMs: number, nowMs: number): Due {
  if (delayMs === 0) return { count: waiting.length, inMs: null };
  let count = 0;
  let nextMs: number | null = null;
  for (const [at, aligned] of waiting.entries()) {
    const commitMs = newestCommitMs(aligned);
    const dueMs = (commitMs ?? Math.max(...aligned.appendMs)) + delayMs;
    if (dueMs <= nowMs) {
      // What is before it and not due itself has no row.
      count = at + 1;
      nextMs = null;
      continue;
    }
    nextMs = Math.min(nextMs ?? dueMs, dueMs);
    // rule: delay-keeps-order
    if (commitMs !== null) break;
  }
  return { count, inMs: nextMs === null ? null : Math.min(nextMs - nowMs, delayCheckMs) };
}

/** Rounded up: a row that is younger by a microsecond is younger. */
function newestCommitMs(aligned: Aligned): number | null {
  if (aligned.kind === 'epoch' || aligned.newestCommitMicros === null) return null;
  return Number((aligned.newestCommitMicros + 999n) / 1000n);
}

export type ApplyLimit =
  | { readonly kind: 'none' }
  | { readonly kind: 'hold' }
  | { readonly kind: 'to'; readonly at: EpochLsn };

/** What one transaction applies. */
export interface ApplyPortion {
  readonly batches: readonly AlignedBatch[];
  /** A batch that is too large to hold is applied alone: `batches` is empty then. */
  readonly large: AlignedLarge | null;
  /** The position afterwards; null: the last batch's point. */
  readonly stopAt: EpochLsn | null;
}

/** Bounds one apply transaction: what is folded is held in memory. */
export const portionRecordsMax = 20_000;

/** Whether an epoch begin is within the limit: a limit in a later epoch is reached through it. */
export function mayBegin(epoch: AlignedEpoch, limit: ApplyLimit): boolean {
  if (limit.kind !== 'to') return limit.kind === 'none';
  // rule: epoch-begin-within-limit
  return compareEpochLsn(epoch.checkpoint.at, limit.at) <= 0;
}

/** The next batches to apply in one transaction, or null when the limit is reached. */
export function nextPortion(
  waiting: readonly Aligned[],
  position: EpochLsn,
  limit: ApplyLimit,
): ApplyPortion | null {
  if (limit.kind === 'hold') return null;
  const to = limit.kind === 'to' ? limit.at : null;
  if (to !== null && compareEpochLsn(position, to) >= 0) return null;
  const batches: AlignedBatch[] = [];
  let records = 0;
  for (const aligned of waiting) {
    if (aligned.kind === 'epoch') break;
    // Wholly past the limit only when it begins there: then the batch before takes the stop.
    const stopAt = to !== null && compareEpochLsn(aligned.checkpoint.at, to) > 0 ? to : null;
    if (aligned.kind === 'large') {
      if (batches.length === 0) return { batches, large: aligned, stopAt };
      break;
    }
    // Alone: tables that are complete at the point before are so at the stop, and only they.
    if (stopAt !== null) {
      if (batches.length === 0) return { batches: [aligned], large: null, stopAt };
      break;
    }
    records += aligned.partitions.reduce((sum, partition) => sum + partition.length, 0);
    if (batches.length > 0 && records > portionRecordsMax) break;
    batches.push(aligned);
  }
  return batches.length === 0 ? null : { batches, large: null, stopAt: null };
}

/** The batches of a portion that are applied to their end. */
export function wholeBatches({
  batches,
  large,
  stopAt,
}: ApplyPortion): readonly (AlignedBatch | AlignedLarge)[] {
  const all = large === null ? batches : [large];
  // rule: exact-stop-keeps-offsets
  return stopAt === null ? all : all.slice(0, -1);
}

/** The position once the portion is applied. */
export function positionAfter(from: FollowerPosition, portion: ApplyPortion): FollowerPosition {
  const whole = wholeBatches(portion);
  const last = whole[whole.length - 1];
  const { checkpoint, appendMs, commitTimeMicros, unfinished } =
    last === undefined ? from : reached(last);
  const at = portion.stopAt ?? checkpoint.at;
  const moved = { streamId: from.streamId, at, commitTimeMicros, checkpoint, appendMs };
  // A batch that is applied in part may have begun backfills that only its point names.
  const here = portion.stopAt === null ? unfinished : [...unfinishedDuring(from, portion)];
  return { ...moved, unfinished: here };
}

function reached({ checkpoint, appendMs, point }: AlignedBatch | AlignedLarge) {
  const { commitTimeMicros } = point;
  return { checkpoint, appendMs, commitTimeMicros, unfinished: relationsOf(point.unfinished) };
}

export function relationsOf(unfinished: readonly UnfinishedTable[]): readonly RelationId[] {
  return unfinished.map(({ relation }) => relation);
}

/**
 * Tables of which a partial row may have no base here: they were backfilling before the portion, or
 * are at a point in it. The row that completes it is streamed later.
 */
export function unfinishedDuring(
  from: FollowerPosition,
  { batches, large }: ApplyPortion,
): ReadonlySet<RelationId> {
  const points = [...batches, ...(large === null ? [] : [large])].map(({ point }) => point);
  return new Set([
    ...from.unfinished,
    ...points.flatMap(({ unfinished }) => relationsOf(unfinished)),
  ]);
}

/** Whether a node that is being built has all rows of the leader once the portion is applied. */
export function reachesHorizon(portion: ApplyPortion, horizon: readonly bigint[] | null): boolean {
  const last = wholeBatches(portion).at(-1);
  if (horizon === null || last === undefined || portion.stopAt !== null) return false;
  return isExactAt(horizon, last.checkpoint, isWholePoint(last.point));
}

/** What may wait for the applier before reading pauses. */
export const waitingBytesMax = 64 * 1024 * 1024;
/** What a point costs without any record: of a quiet leader thousands wait out a delay. */
const pointBytes = 2_000;
const unfinishedTableBytes = 300;

export function bytesWaiting(waiting: readonly Aligned[]): number {
  return waiting.reduce((sum, one) => sum + costOf(one), 0);
}

function costOf(aligned: Aligned): number {
  const { unfinished } = aligned.kind === 'epoch' ? aligned.begin : aligned.point;
  const rows = aligned.kind === 'batch' ? aligned.bytes : 0;
  return pointBytes + unfinished.length * unfinishedTableBytes + rows;
}
