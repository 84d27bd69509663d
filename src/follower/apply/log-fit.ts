/**
 * Whether a log is the one that a follower has read so far, and still holds what it reads next. The
 * watermarks of the partitions, the bases of epochs and gaps come in; nothing comes out, or the
 * error to stop with. Pure.
 *
 * A gap is damage of the topic, or the node is too late for it. Damage concerns every node; a node
 * that was away longer than the topic keeps each change is stale, and is the only one.
 */
import type { EpochBegin } from '../../change/change.ts';
import { type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { Watermarks } from '../../topic/log.ts';
import type { GapError } from './aligner.ts';

/** Every partition holds what is read next. */
export function requireOffsets(
  watermarks: readonly Watermarks[],
  offsets: readonly bigint[],
): void {
  if (watermarks.length !== offsets.length) {
    throw new UnderstudyError(
      'TOPIC_MISMATCH',
      `the topic has ${watermarks.length} partitions, the stream ${offsets.length}`,
      'The number of partitions is fixed at init: destroy the cluster and init it again.',
    );
  }
  for (const { partition, lowWatermark, lastStableOffset } of watermarks) {
    const next = offsets[partition] ?? 0n;
    if (next >= lowWatermark && next <= lastStableOffset) continue;
    throw new UnderstudyError(
      'TOPIC_MISMATCH',
      `partition ${partition} holds the offsets ${lowWatermark} to ${lastStableOffset}, this ` +
        `node needs ${next}`,
      'The topic was truncated or made again: destroy the cluster and init it again.',
    );
  }
}

/** An epoch begins at the follower's position. */
export function requireBase(begin: EpochBegin, at: EpochLsn): void {
  const base = begin.base === null ? 'nothing' : formatEpochLsn(begin.base);
  if (base === formatEpochLsn(at)) return;
  throw new UnderstudyError(
    'FORKED',
    `epoch ${begin.epoch} continues ${base}, but this node stands at ${formatEpochLsn(at)}`,
    'This node applied what the new leader never had: destroy the cluster and init it again.',
  );
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
  const isStale = smallestCompactionLagMs !== null && awayMs >= keptForMs(smallestCompactionLagMs);
  if (!isStale) return gap;
  return new UnderstudyError(
    'STALE',
    `this node was away for ${Math.round(awayMs / 1_000)} s and the topic keeps each change for ` +
      `${Math.round((smallestCompactionLagMs ?? 0) / 1_000)} s: what lies between was compacted`,
    'Build it anew from the log: understudy rebuild <node>. With rebuild: swap or in-place in ' +
      'understudy.yaml its agent does so by itself.',
    gap,
  );
}
