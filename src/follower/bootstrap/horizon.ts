/**
 * When a new node is exact, and when it has to begin again. Flows in: how the log stood when the
 * reading arrived, how long it took, who served it; flows out: the horizon, and the decisions.
 * Pure: no I/O.
 *
 * Reading goes up to a checkpoint while the broker may clean behind and before it. What was taken
 * away unread stood below a newer record of its key, and that one stands below the end of the log
 * as it was on arrival: from the first checkpoint that covers this end on, nothing is missing, if
 * what follows the checkpoint of arrival is counted. Two things would break it. A tombstone
 * expires: a row that was read and whose tombstone was not, would stay for ever; so the reading has
 * to take less time than tombstones are kept. And replicas clean on their own: what one has served
 * already, another may never have had to delete.
 */
import type { LogEnd } from '../../topic/partition-tails.ts';

/** Clocks and the moment of cleaning are not exact: a tenth of the time is left alone. */
const usableShare = 0.9;

interface ReadingSoFar {
  /** From the first fetch on. */
  readonly readMs: number;
  /** The smallest delete.retention.ms the topic had meanwhile. */
  readonly deleteRetentionMs: number;
}

/** Whether a tombstone may have expired between the row it deletes and its own turn. */
export function isTooSlow({ readMs, deleteRetentionMs }: ReadingSoFar): boolean {
  return readMs >= deleteRetentionMs * usableShare;
}

/** Partitions that another broker serves than the one whose log was read before. */
export function movedPartitions(
  before: readonly (number | null)[],
  now: readonly (number | null)[],
): number[] {
  return now.flatMap((broker, partition) => {
    const known = before[partition] ?? null;
    return known !== null && broker !== null && known !== broker ? [partition] : [];
  });
}

/** How the log ended when the reading had arrived at its checkpoint. */
interface ArrivalEnd extends Pick<LogEnd, 'checkpoint' | 'pastCheckpoint'> {
  /** Per partition, the last stable offset. */
  readonly lastStable: readonly bigint[];
  /** How old the last checkpoint is at most. */
  readonly checkpointAgeMs: number;
}

/**
 * Per partition, the offset that a checkpoint has to reach. Not the last checkpoint: behind it half
 * a batch may stand, and what that replaces is gone as well. Nobody sees half a batch any more
 * whose tombstones have expired: behind a checkpoint that is old enough for that, whatever once
 * stood there counts, be it an aborted transaction, and somebody has to lead on.
 */
export function horizonOf(end: ArrivalEnd, deleteRetentionMs: number): readonly bigint[] {
  const horizon = [...(end.checkpoint?.nextOffsets ?? end.lastStable)];
  for (const { partition, offset } of end.pastCheckpoint) {
    if (offset >= (horizon[partition] ?? 0n)) horizon[partition] = offset + 1n;
  }
  if (end.checkpointAgeMs < deleteRetentionMs * usableShare) return horizon;
  return horizon.map((offset, partition) => {
    const stable = end.lastStable[partition] ?? offset;
    // The marker of the checkpoint's own transaction follows it.
    return stable > offset + 1n ? stable : offset;
  });
}
