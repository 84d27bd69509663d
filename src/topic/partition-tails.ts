/**
 * Where a log stands. Flows in: the committed tail of every partition; flows out: the newest mark
 * (a point or a whole epoch begin) that every partition holds, and what was committed past it.
 * Pure: reading further back is the caller's, who asks again with longer tails.
 *
 * Records past the mark are looked at even when the last points look equal everywhere: a delayed
 * end of one Kafka transaction can commit half of the next.
 */
import type { EpochBegin, Mark, Point, UnfinishedTable } from '../change/change.ts';
import { oldestMark } from '../change/mark.ts';
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
  readonly mark: Mark | null;
  /** The newest point or epoch begin at the mark; null when compaction took its record. */
  readonly point: Point | null;
  /** The epoch begin that the mark is; null when the mark is a point. */
  readonly begin: EpochBegin | null;
  /** Committed records past the mark, epoch begins included. */
  readonly strays: readonly StreamRecord[];
  /** Since where keys may lack values in the topic, as far as the mark; null when none does. */
  readonly unhealed: Mark | null;
  /** Tables whose rows from before the stream are still missing in it. */
  readonly unfinished: readonly UnfinishedTable[];
}

interface PlacedMark {
  readonly at: EpochLsn;
  readonly offset: bigint;
  readonly record: StreamRecord;
}

function markOf(record: StreamRecord): PlacedMark | null {
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
  const marks = tails.map((tail) => {
    const placed = new Map<string, PlacedMark>();
    for (const record of tail.records) {
      const mark = markOf(record);
      if (mark !== null) placed.set(formatEpochLsn(mark.at), mark);
    }
    return placed;
  });
  const mark = newer(newestCommon(marks), newestPrevious(marks));
  const nextOffsets = mark?.nextOffsets ?? tails.map(() => 0n);
  if (!tails.every((tail) => reachesBackTo(tail, nextOffsets, mark))) return null;
  const record = mark === null ? undefined : recordAt(marks, mark);
  const point = record?.kind === 'point' ? record.point : null;
  const begin = record?.kind === 'epoch' ? record.begin : null;
  const bases = basesOf(tails, marks, begin);
  if (bases === 'further back') return null;
  return {
    mark,
    point,
    begin,
    strays: straysPast(tails, nextOffsets),
    unhealed:
      point === null ? oldestMark([...bases, ...unhealedBefore(marks, begin)]) : point.unhealed,
    unfinished: (point ?? begin)?.unfinished ?? [],
  };
}

/**
 * An epoch begin does not say what its base left unhealed, nor whether a torn batch was voided:
 * whatever any point before it says counts, and the base itself.
 */
function unhealedBefore(
  marks: readonly ReadonlyMap<string, PlacedMark>[],
  begin: EpochBegin | null,
): (Mark | null)[] {
  if (begin === null) return [];
  return marks.flatMap((placed) =>
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
  marks: readonly ReadonlyMap<string, PlacedMark>[],
  newest: EpochBegin | null,
): Mark[] | 'further back' {
  const bases: Mark[] = [];
  for (let begin = newest; begin !== null && begin.base !== null; ) {
    const base = markAt(tails, marks, begin.base);
    if (base === 'further back') return base;
    bases.push(base);
    const record = recordAt(marks, base);
    begin = record?.kind === 'epoch' ? record.begin : null;
  }
  return bases;
}

/** Where the mark is gone to compaction, what is left of the partition begins behind it. */
function markAt(
  tails: readonly Tail[],
  marks: readonly ReadonlyMap<string, PlacedMark>[],
  at: EpochLsn,
): Mark | 'further back' {
  const placed = marks.map((one) => one.get(formatEpochLsn(at)));
  if (tails.some((tail, i) => placed[i] === undefined && !tail.reachesStart)) return 'further back';
  const nextOffsets = tails.map(({ records }, i) => {
    const mark = placed[i];
    return mark === undefined ? (records[0]?.offset ?? 0n) : mark.offset + 1n;
  });
  return { at, nextOffsets };
}

function newer(a: Mark | null, b: Mark | null): Mark | null {
  if (a === null || b === null) return a ?? b;
  return compareEpochLsn(a.at, b.at) >= 0 ? a : b;
}

function newestCommon(marks: readonly ReadonlyMap<string, PlacedMark>[]): Mark | null {
  const [first, ...rest] = marks;
  let newest: EpochLsn | null = null;
  for (const [key, { at }] of first ?? []) {
    if (!rest.every((placed) => placed.has(key))) continue;
    if (newest === null || compareEpochLsn(at, newest) > 0) newest = at;
  }
  if (newest === null) return null;
  const key = formatEpochLsn(newest);
  const nextOffsets = marks.map((placed) => (placed.get(key)?.offset ?? 0n) + 1n);
  return { at: newest, nextOffsets };
}

/**
 * Compaction keeps the last point of a partition only: where that is torn, the one before may be
 * gone, although the other partitions hold it. The torn one says itself where that stood, and no
 * point is written before the one it continues is in every partition.
 */
function newestPrevious(marks: readonly ReadonlyMap<string, PlacedMark>[]): Mark | null {
  let newest: Mark | null = null;
  for (const placed of marks) {
    for (const { record } of placed.values()) {
      if (record.kind === 'point') newest = newer(newest, record.point.previous);
    }
  }
  return newest;
}

/** Whether the tail holds everything past the mark. */
function reachesBackTo(tail: Tail, nextOffsets: readonly bigint[], mark: Mark | null): boolean {
  if (tail.reachesStart) return true;
  const first = tail.records[0];
  if (mark === null || first === undefined) return false;
  return first.offset < (nextOffsets[tail.partition] ?? 0n);
}

/** Any partition's record of the mark: it says the same in all of them. */
function recordAt(
  marks: readonly ReadonlyMap<string, PlacedMark>[],
  mark: Mark,
): StreamRecord | undefined {
  const key = formatEpochLsn(mark.at);
  return marks.find((placed) => placed.has(key))?.get(key)?.record;
}

function straysPast(tails: readonly Tail[], nextOffsets: readonly bigint[]): StreamRecord[] {
  return tails.flatMap((tail) =>
    tail.records.filter((record) => record.offset >= (nextOffsets[tail.partition] ?? 0n)),
  );
}
