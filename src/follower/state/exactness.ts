/**
 * When the rows of a node that is built from the log are the leader's. A point, which names
 * partial rows and unfinished tables, and the horizon of bootstrap/horizon.ts come in; a decision
 * comes out.
 * Pure. The bootstrap asks on arrival at its checkpoint, the follower at each point after it.
 */
import type { Checkpoint, Point } from '../../change/change.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';

/** Whether the rows of a point are the leader's: it is whole, and covers the horizon. */
export function isExactAt(
  horizon: readonly bigint[],
  { nextOffsets }: Pick<Checkpoint, 'nextOffsets'>,
  isWhole: boolean,
): boolean {
  // rule: exact-at-horizon
  return isWhole && horizon.every((offset, partition) => (nextOffsets[partition] ?? 0n) >= offset);
}

/**
 * Whether the topic has every row below the end of the log in full. An epoch begin does not say so
 * of its base and never counts, but that of the first epoch does: nothing is below it.
 */
export function isWholeAt({ point, begin }: Pick<LogEnd, 'point' | 'begin'>): boolean {
  if (point !== null) return isWholePoint(point);
  // rule: only-first-begin-is-whole
  return begin !== null && begin.base === null && begin.unfinished.length === 0;
}

/** Whether no row below the point is partial and no table is backfilling. */
export function isWholePoint({
  unhealed,
  unfinished,
}: Pick<Point, 'unhealed' | 'unfinished'>): boolean {
  // rule: whole-without-partial-rows
  return unhealed === null && unfinished.length === 0;
}
