/**
 * How far a follower may go. Flows in: what was asked (hold still, or go exactly to an LSN) and the
 * batches that wait; flows out: which of them to apply and where to stop. Pure.
 *
 * An exact stop may fall inside of a batch: its transactions below the limit are applied, the
 * position moves to the limit, and the offsets stay those of the last common point.
 */
import type { RelationId, UnfinishedTable } from '../../change/change.ts';
import type { EpochLsn } from '../../change/position.ts';
import { compareEpochLsn } from '../../change/position.ts';
import { isExactAt, isWholePoint } from '../bootstrap/horizon.ts';
import type { FollowerPosition } from '../state/follower-state.ts';
import type { Aligned, AlignedBatch, AlignedEpoch, AlignedLarge } from './aligner.ts';

export type ApplyLimit =
  | { readonly kind: 'none' }
  | { readonly kind: 'hold' }
  | { readonly kind: 'to'; readonly at: EpochLsn };

export interface ApplyPortion {
  readonly batches: readonly AlignedBatch[];
  /** A batch that is too large to hold goes alone: `batches` is empty then. */
  readonly large: AlignedLarge | null;
  /** Where the position stands afterwards; null: at the last batch's point. */
  readonly stopAt: EpochLsn | null;
}

/** The batches of a portion that are applied to their end. */
export function wholeBatches({
  batches,
  large,
  stopAt,
}: ApplyPortion): readonly (AlignedBatch | AlignedLarge)[] {
  const all = large === null ? batches : [large];
  return stopAt === null ? all : all.slice(0, -1);
}

/** Where a follower stands once the portion is applied. */
export function positionAfter(from: FollowerPosition, portion: ApplyPortion): FollowerPosition {
  const whole = wholeBatches(portion);
  const last = whole[whole.length - 1];
  const { checkpoint, appendMs, commitTimeMicros, unfinished } =
    last === undefined ? from : reached(last);
  const at = portion.stopAt ?? checkpoint.at;
  const place = { streamId: from.streamId, at, commitTimeMicros, checkpoint, appendMs };
  // A batch that is applied in part may have begun with tables that only its point names.
  const here = portion.stopAt === null ? unfinished : [...unfinishedDuring(from, portion)];
  return { ...place, unfinished: here };
}

function reached({ checkpoint, appendMs, point }: AlignedBatch | AlignedLarge) {
  const { commitTimeMicros } = point;
  return { checkpoint, appendMs, commitTimeMicros, unfinished: relationsOf(point.unfinished) };
}

export function relationsOf(unfinished: readonly UnfinishedTable[]): readonly RelationId[] {
  return unfinished.map(({ relation }) => relation);
}

/**
 * Tables of which a row may lack what a partial change of it leaves out: it was not read before the
 * portion, and may not be read in it. What completes it is streamed later.
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

/** Bounds one apply transaction: what is coalesced is held in memory. */
export const portionRecordsMax = 20_000;

/** Whether an epoch begin is within the limit: one in a later epoch is reached only through it. */
export function mayBegin(epoch: AlignedEpoch, limit: ApplyLimit): boolean {
  if (limit.kind !== 'to') return limit.kind === 'none';
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
    // Wholly past the limit only when it begins there: the stop is then taken by what is before.
    const stopAt = to !== null && compareEpochLsn(aligned.checkpoint.at, to) > 0 ? to : null;
    if (aligned.kind === 'large') {
      if (batches.length === 0) return { batches, large: aligned, stopAt };
      break;
    }
    // Alone: what is whole at the point before is said to be so, and stays it at the stop.
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
