/**
 * When a new node is exact, and when it has to restart. How the log ended when the bootstrap
 * reached its checkpoint, how long it took and which brokers served it come in; the horizon and the
 * decisions come out. Pure: no I/O.
 *
 * A bootstrap reads up to a checkpoint while the broker may clean before and after it. A record
 * that was removed unread was below a newer record of its key, and that one is below the end of the
 * log as it was on arrival: from the first checkpoint that covers this end on, no row is missing,
 * if the records after the first checkpoint are counted. Two things would break it. A tombstone
 * expires: a row that was read and whose tombstone was not, would stay for ever; so the bootstrap
 * has to take less time than tombstones are kept. And replicas clean independently: a record that
 * one has served may not be in another, which never had to keep its tombstone.
 */
import type { LogEnd } from '../../topic/partition-tails.ts';

/** Clocks and the moment of cleaning are not exact: a tenth of the time is not used. */
const usableShare = 0.9;

interface ReadingTime {
  /** From the first fetch on. */
  readonly readMs: number;
  /** The smallest delete.retention.ms the topic had meanwhile. */
  readonly deleteRetentionMs: number;
}

/** Whether a tombstone may have expired between the row it deletes and its own turn. */
export function isTooSlow({ readMs, deleteRetentionMs }: ReadingTime): boolean {
  // rule: read-within-tombstone-retention
  return readMs >= deleteRetentionMs * usableShare;
}

/** Partitions that another broker serves than the one whose log was read before. */
export function movedPartitions(
  before: readonly (number | null)[],
  now: readonly (number | null)[],
): number[] {
  return now.flatMap((broker, partition) => {
    const known = before[partition] ?? null;
    // rule: one-replica-is-read
    return known !== null && broker !== null && known !== broker ? [partition] : [];
  });
}

/** How the log ended when the bootstrap reached its checkpoint. */
interface ArrivalEnd extends Pick<LogEnd, 'checkpoint' | 'pastCheckpoint'> {
  /** Per partition, the last stable offset. */
  readonly lastStable: readonly bigint[];
  /** How old the last checkpoint is at most. */
  readonly checkpointAgeMs: number;
}

/**
 * Per partition, the offset that a checkpoint has to reach. Not the last checkpoint: half a batch
 * may follow it, and the records that it replaces may be removed as well. Half a batch whose
 * tombstones have expired cannot be seen any more: after a checkpoint that is old enough for that,
 * everything that ever was there counts, even an aborted transaction, and a leader has to publish
 * past it.
 */
export function horizonOf(end: ArrivalEnd, deleteRetentionMs: number): readonly bigint[] {
  const horizon = [...(end.checkpoint?.nextOffsets ?? end.lastStable)];
  for (const { partition, offset } of end.pastCheckpoint) {
    // rule: horizon-past-torn-batch
    if (offset >= (horizon[partition] ?? 0n)) horizon[partition] = offset + 1n;
  }
  // rule: horizon-past-expired-tombstones
  if (end.checkpointAgeMs < deleteRetentionMs * usableShare) return horizon;
  return horizon.map((offset, partition) => {
    const stable = end.lastStable[partition] ?? offset;
    // The marker of the checkpoint's own transaction follows it.
    return stable > offset + 1n ? stable : offset;
  });
}
