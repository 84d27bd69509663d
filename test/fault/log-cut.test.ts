/**
 * The topic loses records that a follower has not read: their beginning is deleted, or the follower
 * stands past the end, as after a restore of either. Every offset that is not there is a clear
 * stop: nothing is passed over, nobody begins at another offset, and nobody can be promoted.
 */
// runs: ci
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { changesTopic, slotName } from '../../src/topic/records/layout.ts';
import { answeredStatus } from '../support/answered-status.ts';
import { FaultRun } from '../support/fault-run.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { entries } from '../support/workloads/entries.ts';

const partitions = 2;
/** A busy machine takes its time with a batch, its commit and its reading back. */
const confirmedMaxMs = 60_000;
const pollMs = 50;
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
  const { json } = await answeredStatus(fleet);
  const b = json.nodes.find(({ name }: { name: string }) => name === 'b');
  assert.not.equal(b.state, 'streaming', JSON.stringify(json));
  assert.is(b.promotable, false, JSON.stringify(json));
  const words = ['failover', 'b', '--allow-data-loss', '--reason', 'test'] as const;
  const refused = await fleet.cli(...words);
  assert.is(refused.code, 4, JSON.stringify(refused));
  assert.is((await answeredStatus(fleet)).json.leader, 'a');
  assert.is(fleet.agent('a').ended, false, 'the leader goes on');
}

async function begin(): Promise<FaultRun> {
  const begun = await FaultRun.begin({ stack, partitions, workloads: [bank, entries] });
  await begun.clients.progress(50);
  assert.is(await begun.fleet.agent('b').stop(), 0);
  run = begun;
  return begun;
}

/** The leader has read back what it published of everything that is committed now. */
async function readBack({ fleet }: FaultRun): Promise<void> {
  await fleet.sql('a', 'INSERT INTO entry (writer, n) VALUES (0, 0)');
  // Not in the statement's own transaction: its commit record has to lie before.
  const [end] = await fleet.sql<{ lsn: string }>('a', 'SELECT pg_current_wal_lsn() AS lsn');
  const isConfirmed = `SELECT FROM pg_replication_slots
    WHERE slot_name = $1 AND confirmed_flush_lsn >= $2::pg_lsn`;
  const values = [slotName(fleet.cluster, 1), end?.lsn];
  for (const deadlineMs = Date.now() + confirmedMaxMs; ; await sleep(pollMs)) {
    if ((await fleet.sql('a', isConfirmed, values)).length > 0) return;
    assert.ok(Date.now() < deadlineMs, `${end?.lsn} was never confirmed\n${fleet.logs()}`);
  }
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
  const ends = await admin.fetchTopicOffsets(topic);
  const offset = ends.find(({ partition }) => partition === 1)?.high ?? '';
  // A leader that finds its own last batch gone before it has read it back stops as well.
  await readBack(begun);
  // Of a topic that is only compacted Kafka deletes no beginning.
  const configEntries = [
    { name: 'cleanup.policy', value: 'compact,delete' },
    { name: 'message.timestamp.type', value: 'LogAppendTime' },
  ];
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configEntries }],
  });
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 1, offset }] });
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
