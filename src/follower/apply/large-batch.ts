/**
 * Applies a batch that was too large to hold: its records are read once more, in the order of
 * positions over all partitions. Flows in: its stretch of every partition and the window that is
 * wanted; flows out: steps, piece after piece, each with all records of the batch up to some
 * position. The next piece is read while the caller applies the one before; no more than two are in
 * memory.
 *
 * Every piece leads from one state of the leader's transaction to a later one, so pieces may be
 * applied one after the other: rows whose keys differ in bytes and are equal in Postgres are in any
 * partitions, and a delete of one must not come after the insert of the other. Records are counted
 * once more.
 */
import { formatEpochLsn, isCovered } from '../../change/position.ts';
import { countsDiffer, GapError } from '../../errors/topic.ts';
import type { StreamRecord } from '../../topic/records/stream-record.ts';
import { type TailSource, tail } from '../../topic/tailer.ts';
import { coalesce } from './coalesce.ts';
import { OrderedMerge, type Piece } from './ordered-merge.ts';
import type { AlignedLarge, ApplyStep, ApplyWindow, ContentRecord } from './stages.ts';

/** The reader is the caller's, and must not be used otherwise until the steps end. */
export async function* stepsOfLarge(
  source: TailSource,
  batch: AlignedLarge,
  window: ApplyWindow,
): AsyncGenerator<ApplyStep> {
  const merge = new LargeBatchMerge(batch);
  const answers = tail(source, () => merge.wanted());
  let reading = answers.next();
  try {
    for (let isPast = false; !isPast; ) {
      const { value: fetched = [] } = await reading;
      for (const { partition, decoded, nextOffset } of fetched) {
        merge.push(partition, decoded, nextOffset);
      }
      const isLast = merge.complete;
      const partitions = merge.take();
      isPast = isLast || partitions.some((records) => endsPast(records, window));
      if (!isPast) {
        reading = answers.next();
        // An error is thrown where the next piece is awaited, or the caller has given up.
        reading.catch(() => undefined);
      }
      yield* coalesce([{ partitions }], window);
    }
  } finally {
    await Promise.allSettled([reading]);
  }
}

/** Everything after a record that is past the window is past it too. */
function endsPast(records: readonly ContentRecord[], { to }: ApplyWindow): boolean {
  const last = records[records.length - 1];
  return to !== null && last !== undefined && !isCovered(last.position, to);
}

/** The same without I/O: which partitions to read next, and the piece that is complete by then. */
export class LargeBatchMerge {
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

  /** The next offsets of the partitions that the next piece waits for; none at the end. */
  wanted(): Map<number, bigint> {
    return this.#merge.wanted();
  }

  /** Whether everything up to the point is read. */
  get complete(): boolean {
    return this.#merge.complete;
  }

  push(partition: number, records: readonly StreamRecord[], nextOffset: bigint): void {
    const pointOffset = (this.#batch.checkpoint.nextOffsets[partition] ?? 0n) - 1n;
    const content: ContentRecord[] = [];
    for (const record of records) {
      if (record.offset >= pointOffset) break;
      const { kind, offset } = record;
      if (kind === 'point' || kind === 'epoch') throw this.#damage(`a ${kind} is at ${offset}`);
      content.push(record);
    }
    this.#merge.push(partition, content, nextOffset);
    const count = (this.#counts[partition] ?? 0) + content.length;
    this.#counts[partition] = count;
    if (!this.#merge.isRead(partition)) return;
    if (count === (this.#batch.point.counts[partition] ?? 0)) return;
    // The counts did match when it was read first.
    throw new GapError(
      `partition ${partition} held ${this.#batch.point.counts[partition] ?? 0} records and now ` +
        `holds ${count}`,
      this.#batch.from.at,
    );
  }

  /** Takes out what is next in the order of positions; empty until more is read. */
  take(): Piece {
    return this.#merge.take();
  }

  #damage(what: string): Error {
    const { point, from } = this.#batch;
    const end = formatEpochLsn({ epoch: point.epoch, lsn: point.upto });
    return countsDiffer(`before the point ${end} ${what}`, from.at);
  }
}
