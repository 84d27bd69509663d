/**
 * Divides records into produce requests. Records of any partitions flow in, rounds of one batch per
 * partition flow out, bounded in bytes; the order within a partition is kept. Decides what is too
 * large and names the record.
 */
import { bug } from '../../errors/bug.ts';
import { batchTooLarge, recordTooLarge } from '../../errors/topic.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import type { OutgoingRecord } from '../log.ts';
import { type BatchRange, nextBatch } from './batch-encoder.ts';

/** No record is larger: with its request it would pass the brokers' socket.request.max.bytes. */
export const recordBytesMax = 99 * 1024 * 1024;

/** No request is larger, unless by a single record: brokers refuse above 100 MB by default. */
const requestBytesMax = 16 * 1024 * 1024;

/** Where a producer writes. */
export interface ProducedTopic {
  readonly topic: string;
  /** How many partitions the topic has. */
  readonly partitions: number;
  /** Names a record by its key, for an error message; null for a key of unknown form. */
  readonly recordName?: (key: Buffer) => string | null;
}

export interface PlannedBatch {
  readonly partition: number;
  /** All records of the partition; `range` says which of them are in the batch. */
  readonly records: readonly OutgoingRecord[];
  readonly range: BatchRange;
}

export class ProducePlan {
  readonly #topic: ProducedTopic;
  readonly #perPartition = new Map<number, OutgoingRecord[]>();
  /** Per partition, how many records were planned. */
  readonly #planned = new Map<number, number>();

  constructor(topic: ProducedTopic, records: readonly OutgoingRecord[]) {
    this.#topic = topic;
    for (const record of records) {
      const group = this.#perPartition.get(record.partition);
      if (group !== undefined) {
        group.push(record);
      } else if (record.partition >= 0 && record.partition < topic.partitions) {
        this.#perPartition.set(record.partition, [record]);
      } else {
        const message = `partition ${record.partition} of ${topic.topic} does not exist`;
        throw bug(message);
      }
    }
  }

  get partitions(): readonly number[] {
    return [...this.#perPartition.keys()];
  }

  /** What goes into the next request; empty when all was planned. */
  nextRound(): readonly PlannedBatch[] {
    const round: PlannedBatch[] = [];
    let sizeBytes = 0;
    for (const [partition, records] of this.#perPartition) {
      const start = this.#planned.get(partition) ?? 0;
      if (start === records.length) continue;
      const range = nextBatch(records, start);
      const batch = { partition, records, range };
      if (range.sizeBytes > recordBytesMax) throw tooLarge(this.#topic, batch);
      if (round.length > 0 && sizeBytes + range.sizeBytes > requestBytesMax) break;
      sizeBytes += range.sizeBytes;
      this.#planned.set(partition, range.end);
      round.push(batch);
    }
    return round;
  }
}

/** For a batch that is refused for its size: a single record is named. */
export function tooLarge(
  { topic, recordName }: ProducedTopic,
  { partition, records, range }: PlannedBatch,
  cause?: unknown,
): UnderstudyError {
  const { start, end, sizeBytes } = range;
  const first = records[start];
  if (end - start > 1 || first === undefined) {
    return batchTooLarge({ topic, partition, sizeBytes }, cause);
  }
  const record = recordName?.(first.key) ?? 'a record';
  return recordTooLarge({ topic, partition, sizeBytes, record, recordBytesMax }, cause);
}
