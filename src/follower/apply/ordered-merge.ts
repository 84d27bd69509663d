/**
 * Puts records of several partitions into the order of positions. Flows in: a stretch of each
 * partition, read in portions of any size; flows out: one piece after the other, each with all
 * records up to some position, and which partitions to read next. Pure: no I/O. Only what was read
 * ahead of the slowest partition is held.
 *
 * A piece does not end with a tombstone: the row that a key change moved away may follow in another
 * partition as a partial row, whose base is under the old key.
 */
import { comparePositions, type Position } from '../../change/position.ts';
import type { ContentRecord } from './stages.ts';

/** Per partition, the records that come next. */
export type Piece = readonly (readonly ContentRecord[])[];

interface Stretch {
  offset: bigint;
  /** Exclusive. */
  readonly end: bigint;
  content: ContentRecord[];
  last: Position | null;
}

export class OrderedMerge {
  readonly #stretches: readonly Stretch[];
  readonly #refuse: (what: string) => Error;

  /** From the first offsets up to `ends`, exclusive; `refuse` makes the error of a wrong log. */
  constructor(from: readonly bigint[], ends: readonly bigint[], refuse: (what: string) => Error) {
    this.#refuse = refuse;
    this.#stretches = ends.map((end, partition) => ({
      offset: from[partition] ?? 0n,
      end,
      content: [],
      last: null,
    }));
  }

  /** The next offsets of the partitions that the next piece waits for; none at the end. */
  wanted(): Map<number, bigint> {
    const wanted = new Map<number, bigint>();
    for (const [partition, stretch] of this.#stretches.entries()) {
      const [next, ...more] = stretch.content;
      const waits = next === undefined || (isTombstone(next) && more.length === 0);
      if (!isRead(stretch) && waits) wanted.set(partition, stretch.offset);
    }
    return wanted;
  }

  /** Whether every stretch is read to its end. */
  get complete(): boolean {
    return this.#stretches.every(isRead);
  }

  /** Per partition, the offset of the first record that was not taken. */
  get offsets(): readonly bigint[] {
    return this.#stretches.map(({ content, offset }) => content[0]?.offset ?? offset);
  }

  isRead(partition: number): boolean {
    const stretch = this.#stretches[partition];
    return stretch !== undefined && isRead(stretch);
  }

  /** Records at and past the end of the stretch are left out by the caller. */
  push(partition: number, records: readonly ContentRecord[], nextOffset: bigint): void {
    const stretch = this.#stretches[partition];
    if (stretch === undefined) throw this.#refuse(`there is a partition ${partition}`);
    for (const record of records) {
      const { position, offset } = record;
      if (stretch.last !== null && comparePositions(position, stretch.last) <= 0) {
        throw this.#refuse(`the record at offset ${offset} is out of order`);
      }
      stretch.last = position;
      stretch.content.push(record);
    }
    stretch.offset = nextOffset;
  }

  /** Takes out what is next in the order of positions; empty until more is read. */
  take(): Piece {
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
    for (const stretch of this.#stretches) {
      if (isRead(stretch)) continue;
      const newest = stretch.content[stretch.content.length - 1];
      if (newest === undefined) return null;
      if (last === 'everything' || comparePositions(newest.position, last.position) < 0) {
        last = newest;
      }
    }
    return last;
  }
}

function isRead({ offset, end }: Stretch): boolean {
  return offset >= end;
}

function isPast(record: ContentRecord, last: ContentRecord | null): boolean {
  if (last === null) return true;
  const order = comparePositions(record.position, last.position);
  return order > 0 || (order === 0 && isTombstone(last));
}

function isTombstone(record: ContentRecord): boolean {
  return record.kind === 'row' && record.value === null;
}
