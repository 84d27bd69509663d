/**
 * Finds the end of a log. Flows in: the committed tail of every partition; flows out: the newest
 * checkpoint (a point or a whole epoch begin) that every partition holds, and the records committed
 * past it. Pure: the caller reads, and calls again with longer tails where these are too short.
 *
 * Records past the checkpoint are returned even when the last points are equal everywhere: a
 * delayed end of one Kafka transaction can commit half of the next.
 */
import type { Checkpoint, EpochBegin, Point, UnfinishedTable } from '../change/change.ts';
import { oldestCheckpoint } from '../change/change.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../change/position.ts';
import type { StreamRecord } from './records/stream-record.ts';

export interface Tail {
  readonly partition: number;
  /** In offset order, up to the last stable offset. */
  readonly records: readonly StreamRecord[];
  /** Whether the tail begins at the low watermark: there are no older records. */
  readonly reachesStart: boolean;
}

export interface LogEnd {
  readonly checkpoint: Checkpoint | null;
  /** The point at the checkpoint; null when it is an epoch begin, or compaction removed it. */
  readonly point: Point | null;
  /** The epoch begin that the checkpoint is; null when the checkpoint is a point. */
  readonly begin: EpochBegin | null;
  /** Committed records past the checkpoint, epoch begins included. */
  readonly pastCheckpoint: readonly StreamRecord[];
  /** Rows after this checkpoint may be partial up to `checkpoint`; null when none is. */
  readonly unhealed: Checkpoint | null;
  /** Tables that are backfilling. */
  readonly unfinished: readonly UnfinishedTable[];
}

/** A point or an epoch begin in one partition. */
interface CheckpointRecord {
  readonly at: EpochLsn;
  readonly offset: bigint;
  readonly record: StreamRecord;
}

/** For each partition, its checkpoints by their end LSN as text. */
type PartitionCheckpoints = readonly ReadonlyMap<string, CheckpointRecord>[];

function checkpointOf(record: StreamRecord): CheckpointRecord | null {
  if (record.kind === 'point') {
    const at = { epoch: record.point.epoch, lsn: record.point.upto };
    return { at, offset: record.offset, record };
  }
  if (record.kind === 'epoch') {
    const at = { epoch: record.begin.epoch, lsn: record.begin.startLsn };
    return { at, offset: record.offset, record };
  }
  return null;
}

/** Null when the tails are too short to decide: read further back and call again. */
export function findLogEnd(tails: readonly Tail[]): LogEnd | null {
  const checkpoints = tails.map((tail) => {
    const byEnd = new Map<string, CheckpointRecord>();
    for (const record of tail.records) {
      const checkpoint = checkpointOf(record);
      if (checkpoint !== null) byEnd.set(formatEpochLsn(checkpoint.at), checkpoint);
    }
    return byEnd;
  });
  const checkpoint = newer(
    newestCommonCheckpoint(checkpoints),
    newestPreviousCheckpoint(checkpoints),
  );
  const nextOffsets = checkpoint?.nextOffsets ?? tails.map(() => 0n);
  if (!tails.every((tail) => reachesBackTo(tail, nextOffsets, checkpoint))) return null;
  const record = checkpoint === null ? undefined : recordAt(checkpoints, checkpoint);
  const point = record?.kind === 'point' ? record.point : null;
  const begin = record?.kind === 'epoch' ? record.begin : null;
  const bases = basesOf(tails, checkpoints, begin);
  if (bases === 'tails too short') return null;
  return {
    checkpoint,
    point,
    begin,
    pastCheckpoint: recordsPast(tails, nextOffsets),
    unhealed:
      point === null
        ? oldestCheckpoint([...bases, ...unhealedBefore(checkpoints, begin)])
        : point.unhealed,
    unfinished: (point ?? begin)?.unfinished ?? [],
  };
}

/**
 * An epoch begin names neither the partial rows that its base left nor a torn batch that it voids.
 * So the checkpoints that any earlier point names count, and the base itself.
 */
