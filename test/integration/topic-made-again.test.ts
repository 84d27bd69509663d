/**
 * The topic is deleted and made again, while the agents are away, under them, or with the end of
 * the old log in it: both nodes stop. Nobody takes another log of the same name for its own.
 */
// runs: ci
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectKafka } from '../../src/topic/kafka-client.ts';
import { createTopic, deleteTopic } from '../../src/topic/topic-admin.ts';
import { changesTopic } from '../../src/topic/topic-layout.ts';
import { createTransactionalProducer } from '../../src/topic/transactional-producer.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { Forger } from '../support/forger.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';

const tables = 'CREATE TABLE item (id int PRIMARY KEY, n int, body text)';
const partitions = 2;
let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.before.each(async () => {
  fleet = await startFleet({ stack, partitions, tables });
});

test.after.each(() => fleet.close());

test.after(() => stack.close());

async function ids(): Promise<number[]> {
  const rows = await fleet.sql<{ id: number }>('b', 'SELECT id FROM item ORDER BY id');
  return rows.map(({ id }) => id);
}

async function remake(): Promise<void> {
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  const topic = changesTopic(fleet.cluster);
  await deleteTopic(client, topic);
  const settings = { 'message.timestamp.type': 'LogAppendTime' };
  await createTopic(client, { topic, partitions, replication: 1, settings });
}

test('a topic that was deleted and made again stops both nodes', async () => {
  const agents = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
  await fleet.caughtUp();
  await Promise.all([agents.a.stop(), agents.b.stop()]);
  await remake();
  const [a, b] = [fleet.spawnAgent('a'), fleet.spawnAgent('b')];
  for (const agent of [a, b]) {
    assert.is(await agent.exitCode(), 4, agent.log);
    assert.match(agent.log, /TOPIC_MISMATCH/);
  }
  await fleet.sql('a', 'INSERT INTO item VALUES (2, 2)');
  assert.equal(await ids(), [1]);
});

test('a topic that is deleted and made again under the agents stops both nodes', async () => {
  const agents = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
  await fleet.caughtUp();
  await remake();
  await fleet.sql('a', 'INSERT INTO item SELECT i FROM generate_series(2, 1000) AS i');
  for (const agent of [agents.a, agents.b]) {
    assert.is(await agent.exitCode(), 4, agent.log);
    assert.match(agent.log, /TOPIC_MISMATCH|DAMAGED/);
  }
  assert.equal(await ids(), [1]);
});

test('a leader does not go on where the end of its log is, and not its begin', async () => {
  const agents = await fleet.startAgents();
  for (let i = 1; i <= 40; i += 1) await fleet.sql('a', 'INSERT INTO item VALUES ($1)', [i]);
  await fleet.caughtUp();
  await Promise.all([agents.a.stop(), agents.b.stop()]);
  const [begin] = await fleet.sql<{ offsets: string[] }>(
    'a',
    'SELECT next_offsets AS offsets FROM understudy.position',
  );
  const forger = new Forger(stack, fleet, partitions);
  const end = await forger.recordsFrom((begin?.offsets ?? []).map(BigInt));
  await remake();
  // As whoever led on without knowing would have left it.
  await forger.commit('publisher', end);
  const agent = fleet.spawnAgent('a');
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(agent.log, /TOPIC_MISMATCH.*the topic holds no begin there/);
});

/** A transaction that is open, so that the end of the topic is past what can be read. */
async function withOpenTransaction(work: () => Promise<void>): Promise<void> {
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  const topic = changesTopic(fleet.cluster);
  const options = { topic, partitions, transactionalId: `${topic}-other` };
  const producer = createTransactionalProducer(client, options);
  await producer.open();
  const record = { key: Buffer.from('k'), value: null, headers: {} };
  const many = Array.from({ length: 2_000 }, (_, i) => ({ ...record, partition: i % partitions }));
  await producer.send(many);
  try {
    await work();
  } finally {
    await producer.close();
  }
}

test('a follower does not wait in such a topic, and nobody gets the lead there', async () => {
  const agents = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
  await fleet.caughtUp();
  assert.is(await agents.a.stop(), 0);
  const paused = agents.b;
  paused.signal('SIGSTOP');
  await remake();
  await withOpenTransaction(async () => {
    paused.signal('SIGCONT');
    assert.is(await paused.exitCode(), 4, paused.log);
    assert.match(paused.log, /TOPIC_MISMATCH.*can be read up to offset 0/);
  });
});

test.run();
