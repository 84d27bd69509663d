/**
 * The leader reads its own topic and counts: what it saw in every partition may be confirmed to
 * Postgres, and damage is found although no follower runs. Flows in: committed records of every
 * partition, in offset order; flows out: how far all partitions are whole, or the DAMAGED error
 * that stops the stream. Pure but for the loop that feeds it.
 */
import type { Checkpoint } from '../../change/change.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { CommittedReader } from '../../topic/log.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import type { StreamRecord } from '../../topic/records/stream-record.ts';

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

  take(record: StreamRecord): void {
    if (record.kind === 'epoch') {
      // A newer epoch voids what a torn batch left; an older one cannot follow.
      if (record.begin.epoch <= this.#checkpoint.epoch) throw this.#damage(record, 'begins again');
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
      throw this.#damage(record, `continues ${formatEpochLsn(point.previous.at)}`);
    }
    if (this.#count !== point.counts[this.#partition]) {
      throw this.#damage(
        record,
        `counts ${point.counts[this.#partition]} records, not ${this.#count}`,
      );
    }
    this.#checkpoint = { epoch: point.epoch, lsn: point.upto };
    this.#count = 0;
  }

  #damage(record: StreamRecord, what: string): UnderstudyError {
    return new UnderstudyError(
      'DAMAGED',
      `partition ${this.#partition} does not add up after ` +
        `${formatEpochLsn(this.#checkpoint)}: the ${record.kind} at offset ` +
        `${record.offset} ${what}`,
      'Keep the topic for analysis; destroy the cluster and init it again.',
    );
  }
}

interface ReadBackListener {
  /** All partitions were read up to there. */
  seen(at: EpochLsn): void;
  /** The brokers had nothing new all the while that they were asked to wait. */
  seenNothing(): void;
}

/** How often an idle leader asks, and how soon it says that there was nothing. */
const fetchMaxWaitMs = 5_000;

/**
 * Reads on from `checkpoint` until `signal` aborts, and closes the reader; rejects with the damage.
 */
export async function readBack(
  reader: CommittedReader,
  decoder: RecordDecoder,
  checkpoint: Checkpoint,
  signal: AbortSignal,
  listener: ReadBackListener,
): Promise<void> {
  const offsets = [...checkpoint.nextOffsets];
  const counters = offsets.map((_, partition) => new ReadBackCounter(partition, checkpoint.at));
  let seen = checkpoint.at;
  let closing: Promise<void> | null = null;
  const close = (): void => {
    closing ??= reader.close();
  };
  signal.addEventListener('abort', close, { once: true });
  try {
    while (!signal.aborted) {
      const behind = partitionsAt(seen, counters).map((i) => [i, offsets[i] ?? 0n] as const);
      let isNew = false;
      for (const fetched of await reader.fetch(new Map(behind), { maxWaitMs: fetchMaxWaitMs })) {
        const counter = counters[fetched.partition];
        for (const record of await decoder.decode(fetched.records)) counter?.take(record);
        isNew ||= offsets[fetched.partition] !== fetched.nextOffset;
        offsets[fetched.partition] = fetched.nextOffset;
      }
      if (!isNew) listener.seenNothing();
      const lowest = lowestCheckpoint(counters);
      if (compareEpochLsn(lowest, seen) > 0) listener.seen(lowest);
      seen = lowest;
    }
  } catch (error) {
    // Closing the reader under a waiting fetch is how an abort ends it.
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', close);
    close();
    await closing;
  }
}

function lowestCheckpoint(counters: readonly ReadBackCounter[]): EpochLsn {
  return counters
    .map(({ checkpoint }) => checkpoint)
    .reduce((lowest, checkpoint) =>
      compareEpochLsn(checkpoint, lowest) < 0 ? checkpoint : lowest,
    );
}

/**
 * Only those that are furthest behind are read: a broker whose partitions are ahead would hold its
 * answer back until the next batch, and the others' with it.
 */
function partitionsAt(lowest: EpochLsn, counters: readonly ReadBackCounter[]): readonly number[] {
  return [...counters.keys()].filter((partition) => {
    const checkpoint = counters[partition]?.checkpoint;
    return checkpoint !== undefined && compareEpochLsn(checkpoint, lowest) === 0;
  });
}
