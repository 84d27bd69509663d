/**
 * Appends single records to partition 0 of a topic: the control log. A call resolves with the
 * offset once all in-sync replicas have the record, and writes it at most once: a record that may
 * have reached the log is never sent again, because a claim that is in the log twice, with a
 * rival's in between, would count at another offset after compaction than before. A rejection
 * leaves open whether the record is in the log; a caller that needs to know reads the log.
 */
import { recordTooLarge } from '../../errors/topic.ts';
import { boundedDelayMs } from '../../waiting.ts';
import type { OutgoingRecord } from '../log.ts';
import { encodeBatch, nextBatch, plainProducer } from './batch-encoder.ts';
import type { KafkaClient, TopicConnection } from './client.ts';
import { ClosedError, isConnectionLost, isMoved, isTooLarge, KafkaAnswerError } from './errors.ts';
import { recordBytesMax } from './produce-plan.ts';
import { produce } from './requests.ts';

interface PlainProducer {
  append(key: string, value: string | null): Promise<{ readonly offset: bigint }>;
  close(): Promise<void>;
}

const partition = 0;

/** Nine attempts last 6 to 12 s together: an election, or the restart of a broker. */
const attemptsMax = 9;
const pauses = { baseMs: 100, capMs: 3_000 };

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
    for (let attempts = 1; ; attempts += 1) {
      if (this.#isClosed) throw new ClosedError(`the producer of ${this.#topic}`);
      let isSent = false;
      try {
        const connection = await this.#connected();
        isSent = true;
        return { offset: await this.#appendOnce(connection, record) };
      } catch (error) {
        // A half received answer of a broken connection must not be taken for the next one.
        this.#disconnect();
        if (this.#isClosed) throw new ClosedError(`the producer of ${this.#topic}`);
        const isSafe = isSent ? isRefusal(error) : isConnectionLost(error) || isMoved(error);
        if (attempts === attemptsMax || !isSafe) throw this.#explain(error);
      }
      const { sleep, random } = this.#client.clock;
      await sleep(boundedDelayMs(attempts, pauses, random));
    }
  }

  async #appendOnce(connection: TopicConnection, record: OutgoingRecord): Promise<bigint> {
    const range = nextBatch([record], 0);
    const bytes = encodeBatch([record], range, plainProducer, this.#client.clock.nowMs());
    const request = produce(null, this.#topic, [{ partition, bytes }]);
    const leader = connection.leaders().get(partition) ?? -1;
    const [produced] = await connection.request(leader, request);
    const errorCode = produced?.errorCode ?? -1;
    if (produced !== undefined && errorCode === 0) return produced.baseOffset;
    const error = new KafkaAnswerError(errorCode, request.apiName);
    if (!isTooLarge(error)) throw error;
    const { sizeBytes } = range;
    const topic = this.#topic;
    throw recordTooLarge(
      { topic, partition, sizeBytes, record: `the record ${record.key}`, recordBytesMax },
      error,
    );
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

/**
 * Answers that a broker gives before it appends anything. NOT_LEADER is not one of them: a broker
 * also gives it when it stops being the leader after it has appended.
 */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof KafkaAnswerError)) return false;
  return ['NOT_ENOUGH_REPLICAS', 'UNKNOWN_TOPIC_OR_PARTITION'].includes(error.errorName);
}

export function createPlainProducer(client: KafkaClient, topic: string): PlainProducer {
  return new KafkaPlainProducer(client, topic);
}
