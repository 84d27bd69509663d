/**
 * The topic is deleted and re-created: while the agents are stopped, while they run, or with the
 * end of the old log in it: both nodes stop. No node takes another log of the same name for its
 * own.
 */
// time-limit: 400s
// runs: ci, since test/integration/topic-transactions.test.ts has its kind
import kafkajs from 'kafkajs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createTopic, deleteTopic } from '../../src/topic/kafka/admin.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createTransactionalProducer } from '../../src/topic/kafka/transactional-producer.ts';
import { changesTopic, controlTopic } from '../../src/topic/records/layout.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { Forger } from '../support/forger.ts';
import { followHint } from '../support/hint-runner.ts';
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

test('a topic that was deleted and re-created stops both nodes', async () => {
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
  await beginsAgain('startOver', a);
});

/** What the hint says where the topic itself is lost. */
async function beginsAgain(
  place: 'startOver' | 'topicsGone',
  stopped: Parameters<typeof followHint>[2],
): Promise<void> {
  const markers = {
    startOver: ['startOver: destroy', 'startOver: init'],
    topicsGone: ['topicsGone: destroy', 'topicsGone: init'],
  };
  for (const marker of markers[place]) await followHint(fleet, marker, stopped);
  await fleet.startAgents();
  await fleet.complete('b');
  await fleet.caughtUp();
  await fleet.assertSame('item');
}

test('a topic that is re-created while agents run stops both nodes', async () => {
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

test('a leader stops where the topic has the end of its log, and not its begin', async () => {
  const agents = await fleet.startAgents();
  for (let i = 1; i <= 40; i += 1) await fleet.sql('a', 'INSERT INTO item VALUES ($1)', [i]);
  await fleet.caughtUp();
  await Promise.all([agents.a.stop(), agents.b.stop()]);
  const [begin] = await fleet.sql<{ offsets: string[] }>(
    'a',
    'SELECT next_offsets AS offsets FROM understudy.position',
  );
  const forger = new Forger(fleet);
  const end = await forger.recordsFrom((begin?.offsets ?? []).map(BigInt));
  await remake();
  // As a leader that did not notice would have left it.
  await forger.commit('publisher', end);
  const agent = fleet.spawnAgent('a');
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(agent.log, /TOPIC_MISMATCH.*the topic holds no begin there/);
});

/** The end of the new topic is past the follower's position, with nothing that can be read. */
async function remakeUnder(follower: FleetAgent, isAborted: boolean): Promise<() => Promise<void>> {
  follower.signal('SIGSTOP');
  await remake();
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  const topic = changesTopic(fleet.cluster);
  const options = { topic, partitions, transactionalId: `${topic}-other` };
  const [producer, next] = [1, 2].map(() => createTransactionalProducer(client, options));
  await producer?.open();
  const record = { key: Buffer.from('k'), value: null, headers: {} };
  const many = Array.from({ length: 2_000 }, (_, i) => ({ ...record, partition: i % partitions }));
  await producer?.send(many);
  if (isAborted) await next?.open();
  follower.signal('SIGCONT');
  return async () => {
    await Promise.all([producer?.close(), next?.close()]);
  };
}

test('a follower does not wait for records past the end of such a topic', async () => {
  const { a, b } = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
  await fleet.caughtUp();
  assert.is(await a.stop(), 0);
  const close = await remakeUnder(b, false);
  try {
    assert.is(await b.exitCode(), 4, b.log);
    assert.match(b.log, /TOPIC_MISMATCH.*can be read up to offset 0/);
  } finally {
    await close();
  }
});

test('a node whose position is in such a topic is not promoted', async () => {
  const { a, b } = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
  await fleet.caughtUp();
  assert.is(await a.stop(), 0);
  const close = await remakeUnder(b, true);
  try {
    const { code, json } = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'x');
    assert.is(code, 4, JSON.stringify(json));
    assert.is(json.error.code, 'TOPIC_MISMATCH');
    assert.match(json.error.message, /has read up to 1:.*the topic holds no point/);
    assert.is((await fleet.cli('status')).json.leader, 'a');
  } finally {
    await close();
  }
});

test('topics that are gone are errors of check, and init says so', async () => {
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  for (const topic of [changesTopic(fleet.cluster), controlTopic(fleet.cluster)]) {
    await deleteTopic(client, topic);
  }
  const gone = /node a belongs to the stream .* and its topics are missing or empty/;
  const check = await fleet.cli('check');
  assert.is(check.code, 4, check.stdout);
  assert.equal(check.json.findings.length, 1, check.stdout);
  assert.match(check.json.findings[0].message, gone);
  const init = await fleet.cli('init');
  assert.is(init.code, 4, init.stdout);
  assert.match(init.json.error.message, gone);
  const { json } = await fleet.cli('destroy');
  assert.equal(json.reasons, []);
  assert.equal(json.nodes.length, 2);
  await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
  await beginsAgain('topicsGone', init);
});

test('a cleanup.policy that deletes is reported by agents and status while they run', async () => {
  const agents = await fleet.startAgents();
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  const setPolicy = async (value: string): Promise<void> => {
    const admin = client.kafkajs.admin();
    await admin.connect();
    const configEntries = [
      { name: 'cleanup.policy', value },
      { name: 'message.timestamp.type', value: 'LogAppendTime' },
    ];
    const resource = { type: kafkajs.ConfigResourceTypes.TOPIC, name: changesTopic(fleet.cluster) };
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] });
    await admin.disconnect();
  };
  await setPolicy('delete');
  const problem = `cleanup.policy of ${changesTopic(fleet.cluster)} is delete, not compact`;
  for (const { why } of (await fleet.status()).nodes) assert.match(why.join('; '), problem);
  for (const agent of [agents.a, agents.b]) await agent.logged(/"message":"the topics lose rows"/);
  assert.match(agents.b.log, problem);
  const { hint } = (await fleet.cli('check')).json.findings[0];
  await followHint(fleet, 'alterTopicSetting', hint);
  await agents.a.logged(/the topics are as they have to be again/);
  for (const { why } of (await fleet.status()).nodes) assert.equal(why, []);
});

test.run();
