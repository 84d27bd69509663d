/**
 * Whether a log is the one that a follower has read so far, and still holds what it reads next. The
 * watermarks of the partitions, the bases of epochs and gaps come in; nothing comes out, or the
 * error to stop with. Pure.
 *
 * A gap is damage of the topic, or the node is too late for it. Damage concerns every node; a node
 * that was away longer than the topic keeps each change is stale, and is the only one.
 */
import type { EpochBegin } from '../../change/change.ts';
import { compareEpochLsn, type EpochLsn } from '../../change/position.ts';
import { forked, stale } from '../../errors/follower.ts';
import { type GapError, partitionsChanged, topicRecreated } from '../../errors/topic.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import type { Watermarks } from '../../topic/log.ts';

/** Every partition holds what is read next. */
export function requireOffsets(
  watermarks: readonly Watermarks[],
  offsets: readonly bigint[],
): void {
  if (watermarks.length !== offsets.length) {
    const [found, expected] = [watermarks.length, offsets.length];
    throw partitionsChanged({ topic: 'the topic', found, expected });
  }
  for (const { partition, lowWatermark, lastStableOffset } of watermarks) {
    const next = offsets[partition] ?? 0n;
    if (next >= lowWatermark && next <= lastStableOffset) continue;
    const what =
      `partition ${partition} holds the offsets ${lowWatermark} to ${lastStableOffset}, this ` +
      `node needs ${next}`;
    throw topicRecreated(what, { partition, next: String(next) });
  }
}

/** An epoch begins at the follower's position. */
export function requireBase(begin: EpochBegin, at: EpochLsn): void {
  if (begin.base !== null && compareEpochLsn(begin.base, at) === 0) return;
  throw forked(begin.epoch, begin.base, at);
}

/** Brokers' clocks and the moment of cleaning are not exact: a tenth is in doubt, and is damage. */
const certainShare = 0.9;

/** For how long no record is removed for a newer one of its key. */
export function keptForMs(smallestCompactionLagMs: number): number {
  return smallestCompactionLagMs * certainShare;
}

/**
 * `awayMs`: from the LogAppendTime of the last common point this node has applied until now. A
 * record after that point may be removed only once it is as old as the lag, however old the records
 * on the far side of the gap are.
 */
export function judgeGap(
  gap: GapError,
  awayMs: number,
  smallestCompactionLagMs: number | null,
): UnderstudyError {
  if (smallestCompactionLagMs === null) return gap;
  const isStale = awayMs >= keptForMs(smallestCompactionLagMs);
  return isStale ? stale(awayMs, smallestCompactionLagMs, gap) : gap;
}
