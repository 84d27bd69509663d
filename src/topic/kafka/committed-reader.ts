/**
 * Reads committed records at offsets the caller names, without a consumer group: a group member
 * rejoins by itself after a pause or a move of a leader, and then starts at the offset of its
 * group, not at the one in the position row. Offsets flow in, records and the next offsets flow
 * out. Promises: an offset that is not in the log is an error and never a reset; markers and
 * aborted records are passed over; `nextOffset` is always past everything that was read.
 *
 * After the move of a leader or a broken connection it reconnects and refreshes the metadata, a
 * bounded number of times; what other partitions answered meanwhile is kept.
 */

import { offsetMissing } from '../../errors/node-damage.ts';
import { partitionMissing, topicRecreated } from '../../errors/topic.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import { boundedDelayMs, interruptible } from '../../waiting.ts';
import type { CommittedReader, FetchedPartition, Watermarks } from '../log.ts';
import { decodeBatches } from './batch-decoder.ts';
import type { KafkaClient, TopicConnection } from './client.ts';
import { answerName, ClosedError, isConnectionLost, isMoved, KafkaAnswerError } from './errors.ts';
import { fetchCommitted, type RawPartition } from './fetch.ts';
import { listOffsets, type offsetOf } from './requests.ts';

interface CommittedReaderOptions {
  readonly topic: string;
  readonly partitions: number;
}

/** Per partition and fetch: some 10,000 small rows, which cost ten times as much once decoded. */
const partitionBytesDefault = 1024 * 1024;

/** A new topic is unknown to some brokers for moments; a missing one stays so. */
const attemptsUnknownMax = 6;

/** Fourteen attempts last 9 to 17 s together: an election, or the restart of a broker. */
const attemptsMax = 14;
const pauses = { baseMs: 50, capMs: 2_000 };

/** Longer than a broker takes after a restart to recover the end of its log. */
const behindPatienceMs = 20_000;
const behindPauseMs = 250;
/** Enough for a broker that has just begun to lead a partition. */
const wrongAnswerPauseMs = 250;

/** Adds answers to `into`; after an error those of other partitions stay there. */
type Ask<T> = (
  connection: TopicConnection,
  leader: number,
  partitions: readonly number[],
  into: Map<number, T>,
) => Promise<void>;

class KafkaCommittedReader implements CommittedReader {
  readonly #client: KafkaClient;
  readonly #topic: string;
  readonly #partitions: readonly number[];
  /** Aborted by close(), with a ClosedError as its reason: it ends every wait. */
  readonly #closing = new AbortController();
  #connection: TopicConnection | null = null;
  #opening: Promise<void> | null = null;
  /** Rotates the partition that a fetch names first: an answer may end before the last one. */
  #turn = 0;

  constructor(client: KafkaClient, options: CommittedReaderOptions) {
    this.#client = client;
    this.#topic = options.topic;
    this.#partitions = Array.from({ length: options.partitions }, (_, partition) => partition);
  }

