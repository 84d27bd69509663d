/**
 * Where a log stands. Flows in: the committed tail of every partition; flows out: the newest mark
 * (a point or a whole epoch begin) that every partition holds, and what was committed past it.
 * Pure: reading further back is the caller's, who asks again with longer tails.
 *
 * Records past the mark are looked at even when the last points look equal everywhere: a delayed
 * end of one Kafka transaction can commit half of the next.
 */
import type { EpochBegin, Mark, Point } from '../change/change.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../change/position.ts';
import type { StreamRecord } from './stream-record.ts';

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
  const common = newestCommon(marks);
  if (common !== null) {
    const nextOffsets = marks.map((placed) => (placed.get(common.key)?.offset ?? 0n) + 1n);
    const mark = { at: common.at, nextOffsets };
    const record = common.record;
    return {
      mark,
      point: record.kind === 'point' ? record.point : null,
      begin: record.kind === 'epoch' ? record.begin : null,
      strays: straysPast(tails, nextOffsets),
    };
  }
  if (!tails.every((tail) => tail.reachesStart)) return null;
  return withoutCommonMark(tails, marks);
}

function newestCommon(
  marks: readonly ReadonlyMap<string, PlacedMark>[],
): (PlacedMark & { key: string }) | null {
  const [first, ...rest] = marks;
  let newest: (PlacedMark & { key: string }) | null = null;
  for (const [key, mark] of first ?? []) {
    if (!rest.every((placed) => placed.has(key))) continue;
    if (newest === null || compareEpochLsn(mark.at, newest.at) > 0) newest = { ...mark, key };
  }
  return newest;
}

/**
 * Compaction keeps the last point of a partition only: where the newest is torn, the one before may
 * be gone, and the torn one says itself where that stood.
 */
function withoutCommonMark(
  tails: readonly Tail[],
  marks: readonly ReadonlyMap<string, PlacedMark>[],
): LogEnd {
  const points = marks
    .flatMap((placed) => [...placed.values()])
    .flatMap(({ record }) => (record.kind === 'point' ? [record.point] : []))
    .sort((a, b) => compareEpochLsn(a.previous.at, b.previous.at));
  const mark = points[0]?.previous ?? null;
  const offsets = mark?.nextOffsets ?? tails.map(() => 0n);
  return { mark, point: null, begin: null, strays: straysPast(tails, offsets) };
}

function straysPast(tails: readonly Tail[], nextOffsets: readonly bigint[]): StreamRecord[] {
  return tails.flatMap((tail) =>
    tail.records.filter((record) => record.offset >= (nextOffsets[tail.partition] ?? 0n)),
  );
}
