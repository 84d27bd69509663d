/**
 * A broker dies between the answer to a commit and the markers of the transaction. When it returns,
 * its coordinator may call the transaction complete although no marker was ever written: committed
 * records are then after an open transaction, where no reader sees them. A new leader must see them
 * all the same, else the next epoch begins below what was acknowledged.
 */
// runs: ci, since test/unit/log-end.test.ts has the decisions
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { createTopic } from '../../src/topic/kafka/admin.ts';
import { connectKafka, type KafkaClient } from '../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../src/topic/kafka/committed-reader.ts';
import { createTransactionalProducer } from '../../src/topic/kafka/transactional-producer.ts';
import type { CommittedReader, TransactionalProducer } from '../../src/topic/log.ts';
import { commitReadably } from '../../src/topic/log-end.ts';
import { systemClock } from '../../src/waiting.ts';
import { isFull } from '../support/form.ts';
import { readUpTo, record, rejection, texts } from '../support/topic-stack.ts';
import { until } from '../support/until.ts';

const topic = 'changes';
const partitions = 2;
const rounds = isFull ? 12 : 3;
const silent = { debug: ignore, info: ignore, warn: ignore, error: ignore };
const reopenPauseMs = 100;

let sandbox: Sandbox;
let client: KafkaClient;

test.before(async () => {
  sandbox = await startSandbox({ postgres: 0, brokers: 1, registry: false, log: ignore });
  client = connectKafka({ brokers: sandbox.brokers, clientId: 'test' }, silent);
  await createTopic(client, { topic, partitions, replication: 1, settings: {} });
});

test.after(() => sandbox.stop());

function ignore(): void {
  // The sandbox logs its start, and a client that a broker is down.
}

function everywhere(key: string, value: string | null) {
  return Array.from({ length: partitions }, (_, partition) => record(partition, key, value));
}

/** As an agent does: a new producer for every attempt. */
async function openProducer(transactionalId: string): Promise<TransactionalProducer> {
  let opened: TransactionalProducer | null = null;
  const attempt = async (): Promise<true | string> => {
    const producer = createTransactionalProducer(client, { topic, partitions, transactionalId });
    try {
      await producer.open();
      opened = producer;
      return true;
    } catch (error) {
      await producer.close();
      return String(error);
    }
  };
  await until('an open producer', attempt, { pollMs: reopenPauseMs });
  if (opened === null) throw new Error('the last attempt succeeded');
  return opened;
}

/** Commits, and kills the broker as soon as it has answered. */
async function commitAndKill(value: string): Promise<readonly bigint[]> {
  const [broker] = sandbox.kafka;
  const producer = await openProducer('leader');
  await producer.send(everywhere('warm', value));
  await producer.commit();
  await producer.send(everywhere('last', value));
  const offsets = await producer.commit();
  await broker?.kill();
  await producer.close();
  await broker?.start();
  return offsets.map((offset) => offset ?? -1n);
}

async function withReader<T>(use: (reader: CommittedReader) => Promise<T>): Promise<T> {
  const reader = createCommittedReader(client, { topic, partitions });
  try {
    return await use(reader);
  } finally {
    await reader.close();
  }
}

test('what was committed before a crash is below the end that a new leader reads', async () => {
  let hidden = 0;
  for (let round = 1; round <= rounds; round += 1) {
    const value = `round ${round}`;
    const last = await commitAndKill(value);
    const producer = await openProducer('leader');
    await withReader(async (reader) => {
      const naive = await reader.watermarks();
      const isHidden = naive.some((end, i) => end.lastStableOffset <= (last[i] ?? 0n));
      if (isHidden) hidden += 1;
      const fence = everywhere('fence', null);
      const { ends } = await commitReadably(producer, fence, reader, systemClock);
      for (const { partition, lastStableOffset } of ends) {
        assert.ok(lastStableOffset > (last[partition] ?? 0n), `${value}, hidden: ${isHidden}`);
        const { records } = await readUpTo(reader, partition, lastStableOffset);
        assert.is(texts(records).filter((text) => text === `last=${value}`).length, 1, value);
      }
    });
    await producer.close();
  }
  process.stderr.write(`hidden behind an open transaction after ${hidden} of ${rounds} kills\n`);
});

test('a transaction that another program leaves open is named with its offset', async () => {
  const stranger = await openProducer('stranger');
  await stranger.send(everywhere('x', 'never ended'));
  const producer = await openProducer('leader');
  let nowMs = 0;
  const clock = {
    random: Math.random,
    nowMs: () => nowMs,
    sleep: (ms: number) => {
      nowMs += 10_000;
      return sleep(ms);
    },
  };
  await withReader(async (reader) => {
    const [first] = await reader.watermarks();
    const waiting = commitReadably(producer, everywhere('fence', null), reader, clock);
    const error = await rejection(waiting);
    assert.is(error.code, 'KAFKA_UNREACHABLE');
    assert.match(error.message, `partition 0 at offset ${first?.lastStableOffset}`);
  });
  await Promise.all([stranger.close(), producer.close()]);
});

test.run();