  async watermarks(): Promise<readonly Watermarks[]> {
    const [first, lastStable] = await Promise.all([
      this.#offsets('first'),
      this.#offsets('lastStable'),
    ]);
    return this.#partitions.map((partition) => ({
      partition,
      lowWatermark: first.get(partition) as bigint,
      lastStableOffset: lastStable.get(partition) as bigint,
    }));
  }

  /**
   * An answer that cannot be right is asked for once more, over another connection: one that was
   * changed on its way, or came from a broker that has just begun to lead, is no evidence.
   */
  async fetch(
    from: ReadonlyMap<number, bigint>,
    options: { readonly maxWaitMs: number; readonly maxBytes?: number },
  ): Promise<readonly FetchedPartition[]> {
    try {
      return await this.#fetchOnce(from, options);
    } catch (error) {
      // rule: wrong-answer-fetched-twice
      if (!hasCode(error, 'NODE_DAMAGED')) throw error;
      const { clock, log } = this.#client;
      log.warn({ topic: this.#topic, error }, 'a broker gave a wrong answer, fetching once more');
      this.#disconnect();
      await interruptible(clock.sleep(wrongAnswerPauseMs), this.#closing.signal);
      return this.#fetchOnce(from, options);
    }
  }

  async #fetchOnce(
    from: ReadonlyMap<number, bigint>,
    options: { readonly maxWaitMs: number; readonly maxBytes?: number },
  ): Promise<readonly FetchedPartition[]> {
    const named = [...from.keys()];
    this.#turn += 1;
    const first = this.#turn % Math.max(1, named.length);
    const inTurn = [...named.slice(first), ...named.slice(0, first)];
    const bytesMax = options.maxBytes ?? partitionBytesDefault;
    // rule: expired-offset-is-an-error
    const answers = await this.#ask<FetchedPartition>(
      inTurn,
      async (connection, leader, asked, into) => {
        const offsets = asked.map((partition) => [partition, from.get(partition) ?? 0n] as const);
        const request = fetchCommitted(this.#topic, offsets, options.maxWaitMs, bytesMax);
        const answer = await connection.request(leader, request);
        if (answer.errorCode !== 0) throw new KafkaAnswerError(answer.errorCode, request.apiName);
        let failed: KafkaAnswerError | null = null;
        for (const raw of answer.partitions) {
          if (raw.errorCode === 0) into.set(raw.partition, this.#decode(raw, from, leader));
          else failed ??= new KafkaAnswerError(raw.errorCode, request.apiName);
        }
        if (failed !== null) throw failed;
      },
    ).catch((error: unknown) => this.#explainFetch(error, from));
    const fetched = named.map((partition) => answers.get(partition) as FetchedPartition);
    // rule: log-reaches-what-was-read
    if (fetched.some((one) => isBehind(one, from))) await this.#requireReached(from);
    return fetched;
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new ClosedError(`the reader of ${this.#topic}`));
    this.#disconnect();
  }

  #decode(raw: RawPartition, from: ReadonlyMap<number, bigint>, broker: number): FetchedPartition {
    const { partition, lowWatermark, lastStableOffset } = raw;
    const offset = from.get(partition) ?? 0n;
    const decoded = decodeBatches(raw.batches, raw.aborted, {
      topic: this.#topic,
      partition,
      offset,
    });
    return { partition, lowWatermark, lastStableOffset, broker, ...decoded };
  }

  #offsets(which: keyof typeof offsetOf): Promise<ReadonlyMap<number, bigint>> {
    return this.#ask<bigint>(this.#partitions, async (connection, leader, asked, into) => {
      const request = listOffsets(this.#topic, asked, which);
      const answer = await connection.request(leader, request);
      for (const { partition, errorCode, offset } of answer) {
        if (errorCode !== 0) throw new KafkaAnswerError(errorCode, request.apiName);
        into.set(partition, offset);
      }
    }).catch((error: unknown) => {
      throw this.#explain(error);
    });
  }

  /** Asks all leaders at once, until each partition is answered or the attempts are used up. */
  async #ask<T>(partitions: readonly number[], ask: Ask<T>): Promise<ReadonlyMap<number, T>> {
    const { signal } = this.#closing;
    const answers = new Map<number, T>();
    for (let attempts = 1; ; attempts += 1) {
      signal.throwIfAborted();
      const missing = partitions.filter((partition) => !answers.has(partition));
      try {
        await interruptible(this.#askLeaders(missing, ask, answers), signal);
        return answers;
      } catch (error) {
        signal.throwIfAborted();
        const isLost = isConnectionLost(error);
        // A half received answer of a broken connection must not be taken for the next one.
        if (isLost) this.#disconnect();
        if (attempts >= attemptsFor(error) || !(isLost || isMoved(error))) throw error;
        this.#client.log.debug({ topic: this.#topic, attempts, error }, 'read failed, retrying');
      }
      const { sleep, random } = this.#client.clock;
      await interruptible(sleep(boundedDelayMs(attempts, pauses, random)), signal);
      await this.#refreshLeaders();
    }
  }

  async #askLeaders<T>(
    partitions: readonly number[],
    ask: Ask<T>,
    into: Map<number, T>,
  ): Promise<void> {
    const connection = await this.#connected();
    const leaders = connection.leaders();
    const perLeader = new Map<number, number[]>();
    for (const partition of partitions) {
      const leader = leaders.get(partition);
      if (leader === undefined)
        throw partitionMissing({ topic: this.#topic, partition, found: leaders.size });
      const group = perLeader.get(leader);
      if (group === undefined) perLeader.set(leader, [partition]);
      else group.push(partition);
    }
    const asked = Array.from(perLeader, ([leader, group]) => ask(connection, leader, group, into));
    // Waits for all of them, so that no answer arrives in a later call.
    const outcomes = await Promise.allSettled(asked);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    for (const partition of partitions) {
      if (!into.has(partition)) throw new KafkaAnswerError(unanswered, 'Fetch');
    }
  }

  async #connected(): Promise<TopicConnection> {
    if (this.#connection === null) {
      this.#connection = this.#client.connection(this.#topic);
      this.#opening = this.#connection.open();
    }
    const connection = this.#connection;
    try {
      await this.#opening;
    } catch (error) {
      if (this.#connection === connection) this.#disconnect();
      throw error;
    }
    return connection;
  }

  #disconnect(): void {
    this.#connection?.close();
    this.#connection = null;
    this.#opening = null;
  }

  /** After a failure the next attempt fails in the same way, and reports it. */
  async #refreshLeaders(): Promise<void> {
    await this.#connection?.refreshMetadata().catch(() => this.#disconnect());
  }

  /**
   * A broker returns nothing where the log ends below the offset of the fetch and an open
   * transaction reaches past it. A broker that has just restarted may be behind for moments; a
   * topic that was re-created stays behind, and the fetch would be repeated for ever.
   */
  async #requireReached(from: ReadonlyMap<number, bigint>): Promise<void> {
    const topic = this.#topic;
    const { sleep, nowMs } = this.#client.clock;
    const deadlineMs = nowMs() + behindPatienceMs;
    for (;;) {
      const behind = (await this.watermarks()).find((limit) => isBehind(limit, from));
      if (behind === undefined) return;
      const { partition, lastStableOffset } = behind;
      if (nowMs() > deadlineMs) {
        const before = from.get(partition) ?? 0n;
        throw topicRecreated(
          `${topic} partition ${partition} can be read up to offset ${lastStableOffset}, and ` +
            `was up to ${before} before`,
          { topic, partition, end: String(lastStableOffset), before: String(before) },
        );
      }
      await interruptible(sleep(behindPauseMs), this.#closing.signal);
    }
  }

  async #explainFetch(error: unknown, from: ReadonlyMap<number, bigint>): Promise<never> {
    if (!(error instanceof KafkaAnswerError) || error.errorName !== 'OFFSET_OUT_OF_RANGE') {
      throw this.#explain(error);
    }
    const limits = await this.watermarks();
    const [outside] = limits.filter((limit) => {
      const offset = from.get(limit.partition);
      if (offset === undefined) return false;
      return offset < limit.lowWatermark || offset > limit.lastStableOffset;
    });
    const topic = this.#topic;
    if (outside === undefined)
      throw offsetMissing(`an offset is not in ${topic}`, { topic }, error);
    const { partition, lowWatermark, lastStableOffset } = outside;
    const offset = from.get(partition);
    throw offsetMissing(
      `offset ${offset} is not in ${topic} partition ${partition}, which holds ${lowWatermark} ` +
        `to ${lastStableOffset}`,
      { topic, partition, offset: String(offset) },
      error,
    );
  }

  #explain(error: unknown): Error {
    const context = { action: 'read', topic: this.#topic, transactionalId: null } as const;
    return this.#client.explain(error, context);
  }
}

function isBehind(
  { partition, lastStableOffset }: Pick<Watermarks, 'partition' | 'lastStableOffset'>,
  from: ReadonlyMap<number, bigint>,
): boolean {
  return lastStableOffset < (from.get(partition) ?? 0n);
}

function attemptsFor(error: unknown): number {
  return answerName(error) === 'UNKNOWN_TOPIC_OR_PARTITION' ? attemptsUnknownMax : attemptsMax;
}

/** LEADER_NOT_AVAILABLE: a broker that leaves a partition out of its answer does not lead it. */
const unanswered = 5;

export function createCommittedReader(
  client: KafkaClient,
  options: CommittedReaderOptions,
): CommittedReader {
  return new KafkaCommittedReader(client, options);
}
