/**
 * Puts a large batch together again in the order of positions. Flows in: the records of its
 * stretch of each partition, as they are read once more; flows out: one piece after the other, each
 * with all records of the batch up to some position, and which partitions to read on. Pure: no I/O.
 *
 * Every piece leads from one state of the leader's transaction to a later one, so pieces may be
 * applied one after the other: rows whose keys differ in bytes and are equal in Postgres stand in
 * any partitions, and a delete of one must not come after the insert of the other. Records are
 * counted again; nothing is held but what was read ahead of the partition that is furthest behind.
 *
 * A piece does not end with a tombstone: the row that a key change moved away may follow in another
 * partition, and lack values that it had under the old key.
 */
import { comparePositions, formatEpochLsn, type Position } from '../change/position.ts';
import type { StreamRecord } from '../topic/stream-record.ts';
import { type AlignedLarge, type ContentRecord, damage, GapError } from './aligner.ts';

interface Stretch {
  offset: bigint;
  /** The offset of the point. */
  readonly end: bigint;
  content: ContentRecord[];
  count: number;
  last: Position | null;
  ended: boolean;
}

export class PositionMerge {
  readonly #batch: AlignedLarge;
  readonly #stretches: readonly Stretch[];

  constructor(batch: AlignedLarge) {
    this.#batch = batch;
    this.#stretches = batch.mark.nextOffsets.map((next, partition) => ({
      offset: batch.from.nextOffsets[partition] ?? 0n,
      end: next - 1n,
      content: [],
      count: 0,
      last: null,
      ended: false,
    }));
  }

  /** Where to read on in the partitions that the next piece waits for; none at the end. */
  wanted(): Map<number, bigint> {
    const wanted = new Map<number, bigint>();
    for (const [partition, { offset, content, ended }] of this.#stretches.entries()) {
      const [next, ...more] = content;
      const waits = next === undefined || (isTombstone(next) && more.length === 0);
      if (!ended && waits) wanted.set(partition, offset);
    }
    return wanted;
  }

  /** Whether everything up to the point is here. */
  get complete(): boolean {
    return this.#stretches.every(({ ended }) => ended);
  }

  push(partition: number, records: readonly StreamRecord[], nextOffset: bigint): void {
    const stretch = this.#stretches[partition];
    if (stretch === undefined) throw this.#damage(`there is a partition ${partition}`);
    for (const record of records) {
      if (record.offset >= stretch.end) break;
      this.#take(stretch, record);
    }
    stretch.offset = nextOffset;
    stretch.ended = nextOffset > stretch.end;
    const counted = this.#batch.point.counts[partition] ?? 0;
    if (!stretch.ended || stretch.count === counted) return;
    // It did add up when it was read first.
    throw new GapError(
      `partition ${partition} held ${counted} records and now holds ${stretch.count}`,
      this.#batch.from.at,
      Math.max(...this.#batch.appendMs),
    );
  }

  #take(stretch: Stretch, record: StreamRecord): void {
    const { kind, position, offset } = record;
    if (kind === 'point' || kind === 'epoch') throw this.#damage(`a ${kind} stands at ${offset}`);
    if (stretch.last !== null && comparePositions(position, stretch.last) <= 0) {
      throw this.#damage(`the record at offset ${offset} is out of order`);
    }
    stretch.last = position;
    stretch.count += 1;
    stretch.content.push(record);
  }

  /** Per partition, what is next in the order of positions; empty until more is read. */
  next(): readonly (readonly ContentRecord[])[] {
    const last = this.#lastReadByAll();
    return this.#stretches.map((stretch) => {
      const { content } = stretch;
      const past = last === 'everything' ? -1 : content.findIndex((one) => isPast(one, last));
      const count = past === -1 ? content.length : past;
      stretch.content = content.slice(count);
      return content.slice(0, count);
    });
  }

  /** The record up to which every partition is read; null before the first. */
  #lastReadByAll(): ContentRecord | 'everything' | null {
    let last: ContentRecord | 'everything' = 'everything';
    for (const { ended, content } of this.#stretches) {
      if (ended) continue;
      const newest = content[content.length - 1];
      if (newest === undefined) return null;
      if (last === 'everything' || comparePositions(newest.position, last.position) < 0) {
        last = newest;
      }
    }
    return last;
  }

  #damage(what: string): Error {
    const { point, from } = this.#batch;
    const end = formatEpochLsn({ epoch: point.epoch, lsn: point.upto });
    return damage(`before the point ${end} ${what}`, from.at);
  }
}

function isPast(record: ContentRecord, last: ContentRecord | null): boolean {
  if (last === null) return true;
  const order = comparePositions(record.position, last.position);
  return order > 0 || (order === 0 && isTombstone(last));
}

function isTombstone(record: ContentRecord): boolean {
  return record.kind === 'row' && record.value === null;
}
