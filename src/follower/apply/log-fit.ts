/**
 * Whether a log is the one that a follower has read so far. Flows in: how far its partitions reach,
 * and where epochs continue; flows out: nothing, or the reason to stop. Pure.
 */
import type { EpochBegin } from '../../change/change.ts';
import { type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { Watermarks } from '../../topic/log.ts';

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

/** An epoch begins where the follower stands. */
export function requireBase(begin: EpochBegin, at: EpochLsn): void {
  const base = begin.base === null ? 'nothing' : formatEpochLsn(begin.base);
  if (base === formatEpochLsn(at)) return;
  throw new UnderstudyError(
    'FORKED',
    `epoch ${begin.epoch} continues ${base}, but this node stands at ${formatEpochLsn(at)}`,
    'This node applied what the new leader never had: destroy the cluster and init it again.',
  );
}
