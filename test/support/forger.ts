/**
 * A program that writes to a cluster's topic and should not: under the publisher's own
 * transactional id, as a publisher whose transaction was torn, or under another one. It commits
 * records that look like the leader's, made from rows that are in the log already.
 */
import type { Point } from '../../src/change/change.ts';
import { toLsn } from '../../src/change/lsn.ts';
import type { Position } from '../../src/change/position.ts';
import { connectKafka, type KafkaClient } from '../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../src/topic/kafka/committed-reader.ts';
import { createTransactionalProducer } from '../../src/topic/kafka/transactional-producer.ts';
import type { FetchedRecord, OutgoingRecord } from '../../src/topic/log.ts';
import { readLogEnd } from '../../src/topic/log-end.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';
import { encodePositionHeader, PositionHeaderDecoder } from '../../src/topic/records/headers.ts';
import { changesTopic, transactionalId } from '../../src/topic/records/layout.ts';
import { connectRegistry } from '../../src/topic/schema-registry.ts';
import { shapeOf } from './builders.ts';
import type { Fleet } from './fleet.ts';
import { readUpTo, testLog } from './topic-stack.ts';

export class Forger {
  readonly #kafka: KafkaClient;
  readonly #registryUrl: string;
  readonly #cluster: string;
  readonly #topic: string;
  readonly #partitions: number;

  constructor(fleet: Fleet) {
    this.#kafka = connectKafka({ brokers: fleet.brokers, clientId: 'forger' }, testLog);
    this.#registryUrl = fleet.registryUrl;
    this.#cluster = fleet.cluster;
    this.#topic = changesTopic(fleet.cluster);
    this.#partitions = fleet.partitions;
  }

  /** The last point of a log at rest. */
  async lastPoint(): Promise<Point> {
    return this.#reading(async (reader) => {
      const registry = connectRegistry({ url: this.#registryUrl }, testLog);
      const decoder = new RecordDecoder(registry);
      const { point } = await readLogEnd(reader, decoder, await reader.watermarks());
      if (point === null) throw new Error('the log does not end in a point');
      return point;
    });
  }

  /** The first version of a row of each partition, as it is in the log. */
  async firstVersions(): Promise<readonly FetchedRecord[]> {
    return this.#reading(async (reader) => {
      const ends = await reader.watermarks();
      const rows: FetchedRecord[] = [];
      for (const { partition, lastStableOffset } of ends) {
        const { records } = await readUpTo(reader, partition, lastStableOffset);
        const created = records.find((record) => positionOf(record).op === 'c');
        if (created === undefined) throw new Error(`no row was inserted in partition ${partition}`);
        rows.push(created);
      }
      return rows;
    });
  }

  /** What the log holds from these offsets on, to be written once more. */
  async recordsFrom(offsets: readonly bigint[]): Promise<readonly OutgoingRecord[]> {
    return this.#reading(async (reader) => {
      const found: OutgoingRecord[] = [];
      for (const { partition, lastStableOffset } of await reader.watermarks()) {
        const { records } = await readUpTo(reader, partition, lastStableOffset);
        const behind = records.filter(({ offset }) => offset >= (offsets[partition] ?? 0n));
        found.push(...behind.map((record) => ({ ...record, headers: textsOf(record.headers) })));
      }
      return found;
    });
  }

  /** Commits the records in one transaction. */
  async commit(who: 'publisher' | 'stranger', records: readonly OutgoingRecord[]): Promise<void> {
    const id = who === 'publisher' ? transactionalId(this.#cluster) : `${this.#topic}-stranger`;
    const producer = createTransactionalProducer(this.#kafka, {
      topic: this.#topic,
      partitions: this.#partitions,
      transactionalId: id,
    });
    try {
      await producer.open();
      await producer.send(records);
      await producer.commit();
    } finally {
      await producer.close();
    }
  }

  /** The same point in every partition, made from the one it continues. */
  async pointAfter(
    last: Point,
    counts: readonly number[],
    walBytes = 8n,
  ): Promise<OutgoingRecord[]> {
    const { topic, registry } = {
      topic: this.#topic,
      registry: connectRegistry({ url: this.#registryUrl }, testLog),
    };
    const partitions = this.#partitions;
    const encoder = await RecordEncoder.open({ topic, partitions, registry });
    const nextOffsets = await this.#reading(async (reader) => {
      return (await reader.watermarks()).map(({ lastStableOffset }) => lastStableOffset);
    });
    const previous = { at: { epoch: last.epoch, lsn: last.upto }, nextOffsets };
    const upto = toLsn(last.upto + walBytes);
    return encoder.encodePoint({ ...last, commit: last.upto, upto, counts, previous });
  }

  /** A truncate in every partition, as if a transaction right after the point had made it. */
  async truncateAfter(last: Point, relationId: string): Promise<OutgoingRecord[]> {
    const registry = connectRegistry({ url: this.#registryUrl }, testLog);
    const options = { topic: this.#topic, partitions: this.#partitions, registry };
    const encoder = await RecordEncoder.open(options);
    const relation = shapeOf(relationId, 'id integer');
    const position: Position = { epoch: last.epoch, commitLsn: last.upto, ordinal: 0 };
    return encoder.encode({ kind: 'truncate', relation }, position, last.commitTimeMicros);
  }

  async #reading<T>(
    work: (reader: ReturnType<typeof createCommittedReader>) => Promise<T>,
  ): Promise<T> {
    const options = { topic: this.#topic, partitions: this.#partitions };
    const reader = createCommittedReader(this.#kafka, options);
    try {
      return await work(reader);
    } finally {
      await reader.close();
    }
  }
}

function textsOf(headers: FetchedRecord['headers']): OutgoingRecord['headers'] {
  return Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, String(text)]));
}

function positionOf(record: FetchedRecord) {
  return new PositionHeaderDecoder().decode(record.headers['position']);
}

/** The row once more, as if a transaction that commits right after the point had written it. */
export function againAfter(point: Point, record: FetchedRecord): OutgoingRecord {
  const { partition, key, value } = record;
  const { commitTimeMicros } = positionOf(record);
  const position: Position = { epoch: point.epoch, commitLsn: point.upto, ordinal: 0 };
  const header = encodePositionHeader({ op: 'u', position, commitTimeMicros });
  return { partition, key, value, headers: { position: header } };
}