function unhealedBefore(
  checkpoints: PartitionCheckpoints,
  begin: EpochBegin | null,
): (Checkpoint | null)[] {
  if (begin === null) return [];
  return checkpoints.flatMap((found) =>
    [...found.values()].map(({ record }) => {
      return record.kind === 'point' && record.point.epoch < begin.epoch
        ? record.point.unhealed
        : null;
    }),
  );
}

/** The base of an epoch; where that is an epoch without a point, the base of that one too. */
function basesOf(
  tails: readonly Tail[],
  checkpoints: PartitionCheckpoints,
  newest: EpochBegin | null,
): Checkpoint[] | 'tails too short' {
  const bases: Checkpoint[] = [];
  for (let begin = newest; begin !== null && begin.base !== null; ) {
    const base = checkpointAt(tails, checkpoints, begin.base);
    if (base === 'tails too short') return base;
    bases.push(base);
    const record = recordAt(checkpoints, base);
    begin = record?.kind === 'epoch' ? record.begin : null;
  }
  return bases;
}

/** Where compaction removed the checkpoint, the rest of the partition begins after it. */
function checkpointAt(
  tails: readonly Tail[],
  checkpoints: PartitionCheckpoints,
  at: EpochLsn,
): Checkpoint | 'tails too short' {
  const found = checkpoints.map((one) => one.get(formatEpochLsn(at)));
  if (tails.some((tail, i) => found[i] === undefined && !tail.reachesStart))
    return 'tails too short';
  const nextOffsets = tails.map(({ records }, i) => {
    const checkpoint = found[i];
    return checkpoint === undefined ? (records[0]?.offset ?? 0n) : checkpoint.offset + 1n;
  });
  return { at, nextOffsets };
}

function newer(a: Checkpoint | null, b: Checkpoint | null): Checkpoint | null {
  if (a === null || b === null) return a ?? b;
  return compareEpochLsn(a.at, b.at) >= 0 ? a : b;
}

function newestCommonCheckpoint(checkpoints: PartitionCheckpoints): Checkpoint | null {
  const [first, ...rest] = checkpoints;
  let newest: EpochLsn | null = null;
  for (const [key, { at }] of first ?? []) {
    if (!rest.every((found) => found.has(key))) continue;
    if (newest === null || compareEpochLsn(at, newest) > 0) newest = at;
  }
  if (newest === null) return null;
  const key = formatEpochLsn(newest);
  const nextOffsets = checkpoints.map((found) => (found.get(key)?.offset ?? 0n) + 1n);
  return { at: newest, nextOffsets };
}

/**
 * Compaction keeps only the last point of a partition: where that is torn, it may have removed the
 * one before, which the other partitions hold. The torn one names the checkpoint it continues, and
 * no point is written before the one it continues is in every partition.
 */
function newestPreviousCheckpoint(checkpoints: PartitionCheckpoints): Checkpoint | null {
  let newest: Checkpoint | null = null;
  for (const found of checkpoints) {
    for (const { record } of found.values()) {
      if (record.kind === 'point') newest = newer(newest, record.point.previous);
    }
  }
  return newest;
}

/** Whether the tail holds everything past the checkpoint. */
function reachesBackTo(
  tail: Tail,
  nextOffsets: readonly bigint[],
  checkpoint: Checkpoint | null,
): boolean {
  if (tail.reachesStart) return true;
  const first = tail.records[0];
  if (checkpoint === null || first === undefined) return false;
  return first.offset < (nextOffsets[tail.partition] ?? 0n);
}

/** Any partition's record of the checkpoint: it is the same in all of them. */
function recordAt(
  checkpoints: PartitionCheckpoints,
  checkpoint: Checkpoint,
): StreamRecord | undefined {
  const key = formatEpochLsn(checkpoint.at);
  return checkpoints.find((found) => found.has(key))?.get(key)?.record;
}

function recordsPast(tails: readonly Tail[], nextOffsets: readonly bigint[]): StreamRecord[] {
  return tails.flatMap((tail) =>
    tail.records.filter((record) => record.offset >= (nextOffsets[tail.partition] ?? 0n)),
  );
}
