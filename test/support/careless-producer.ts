/**
 * A transactional producer as it must not be: after a commit without an answer it goes on under the
 * same identity, as the protocol lets it. Flows in: records and the wish to commit or abort; flows
 * out: whatever the brokers make of it. Tests show with it what the rules of ours are for.
 */
import { encodeBatch, nextBatch } from '../../src/topic/kafka/batch-encoder.ts';
import type { KafkaClient, TopicConnection } from '../../src/topic/kafka/client.ts';
import {
  addPartitionsToTransaction,
  commitTransaction,
  findTransactionCoordinator,
  initProducerId,
  type ProducerIdentity,
  produce,
} from '../../src/topic/kafka/requests.ts';
import type { OutgoingRecord } from '../../src/topic/log.ts';

const transactionTimeoutMs = 60_000;
const busyMs = 20;
const concurrentTransactions = 51;

export class CarelessProducer {
  readonly #connection: TopicConnection;
  readonly #topic: string;
  readonly #coordinator: number;
  readonly #identity: ProducerIdentity;
  readonly #sequences = new Map<number, number>();

  private constructor(
    connection: TopicConnection,
    topic: string,
    coordinator: number,
    identity: ProducerIdentity,
  ) {
    this.#connection = connection;
    this.#topic = topic;
    this.#coordinator = coordinator;
    this.#identity = identity;
  }

  /** Its transactional id is the name of the topic. */
  static async open(client: KafkaClient, topic: string): Promise<CarelessProducer> {
    const connection = client.connection(topic);
    await connection.open();
    const { nodeId } = await connection.requestAny(findTransactionCoordinator(topic));
    const init = initProducerId(topic, transactionTimeoutMs);
    const identity = await connection.request(nodeId, init);
    refuse(identity.errorCode);
    return new CarelessProducer(connection, topic, nodeId, identity);
  }

  async begin(partitions: readonly number[]): Promise<void> {
    const join = addPartitionsToTransaction(this.#topic, this.#identity, this.#topic, partitions);
    for (;;) {
      const answers = await this.#connection.request(this.#coordinator, join);
      const failed = answers.find(({ errorCode }) => errorCode !== 0)?.errorCode ?? 0;
      if (failed !== concurrentTransactions) {
        refuse(failed);
        return;
      }
      // The markers of the transaction before are still being written.
      await new Promise((resolve) => setTimeout(resolve, busyMs));
    }
  }

  async write(record: OutgoingRecord): Promise<void> {
    const { partition } = record;
    const baseSequence = this.#sequences.get(partition) ?? 0;
    this.#sequences.set(partition, baseSequence + 1);
    const range = nextBatch([record], 0);
    const producer = { ...this.#identity, baseSequence, transactional: true };
    const bytes = encodeBatch([record], range, producer, Date.now());
    const request = produce(this.#topic, this.#topic, [{ partition, bytes }]);
    const leader = this.#connection.leaders().get(partition) ?? -1;
    const [answer] = await this.#connection.request(leader, request);
    refuse(answer?.errorCode ?? -1);
  }

  async end(how: 'commit' | 'abort'): Promise<void> {
    const { body, ...rest } = commitTransaction(this.#topic, this.#identity);
    const asked = Buffer.from(body);
    // The last byte says whether.
    asked.writeInt8(how === 'commit' ? 1 : 0, asked.length - 1);
    const answer = await this.#connection.request(this.#coordinator, { ...rest, body: asked });
    refuse(answer.errorCode);
  }

  close(): void {
    this.#connection.close();
  }
}

function refuse(errorCode: number): void {
  if (errorCode !== 0) throw new Error(`the broker answered with error ${errorCode}`);
}
