/**
 * Where a log stands. Flows in: the committed tail of every partition; flows out: the newest
 * checkpoint (a point or a whole epoch begin) that every partition holds, and what was committed
 * past it. Pure: reading further back is the caller's, who asks again with longer tails.
 *
 * Records past the checkpoint are looked at even when the last points look equal everywhere: a
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
  /** Whether the tail begins at the low watermark: there is nothing further back. */
  readonly reachesStart: boolean;
}

export interface LogEnd {
  readonly checkpoint: Checkpoint | null;
  /** The newest point or epoch begin at the checkpoint; null when compaction took its record. */
  readonly point: Point | null;
  /** The epoch begin that the checkpoint is; null when the checkpoint is a point. */
  readonly begin: EpochBegin | null;
  /** Committed records past the checkpoint, epoch begins included. */
  readonly strays: readonly StreamRecord[];
  /**
   * Since where keys may lack values in the topic, as far as the checkpoint; null when none does.
   */
  readonly unhealed: Checkpoint | null;
  /** Tables whose rows from before the stream are still missing in it. */
  readonly unfinished: readonly UnfinishedTable[];
}

interface PlacedCheckpoint {
  readonly at: EpochLsn;
  readonly offset: bigint;
  readonly record: StreamRecord;
}

function checkpointOf(record: StreamRecord): PlacedCheckpoint | null {
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

/** Null when the tails are too short to tell: read further back and ask again. */
export function findLogEnd(tails: readonly Tail[]): LogEnd | null {
  const checkpoints = tails.map((tail) => {
    const placed = new Map<string, PlacedCheckpoint>();
    for (const record of tail.records) {
      const checkpoint = checkpointOf(record);
      if (checkpoint !== null) placed.set(formatEpochLsn(checkpoint.at), checkpoint);
    }
    return placed;
  });
  const checkpoint = newer(newestCommon(checkpoints), newestPrevious(checkpoints));
  const nextOffsets = checkpoint?.nextOffsets ?? tails.map(() => 0n);
  if (!tails.every((tail) => reachesBackTo(tail, nextOffsets, checkpoint))) return null;
  const record = checkpoint === null ? undefined : recordAt(checkpoints, checkpoint);
  const point = record?.kind === 'point' ? record.point : null;
  const begin = record?.kind === 'epoch' ? record.begin : null;
  const bases = basesOf(tails, checkpoints, begin);
  if (bases === 'further back') return null;
  return {
    checkpoint,
    point,
    begin,
    strays: straysPast(tails, nextOffsets),
    unhealed:
      point === null
        ? oldestCheckpoint([...bases, ...unhealedBefore(checkpoints, begin)])
        : point.unhealed,
    unfinished: (point ?? begin)?.unfinished ?? [],
  };
}

/**
 * An epoch begin does not say what its base left unhealed, nor whether a torn batch was voided:
 * whatever any point before it says counts, and the base itself.
 */
function unhealedBefore(
  checkpoints: readonly ReadonlyMap<string, PlacedCheckpoint>[],
  begin: EpochBegin | null,
): (Checkpoint | null)[] {
  if (begin === null) return [];
  return checkpoints.flatMap((placed) =>
    [...placed.values()].map(({ record }) => {
      return record.kind === 'point' && record.point.epoch < begin.epoch
        ? record.point.unhealed
        : null;
    }),
  );
}

/** What an epoch continues; where that is an epoch without a point, what that one continues. */
function basesOf(
  tails: readonly Tail[],
  checkpoints: readonly ReadonlyMap<string, PlacedCheckpoint>[],
  newest: EpochBegin | null,
): Checkpoint[] | 'further back' {
  const bases: Checkpoint[] = [];
  for (let begin = newest; begin !== null && begin.base !== null; ) {
    const base = checkpointAt(tails, checkpoints, begin.base);
    if (base === 'further back') return base;
    bases.push(base);
    const record = recordAt(checkpoints, base);
    begin = record?.kind === 'epoch' ? record.begin : null;
  }
  return bases;
}

/** Where the checkpoint is gone to compaction, what is left of the partition begins behind it. */
function checkpointAt(
  tails: readonly Tail[],
  checkpoints: readonly ReadonlyMap<string, PlacedCheckpoint>[],
  at: EpochLsn,
): Checkpoint | 'further back' {
  const placed = checkpoints.map((one) => one.get(formatEpochLsn(at)));
  if (tails.some((tail, i) => placed[i] === undefined && !tail.reachesStart)) return 'further back';
  const nextOffsets = tails.map(({ records }, i) => {
    const checkpoint = placed[i];
    return checkpoint === undefined ? (records[0]?.offset ?? 0n) : checkpoint.offset + 1n;
  });
  return { at, nextOffsets };
}

function newer(a: Checkpoint | null, b: Checkpoint | null): Checkpoint | null {
  if (a === null || b === null) return a ?? b;
  return compareEpochLsn(a.at, b.at) >= 0 ? a : b;
}

function newestCommon(
  checkpoints: readonly ReadonlyMap<string, PlacedCheckpoint>[],
): Checkpoint | null {
  const [first, ...rest] = checkpoints;
  let newest: EpochLsn | null = null;
  for (const [key, { at }] of first ?? []) {
    if (!rest.every((placed) => placed.has(key))) continue;
    if (newest === null || compareEpochLsn(at, newest) > 0) newest = at;
  }
  if (newest === null) return null;
  const key = formatEpochLsn(newest);
  const nextOffsets = checkpoints.map((placed) => (placed.get(key)?.offset ?? 0n) + 1n);
  return { at: newest, nextOffsets };
}

/**
 * Compaction keeps the last point of a partition only: where that is torn, the one before may be
 * gone, although the other partitions hold it. The torn one says itself where that stood, and no
 * point is written before the one it continues is in every partition.
 */
function newestPrevious(
  checkpoints: readonly ReadonlyMap<string, PlacedCheckpoint>[],
): Checkpoint | null {
  let newest: Checkpoint | null = null;
  for (const placed of checkpoints) {
    for (const { record } of placed.values()) {
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

/** Any partition's record of the checkpoint: it says the same in all of them. */
function recordAt(
  checkpoints: readonly ReadonlyMap<string, PlacedCheckpoint>[],
  checkpoint: Checkpoint,
): StreamRecord | undefined {
  const key = formatEpochLsn(checkpoint.at);
  return checkpoints.find((placed) => placed.has(key))?.get(key)?.record;
}

function straysPast(tails: readonly Tail[], nextOffsets: readonly bigint[]): StreamRecord[] {
  return tails.flatMap((tail) =>
    tail.records.filter((record) => record.offset >= (nextOffsets[tail.partition] ?? 0n)),
  );
}
