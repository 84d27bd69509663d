/**
 * The topic loses records that a follower has not read: their beginning is deleted, or the follower
 * stands past the end, as after a restore of either. Every offset that is not there is a clear
 * stop: nothing is passed over, nobody begins at another offset, and nobody can be promoted.
 */
// runs: ci
import kafkajs from 'kafkajs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectKafka } from '../../src/topic/kafka-client.ts';
import { changesTopic } from '../../src/topic/topic-layout.ts';
import { FaultRun } from '../support/fault-run.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { entries } from '../support/workloads/entries.ts';

const partitions = 2;
let stack: Stack;
let run: FaultRun | null = null;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after.each(async () => {
  await run?.close();
  run = null;
});

test.after(() => stack.close());

async function position(of: FaultRun): Promise<string> {
  const [row] = await of.fleet.sql<{ at: string }>(
    'b',
    'SELECT p::text AS at FROM understudy.position p',
  );
  return row?.at ?? '';
}

/** Stops by itself, says where, moves nothing; and nobody gets the lead past what is missing. */
async function stopsClearly(of: FaultRun, code: string, what: RegExp): Promise<void> {
  const { fleet } = of;
  const before = await position(of);
  const agent = fleet.spawnAgent('b');
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(agent.log, `"code":"${code}"`, agent.log);
  assert.match(agent.log, what, agent.log);
  assert.is(await position(of), before, 'the follower did not move');
  const { json } = await fleet.cli('status');
  const b = json.nodes.find(({ name }: { name: string }) => name === 'b');
  assert.not.equal(b.state, 'streaming', JSON.stringify(json));
  assert.is(b.promotable, false, JSON.stringify(json));
  const words = ['failover', 'b', '--allow-data-loss', '--reason', 'test'] as const;
  const refused = await fleet.cli(...words);
  assert.is(refused.code, 4, JSON.stringify(refused));
  assert.is((await fleet.cli('status')).json.leader, 'a');
  assert.is(fleet.agent('a').ended, false, 'the leader goes on');
}

async function begin(): Promise<FaultRun> {
  const begun = await FaultRun.begin({ stack, partitions, workloads: [bank, entries] });
  await begun.clients.progress(50);
  assert.is(await begun.fleet.agent('b').stop(), 0);
  run = begun;
  return begun;
}

test('records that were deleted before a follower read them are a clear stop', async () => {
  const begun = await begin();
  await begun.clients.progress(100);
  await begun.clients.stop();
  const topic = changesTopic(begun.fleet.cluster);
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  const admin = client.kafkajs.admin();
  await admin.connect();
  // kafkajs deletes in partitions only whose leaders it has looked up for something else.
  await admin.fetchTopicOffsets(topic);
  // Of a topic that is only compacted Kafka deletes no beginning.
  const configEntries = [
    { name: 'cleanup.policy', value: 'compact,delete' },
    { name: 'message.timestamp.type', value: 'LogAppendTime' },
  ];
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configEntries }],
  });
  // -1 is the high watermark: everything that is there now.
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 1, offset: '-1' }] });
  await admin.disconnect();
  await stopsClearly(begun, 'TOPIC_MISMATCH', /partition 1/);
});

test('a follower that stands past the end of the topic stops clearly', async () => {
  const begun = await begin();
  await begun.clients.stop();
  await begun.fleet.tamper(
    'b',
    'UPDATE understudy.position SET next_offsets[1] = next_offsets[1] + 100000',
  );
  await stopsClearly(begun, 'TOPIC_MISMATCH', /partition 0/);
});

test.run();
