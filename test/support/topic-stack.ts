/**
 * Topics for the tests that talk to Kafka. Flows in: a stack. Flows out: a client, topics of a
 * name of their own, producers and readers on them; at `close` all of them are closed and deleted.
 */

import kafkajs from 'kafkajs';
import { createTopic, deleteTopic } from '../../src/topic/kafka/admin.ts';
import { connectKafka, type KafkaClient } from '../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../src/topic/kafka/committed-reader.ts';
import { createTransactionalProducer } from '../../src/topic/kafka/transactional-producer.ts';
import type {
  CommittedReader,
  FetchedRecord,
  OutgoingRecord,
  TransactionalProducer,
} from '../../src/topic/log.ts';
import { type Stack, useStack } from './stack.ts';
import { until } from './until.ts';

/** Warnings and errors of the code under test appear in the output of the test. */
export const testLog = {
  debug: () => undefined,
  info: () => undefined,
  warn: (fields: object, message: string) => console.error('warn', message, fields),
  error: (fields: object, message: string) => console.error('error', message, fields),
};

const waitMs = 200;

export class TopicStack {
  readonly stack: Stack;
  readonly client: KafkaClient;
  readonly #topics: string[] = [];
  readonly #open: { close(): Promise<void> }[] = [];

  constructor(stack: Stack) {
    this.stack = stack;
    this.client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  }

  async topic(
    partitions: number,
    settings: Readonly<Record<string, string>> = {},
  ): Promise<string> {
    const topic = this.stack.uniqueName('topic-');
    this.#topics.push(topic);
    await this.#create(topic, partitions, settings);
    return topic;
  }

  /** Deletes the topic and creates it again: it is empty. */
  async recreate(topic: string, partitions: number): Promise<void> {
    await deleteTopic(this.client, topic);
    await this.#create(topic, partitions, {});
  }

  async #create(
    topic: string,
    partitions: number,
    settings: Readonly<Record<string, string>>,
  ): Promise<void> {
    const wanted = { 'message.timestamp.type': 'LogAppendTime', ...settings };
    await createTopic(this.client, { topic, partitions, replication: 1, settings: wanted });
  }

  /** Not opened. */
  producer(
    topic: string,
    partitions: number,
    client = this.client,
    transactionalId = topic,
  ): TransactionalProducer {
    const recordName = (key: Buffer): string => key.toString();
    const options = { topic, partitions, transactionalId, recordName };
    const producer = createTransactionalProducer(client, options);
    this.#open.push(producer);
    return producer;
  }

  reader(topic: string, partitions: number, client = this.client): CommittedReader {
    const reader = createCommittedReader(client, { topic, partitions });
    this.#open.push(reader);
    return reader;
  }

  async close(): Promise<void> {
    await Promise.all(this.#open.map((one) => one.close()));
    await Promise.all(this.#topics.map((topic) => deleteTopic(this.client, topic)));
    await this.stack.close();
  }
}

export async function useTopics(): Promise<TopicStack> {
  return new TopicStack(await useStack({ postgres: 0 }));
}

export function record(partition: number, key: string, value: string | null): OutgoingRecord {
  const bytes = value === null ? null : Buffer.from(value);
  return { partition, key: Buffer.from(key), value: bytes, headers: { position: 'test' } };
}

/** Records as `key=value`, `key=` for a tombstone. */
export function texts(records: readonly FetchedRecord[]): readonly string[] {
  return records.map(({ key, value }) => `${key}=${value ?? ''}`);
}

/** All committed records of the partition from its start, once the last stable offset is there. */
export async function readUpTo(
  reader: CommittedReader,
  partition: number,
  upto: bigint,
): Promise<{ readonly records: readonly FetchedRecord[]; readonly nextOffset: bigint }> {
  const records: FetchedRecord[] = [];
  let nextOffset = 0n;
  const fetchNext = async (): Promise<bigint> => {
    if (nextOffset >= upto) return nextOffset;
    const [fetched] = await reader.fetch(new Map([[partition, nextOffset]]), { maxWaitMs: waitMs });
    if (fetched === undefined) throw new Error('a named partition is missing');
    records.push(...fetched.records);
    nextOffset = fetched.nextOffset;
    return nextOffset;
  };
  await until(`offset ${upto} of partition ${partition}`, fetchNext, {
    ...{ pollMs: 0, reached: (offset) => offset >= upto },
  });
  return { records, nextOffset };
}

/** Last stable offsets once they are past the given offset in every partition. */
export async function stableOffsets(
  reader: CommittedReader,
  past: bigint,
): Promise<readonly bigint[]> {
  const read = async (): Promise<readonly bigint[]> => {
    return (await reader.watermarks()).map(({ lastStableOffset }) => lastStableOffset);
  };
  const reached = (offsets: readonly bigint[]): boolean => offsets.every((one) => one > past);
  return until(`stable offsets past ${past}`, read, { reached });
}

/** The error a promise rejects with; a promise that resolves fails the test. */
export async function rejection(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Error)) throw new Error('resolved, although it had to reject');
  return error;
}

/** Sets a topic's settings to exactly these; all others become the brokers' defaults. */
export async function replaceSettings(
  client: KafkaClient,
  topic: string,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  const admin = client.kafkajs.admin();
  await admin.connect();
  try {
    const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }));
    const type = kafkajs.ConfigResourceTypes.TOPIC;
    const resources = [{ type, name: topic, configEntries }];
    await admin.alterConfigs({ validateOnly: false, resources });
  } finally {
    await admin.disconnect();
  }
}
