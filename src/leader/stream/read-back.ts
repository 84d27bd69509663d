/**
 * The leader reads its own topic back and counts: what was read in every partition may be confirmed
 * to Postgres, and damage is found although no follower runs. Flows in: committed records of every
 * partition, in offset order; flows out: up to where all partitions are whole, or the DAMAGED error
 * that stops the stream. Pure except for the loop that reads.
 */
import type { Checkpoint } from '../../change/change.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { damagedLog } from '../../errors/topic.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import type { CommittedReader } from '../../topic/log.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import type { StreamRecord } from '../../topic/records/stream-record.ts';
import { tail } from '../../topic/tailer.ts';
import type { ReadBackListener } from './stages.ts';

/** Counts one partition between its points. */
export class ReadBackCounter {
  readonly #partition: number;
  #checkpoint: EpochLsn;
  #count = 0;

  constructor(partition: number, checkpoint: EpochLsn) {
    this.#partition = partition;
    this.#checkpoint = checkpoint;
  }

  /** The last point or epoch begin that was read. */
  get checkpoint(): EpochLsn {
    return this.#checkpoint;
  }

  /** To read once more what follows the checkpoint. */
  restart(): void {
    this.#count = 0;
  }

  take(record: StreamRecord): void {
    if (record.kind === 'epoch') {
      // A newer epoch voids what a torn batch left; an older one cannot follow.
      if (record.begin.epoch <= this.#checkpoint.epoch) throw this.#damaged(record, 'begins again');
      this.#checkpoint = { epoch: record.begin.epoch, lsn: record.begin.startLsn };
      this.#count = 0;
      return;
    }
    if (record.kind !== 'point') {
      this.#count += 1;
      return;
    }
    const { point } = record;
    if (compareEpochLsn(point.previous.at, this.#checkpoint) !== 0) {
      throw this.#damaged(record, `continues ${formatEpochLsn(point.previous.at)}`);
    }
    // rule: read-back-compares-counts
    if (this.#count !== point.counts[this.#partition]) {
      throw this.#damaged(
        record,
        `counts ${point.counts[this.#partition]} records, not ${this.#count}`,
      );
    }
    this.#checkpoint = { epoch: point.epoch, lsn: point.upto };
    this.#count = 0;
  }

  #damaged(record: StreamRecord, found: string): UnderstudyError {
    const at = formatEpochLsn(this.#checkpoint);
    return damagedLog(
      `partition ${this.#partition}: record counts do not match the consistency point after ` +
        `${at}: the ${record.kind} at offset ${record.offset} ${found}`,
      { partition: this.#partition, at, offset: `${record.offset}`, readTwice: true },
    );
  }
}

/** Counts one partition, once more where the count is wrong: one answer is no evidence. */
class PartitionReadBack {
  readonly #counter: ReadBackCounter;
  /** After the record of the counter's checkpoint. */
  #from: bigint;
  #next: bigint;
  /** Whether what follows the checkpoint is being read for the second time. */
  #isSecond = false;

  constructor(partition: number, checkpoint: EpochLsn, next: bigint) {
    this.#counter = new ReadBackCounter(partition, checkpoint);
    this.#from = next;
    this.#next = next;
  }

  get checkpoint(): EpochLsn {
    return this.#counter.checkpoint;
  }

  get next(): bigint {
    return this.#next;
  }

  take(records: readonly StreamRecord[], nextOffset: bigint): void {
    for (const record of records) {
      try {
        this.#counter.take(record);
      } catch (error) {
        // rule: miscount-read-twice
        if (this.#isSecond) throw error;
        this.#isSecond = true;
        this.#counter.restart();
        this.#next = this.#from;
        return;
      }
      if (record.kind !== 'point' && record.kind !== 'epoch') continue;
      this.#from = record.offset + 1n;
      this.#isSecond = false;
    }
    this.#next = nextOffset;
  }
}

/** How long an idle leader waits at the brokers, and how soon it reports that there was nothing. */
const fetchMaxWaitMs = 5_000;

/**
 * Reads from `checkpoint` until `signal` aborts, then closes the reader; rejects with the damage.
 */
export async function readBack(
  reader: CommittedReader,
  decoder: RecordDecoder,
  checkpoint: Checkpoint,
  signal: AbortSignal,
  listener: ReadBackListener,
): Promise<void> {
  const partitions = checkpoint.nextOffsets.map((next, partition) => {
    return new PartitionReadBack(partition, checkpoint.at, next);
  });
  let seen = checkpoint.at;
  let closing: Promise<void> | null = null;
  const close = (): void => {
    closing ??= reader.close();
  };
  signal.addEventListener('abort', close, { once: true });
  try {
    const wanted = (): ReadonlyMap<number, bigint> => {
      return new Map(partitionsAt(seen, partitions).map((i) => [i, partitions[i]?.next ?? 0n]));
    };
    const options = { maxWaitMs: fetchMaxWaitMs, signal };
    for await (const fetched of tail({ reader, decoder }, wanted, options)) {
      let isNew = false;
      for (const { partition, decoded, nextOffset } of fetched) {
        isNew ||= partitions[partition]?.next !== nextOffset;
        partitions[partition]?.take(decoded, nextOffset);
      }
      if (!isNew) listener.seenNothing();
      const lowest = lowestCheckpoint(partitions);
      if (compareEpochLsn(lowest, seen) > 0) listener.seen(lowest);
      seen = lowest;
    }
  } catch (error) {
    // After an abort, which closes the reader, nothing is read: what failed does not matter.
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', close);
    close();
    await closing;
  }
}

function lowestCheckpoint(partitions: readonly PartitionReadBack[]): EpochLsn {
  return partitions
    .map(({ checkpoint }) => checkpoint)
    .reduce((lowest, checkpoint) =>
      compareEpochLsn(checkpoint, lowest) < 0 ? checkpoint : lowest,
    );
}

/**
 * Only the partitions that are furthest behind are read: a broker whose partitions are ahead would
 * delay its answer until the next batch, and with it the answers of the others.
 */
function partitionsAt(
  lowest: EpochLsn,
  partitions: readonly PartitionReadBack[],
): readonly number[] {
  return [...partitions.keys()].filter((partition) => {
    const checkpoint = partitions[partition]?.checkpoint;
    return checkpoint !== undefined && compareEpochLsn(checkpoint, lowest) === 0;
  });
}
