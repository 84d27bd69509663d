/**
 * Puts a large batch together again in the order of positions. Flows in: the records of its
 * stretch of each partition, as they are read once more; flows out: one piece after the other, each
 * with all records of the batch up to some position, and which partitions to read on. Pure: no I/O.
 *
 * Every piece leads from one state of the leader's transaction to a later one, so pieces may be
 * applied one after the other: rows whose keys differ in bytes and are equal in Postgres stand in
 * any partitions, and a delete of one must not come after the insert of the other. Records are
 * counted again.
 */
import { formatEpochLsn } from '../../change/position.ts';
import type { StreamRecord } from '../../topic/records/stream-record.ts';
import { type AlignedLarge, type ContentRecord, damage, GapError } from './aligner.ts';
import { OrderedMerge, type Piece } from './ordered-merge.ts';

export class PositionMerge {
  readonly #batch: AlignedLarge;
  readonly #merge: OrderedMerge;
  readonly #counts: number[];

  constructor(batch: AlignedLarge) {
    this.#batch = batch;
    this.#counts = batch.checkpoint.nextOffsets.map(() => 0);
    this.#merge = new OrderedMerge(batch.from.nextOffsets, batch.checkpoint.nextOffsets, (what) => {
      return this.#damage(what);
    });
  }

  /** Where to read on in the partitions that the next piece waits for; none at the end. */
  wanted(): Map<number, bigint> {
    return this.#merge.wanted();
  }

  /** Whether everything up to the point is here. */
  get complete(): boolean {
    return this.#merge.complete;
  }

  push(partition: number, records: readonly StreamRecord[], nextOffset: bigint): void {
    const pointOffset = (this.#batch.checkpoint.nextOffsets[partition] ?? 0n) - 1n;
    const content: ContentRecord[] = [];
    for (const record of records) {
      if (record.offset >= pointOffset) break;
      const { kind, offset } = record;
      if (kind === 'point' || kind === 'epoch') throw this.#damage(`a ${kind} stands at ${offset}`);
      content.push(record);
    }
    this.#merge.push(partition, content, nextOffset);
    const count = (this.#counts[partition] ?? 0) + content.length;
    this.#counts[partition] = count;
    if (!this.#merge.isRead(partition)) return;
    if (count === (this.#batch.point.counts[partition] ?? 0)) return;
    // It did add up when it was read first.
    throw new GapError(
      `partition ${partition} held ${this.#batch.point.counts[partition] ?? 0} records and now ` +
        `holds ${count}`,
      this.#batch.from.at,
    );
  }

  /** Per partition, what is next in the order of positions; empty until more is read. */
  next(): Piece {
    return this.#merge.next();
  }

  #damage(what: string): Error {
    const { point, from } = this.#batch;
    const end = formatEpochLsn({ epoch: point.epoch, lsn: point.upto });
    return damage(`before the point ${end} ${what}`, from.at);
  }
}
