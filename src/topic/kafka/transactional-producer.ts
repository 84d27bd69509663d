/**
 * Writes whole transactions to the topic under one transactional id. Records flow in, offsets flow
 * out once the transaction is committed. Promises: what is not committed is never read; nothing is
 * written twice; order per partition is kept; and after the first rejection every call rejects.
 *
 * The protocol is spoken directly instead of through the producer of kafkajs. That one rolls its
 * sequence numbers back after a failed send and uses them again for other records, which the broker
 * then takes for duplicates: it acknowledges them, and they are absent from the log. Here a
 * sequence number is used for one batch of bytes and sent once. Only two things are retried: what a
 * coordinator refused before it did anything (it still writes the markers of the transaction
 * before, or is being moved), and what has no effect when done twice (joining a partition to the
 * open transaction). Neither a write nor a commit is ever retried: a lost answer leaves open
 * whether it happened, so the caller opens a new producer, which fences this one and ends its open
 * transaction, and reads the log.
 */
import { bug } from '../../errors/bug.ts';
import { transactionTimedOut } from '../../errors/prerequisite.ts';
import { partitionsChanged, topicRecreated } from '../../errors/topic.ts';
import type { OutgoingRecord, TransactionalProducer } from '../log.ts';
import { type BatchProducer, encodeBatch } from './batch-encoder.ts';
import type { KafkaClient, TopicConnection } from './client.ts';
import {
  ClosedError,
  isCoordinatorBusy,
  isFenced,
  isTooLarge,
  KafkaAnswerError,
} from './errors.ts';
import { type PlannedBatch, type ProducedTopic, ProducePlan, tooLarge } from './produce-plan.ts';
import {
  addPartitionsToTransaction,
  commitTransaction,
  findTransactionCoordinator,
  initProducerId,
  type PartitionBatch,
  type ProducerIdentity,
  produce,
} from './requests.ts';

interface TransactionalProducerOptions extends ProducedTopic {
  readonly transactionalId: string;
  /** After this the broker ends an open transaction by itself. */
  readonly transactionTimeoutMs?: number;
}

/** The default of the brokers' transaction.max.timeout.ms, their limit for ours. */
export const transactionTimeoutMsDefault = 900_000;

/**
 * Markers of a transaction are written within milliseconds, so the first retries are close
 * together; later ones are for a partition whose leader is being elected.
 */
const busyDelayFirstMs = 1;
const busyDelayFactor = 1.3;
const busyDelayMaxMs = 250;
/** Longer than an election or the start of a broker. */
const busyPatienceMs = 60_000;

/** Sequence numbers wrap at 2^31, as brokers expect. */
const sequenceCount = 2 ** 31;

interface PendingBatch extends PlannedBatch, PartitionBatch {}

class KafkaTransactionalProducer implements TransactionalProducer {
  readonly #client: KafkaClient;
  readonly #topic: string;
  readonly #produced: ProducedTopic;
  readonly #transactionalId: string;
  readonly #timeoutMs: number;
  readonly #connection: TopicConnection;
  /** The next sequence number of each partition. */
  readonly #sequences: Int32Array;
  /** Partitions that joined the open transaction. */
  readonly #joined = new Set<number>();
  readonly #lastOffsets: (bigint | null)[];
  /** The next record gets this offset or a later one: markers take offsets too. */
  readonly #nextOffsets: bigint[];
  #identity: ProducerIdentity | null = null;
  #coordinator = -1;
  #beganAtMs = 0;
  #failure: Error | null = null;
  #isBusy = false;

  constructor(client: KafkaClient, options: TransactionalProducerOptions) {
    this.#client = client;
    this.#topic = options.topic;
    this.#produced = options;
    this.#transactionalId = options.transactionalId;
    this.#timeoutMs = options.transactionTimeoutMs ?? transactionTimeoutMsDefault;
    this.#connection = client.connection(options.topic);
    this.#sequences = new Int32Array(options.partitions);
    this.#lastOffsets = new Array(options.partitions).fill(null);
    this.#nextOffsets = new Array(options.partitions).fill(0n);
  }

