/**
 * Appends single records to partition 0 of a topic: the control log and the progress topic. A key
 * and a value flow in, the offset flows out once all in-sync replicas have it. A lost answer leads
 * to another try, so a record may stand there twice; readers of these topics take that. It is not
 * idempotent on purpose: duplicates are harmless there, and sequence numbers are one more state
 * that a failed send leaves unclear.
 */
import { encodeBatch, nextBatch, plainProducer } from './batch-encoder.ts';
import type { KafkaClient, TopicConnection } from './kafka-client.ts';
import {
  ClosedError,
  isConnectionLost,
  isMoved,
  isTooLarge,
  KafkaAnswerError,
  RecordTooLargeError,
} from './kafka-errors.ts';
import { produce } from './kafka-wire.ts';
import type { OutgoingRecord } from './log.ts';

export interface PlainProducer {
  append(key: string, value: string | null): Promise<{ readonly offset: bigint }>;
  close(): Promise<void>;
}

const partition = 0;

/** Eight tries with doubling pauses last about 10 s: an election, or the restart of a broker. */
const triesMax = 8;
const pauseFirstMs = 100;
const pauseMaxMs = 3_000;

class KafkaPlainProducer implements PlainProducer {
  readonly #client: KafkaClient;
  readonly #topic: string;
  #connection: TopicConnection | null = null;
  #isClosed = false;
  /** Appends happen one after the other, in the order of the calls. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(client: KafkaClient, topic: string) {
    this.#client = client;
    this.#topic = topic;
  }

  append(key: string, value: string | null): Promise<{ readonly offset: bigint }> {
    const record: OutgoingRecord = {
      partition,
      key: Buffer.from(key),
      value: value === null ? null : Buffer.from(value),
      headers: {},
    };
    const appended = this.#last.then(() => this.#appendWithRetry(record));
    // The caller sees the rejection; the queue only waits for the end.
    this.#last = appended.catch(() => undefined);
    return appended;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#disconnect();
  }

  async #appendWithRetry(record: OutgoingRecord): Promise<{ readonly offset: bigint }> {
    for (let tries = 1; ; tries += 1) {
      if (this.#isClosed) throw new ClosedError(`the producer of ${this.#topic}`);
      try {
        return { offset: await this.#appendOnce(record) };
      } catch (error) {
        // What a broken connection had half received must not be taken for the next answer.
        this.#disconnect();
        if (this.#isClosed) throw new ClosedError(`the producer of ${this.#topic}`);
        if (tries === triesMax || !isTransient(error)) throw this.#explain(error);
      }
      await this.#client.clock.sleep(Math.min(pauseFirstMs * 2 ** (tries - 1), pauseMaxMs));
    }
  }

  async #appendOnce(record: OutgoingRecord): Promise<bigint> {
    const connection = await this.#connected();
    const range = nextBatch([record], 0);
    const bytes = encodeBatch([record], range, plainProducer, this.#client.clock.nowMs());
    const request = produce(null, this.#topic, [{ partition, bytes }]);
    const leader = connection.leaders().get(partition) ?? -1;
    const [produced] = await connection.request(leader, request);
    const errorCode = produced?.errorCode ?? -1;
    if (produced !== undefined && errorCode === 0) return produced.baseOffset;
    const error = new KafkaAnswerError(errorCode, request.apiName);
    if (!isTooLarge(error)) throw error;
    throw new RecordTooLargeError(this.#topic, partition, range.sizeBytes, record.key, error);
  }

  async #connected(): Promise<TopicConnection> {
    if (this.#connection === null) {
      const connection = this.#client.connection(this.#topic);
      this.#connection = connection;
      await connection.open();
      return connection;
    }
    return this.#connection;
  }

  #disconnect(): void {
    this.#connection?.close();
    this.#connection = null;
  }

  #explain(error: unknown): Error {
    const context = { action: 'write', topic: this.#topic, transactionalId: null } as const;
    return this.#client.explain(error, context);
  }
}

function isTransient(error: unknown): boolean {
  return isConnectionLost(error) || isMoved(error) || isUndecided(error);
}

/** Refused or unanswered for want of replicas; appended again at worst. */
function isUndecided(error: unknown): boolean {
  return (
    error instanceof KafkaAnswerError &&
    /^(NOT_ENOUGH_REPLICAS|REQUEST_TIMED_OUT|NETWORK_EXCEPTION)/.test(error.errorName)
  );
}

export function createPlainProducer(client: KafkaClient, topic: string): PlainProducer {
  return new KafkaPlainProducer(client, topic);
}