  open(): Promise<void> {
    return this.#once('open', async () => {
      if (this.#identity !== null) throw bug('open() was called twice');
      await this.#connection.open();
      this.#checkPartitions();
      this.#identity = await this.#whileBusy(async () => {
        const request = initProducerId(this.#transactionalId, this.#timeoutMs);
        const answer = await this.#connection.request(await this.#findCoordinator(), request);
        throwIfError(answer.errorCode, request.apiName);
        return { producerId: answer.producerId, producerEpoch: answer.producerEpoch };
      });
    });
  }

  send(records: readonly OutgoingRecord[]): Promise<void> {
    return this.#once('send', async () => {
      const identity = this.#opened();
      const plan = new ProducePlan(this.#produced, records);
      await this.#join(identity, plan.partitions);
      for (;;) {
        const round = this.#nextRound(identity, plan);
        if (round.length === 0) return;
        // rule: write-is-not-repeated
        await this.#produceRound(round);
      }
    });
  }

  commit(): Promise<readonly (bigint | null)[]> {
    return this.#once('commit', async () => {
      const identity = this.#opened();
      const committed = [...this.#lastOffsets];
      if (this.#joined.size === 0) return committed;
      const request = commitTransaction(this.#transactionalId, identity);
      // rule: lost-answer-is-no-commit
      const answer = await this.#connection.request(this.#coordinator, request);
      throwIfError(answer.errorCode, request.apiName);
      this.#joined.clear();
      this.#lastOffsets.fill(null);
      return committed;
    });
  }

  async close(): Promise<void> {
    this.#failure ??= new ClosedError(`the producer ${this.#transactionalId}`);
    this.#connection.close();
  }

  /** Runs one call at a time; the first that fails is the last. */
  async #once<T>(name: string, step: () => Promise<T>): Promise<T> {
    // rule: failed-producer-is-not-reused
    if (this.#failure !== null) throw this.#failure;
    if (this.#isBusy) throw this.#die(bug(`${name}() was called while another call ran`));
    this.#isBusy = true;
    try {
      return await step();
    } catch (error) {
      throw this.#die(error);
    } finally {
      this.#isBusy = false;
    }
  }

  // rule: failure-ends-producer
  #die(error: unknown): Error {
    this.#failure ??= this.#explain(error);
    this.#connection.close();
    return this.#failure;
  }

  #explain(error: unknown): Error {
    const openMs = this.#client.clock.nowMs() - this.#beganAtMs;
    if (isFenced(error) && this.#joined.size > 0 && openMs >= this.#timeoutMs) {
      return transactionTimedOut(openMs, this.#timeoutMs, error);
    }
    return this.#client.explain(error, {
      action: 'write',
      topic: this.#topic,
      transactionalId: this.#transactionalId,
    });
  }

  #opened(): ProducerIdentity {
    if (this.#identity === null) throw bug('the producer was used before open()');
    return this.#identity;
  }

  #checkPartitions(): void {
    const found = this.#connection.leaders().size;
    const expected = this.#sequences.length;
    if (found !== expected) throw partitionsChanged({ topic: this.#topic, found, expected });
  }

  async #findCoordinator(): Promise<number> {
    const request = findTransactionCoordinator(this.#transactionalId);
    const answer = await this.#connection.requestAny(request);
    throwIfError(answer.errorCode, request.apiName);
    this.#coordinator = answer.nodeId;
    return answer.nodeId;
  }

  /** For steps that a busy coordinator refuses before it does anything. */
  async #whileBusy<T>(step: () => Promise<T>): Promise<T> {
    const { nowMs, sleep } = this.#client.clock;
    const deadlineMs = nowMs() + busyPatienceMs;
    for (let delayMs = busyDelayFirstMs; ; delayMs *= busyDelayFactor) {
      try {
        return await step();
      } catch (error) {
        if (!isCoordinatorBusy(error) || nowMs() > deadlineMs) throw error;
        if (this.#failure !== null) throw this.#failure;
        await sleep(Math.min(delayMs, busyDelayMaxMs));
      }
    }
  }

  /** Adds partitions to the open transaction, before anything is written to them. */
  async #join(identity: ProducerIdentity, touched: readonly number[]): Promise<void> {
    const added = touched.filter((partition) => !this.#joined.has(partition));
    if (added.length === 0) return;
    if (this.#joined.size === 0) this.#beganAtMs = this.#client.clock.nowMs();
    const { apiName, ...rest } = addPartitionsToTransaction(
      this.#transactionalId,
      identity,
      this.#topic,
      added,
    );
    await this.#whileBusy(async () => {
      const answer = await this.#connection.request(this.#coordinator, { apiName, ...rest });
      const failed = answer.find(({ errorCode }) => errorCode !== 0);
      if (failed === undefined) return;
      const error = new KafkaAnswerError(failed.errorCode, apiName);
      if (error.errorName === 'NOT_COORDINATOR') await this.#findCoordinator();
      throw error;
    });
    for (const partition of added) this.#joined.add(partition);
  }

  /** The next batch of each partition, as many as one request takes. */
  #nextRound(identity: ProducerIdentity, plan: ProducePlan): PendingBatch[] {
    const round: PendingBatch[] = [];
    for (const { partition, records, range } of plan.nextRound()) {
      const baseSequence = this.#takeSequence(partition, range.end - range.start);
      const producer: BatchProducer = { ...identity, baseSequence, transactional: true };
      const bytes = encodeBatch(records, range, producer, this.#client.clock.nowMs());
      round.push({ partition, records, range, bytes });
    }
    return round;
  }

  #takeSequence(partition: number, count: number): number {
    const sequence = this.#sequences[partition] as number;
    this.#sequences[partition] = (sequence + count) % sequenceCount;
    return sequence;
  }

  /** One request per leader, at once; every batch of the round must be taken. */
  async #produceRound(round: readonly PendingBatch[]): Promise<void> {
    const leaders = this.#connection.leaders();
    const perLeader = new Map<number, PendingBatch[]>();
    for (const batch of round) {
      const leader = leaders.get(batch.partition) ?? -1;
      perLeader.set(leader, [...(perLeader.get(leader) ?? []), batch]);
    }
    await Promise.all(
      Array.from(perLeader, ([leader, batches]) => this.#produceTo(leader, batches)),
    );
  }

  async #produceTo(leader: number, batches: readonly PendingBatch[]): Promise<void> {
    const request = produce(this.#transactionalId, this.#topic, batches);
    const answer = await this.#connection.request(leader, request);
    for (const batch of batches) {
      const { partition, range } = batch;
      const produced = answer.find((one) => one.partition === partition);
      if (produced === undefined) throw bug(`no answer for partition ${partition}`);
      if (produced.errorCode !== 0) {
        const error = new KafkaAnswerError(produced.errorCode, request.apiName);
        throw isTooLarge(error) ? tooLarge(this.#produced, batch, error) : error;
      }
      this.#requireLater(partition, produced.baseOffset);
      const next = produced.baseOffset + BigInt(range.end - range.start);
      this.#lastOffsets[partition] = next - 1n;
      this.#nextOffsets[partition] = next;
    }
  }

  /** A log that goes backwards has lost committed records, or is another one of the same name. */
  #requireLater(partition: number, offset: bigint): void {
    const due = this.#nextOffsets[partition] ?? 0n;
    // rule: offsets-only-grow
    if (offset >= due) return;
    const topic = this.#topic;
    throw topicRecreated(
      `${topic} wrote at offset ${offset} of partition ${partition}, where ${due} is next`,
      { topic, partition, offset: String(offset), expected: String(due) },
    );
  }
}

function throwIfError(errorCode: number, apiName: string): void {
  if (errorCode !== 0) throw new KafkaAnswerError(errorCode, apiName);
}

/** Nothing is connected before open(). */
export function createTransactionalProducer(
  client: KafkaClient,
  options: TransactionalProducerOptions,
): TransactionalProducer {
  return new KafkaTransactionalProducer(client, options);
}
