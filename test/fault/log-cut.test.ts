/**
 * The topic loses records that a follower has not read: its beginning is deleted, or the follower
 * is past its end, as after a restore of either. Every missing offset stops the follower with an
 * error that names it: no record is skipped, no reader begins at another offset, and no node can be
 * promoted.
 */
// runs: ci, since test/integration/topic-reader.test.ts has the missing offsets
import kafkajs from 'kafkajs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { changesTopic, slotName } from '../../src/topic/records/layout.ts';
import { FleetUnderLoad } from '../support/fleet-under-load.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { entries } from '../support/workloads/entries.ts';

const partitions = 2;
let stack: Stack;
let run: FleetUnderLoad | null = null;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after.each(async () => {
  await run?.close();
  run = null;
});

test.after(() => stack.close());

async function position(of: FleetUnderLoad): Promise<string> {
  const [row] = await of.fleet.sql<{ at: string }>(
    'b',
    'SELECT p::text AS at FROM understudy.position p',
  );
  return row?.at ?? '';
}

/** The follower stops by itself with the offset, its position stays, and it is not promoted. */
async function stopsAtMissing(of: FleetUnderLoad, code: string, what: RegExp): Promise<void> {
  const { fleet } = of;
  const before = await position(of);
  const agent = fleet.spawnAgent('b');
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(agent.log, `"code":"${code}"`, agent.log);
  assert.match(agent.log, what, agent.log);
  assert.is(await position(of), before, 'the follower did not move');
  const b = await fleet.nodeStatus('b');
  assert.is.not(b.state, 'streaming', JSON.stringify(b));
  assert.is(b.promotable, false, JSON.stringify(b));
  const words = ['failover', 'b', '--allow-data-loss', '--reason', 'test'] as const;
  const refused = await fleet.cli(...words);
  assert.is(refused.code, 4, JSON.stringify(refused));
  assert.is((await fleet.status()).leader, 'a');
  assert.is(fleet.agent('a').ended, false, 'the leader runs');
}

async function begin(): Promise<FleetUnderLoad> {
  const begun = await FleetUnderLoad.start({ stack, partitions, workloads: [bank, entries] });
  await begun.clients.progress(50);
  assert.is(await begun.fleet.agent('b').stop(), 0);
  run = begun;
  return begun;
}

/** The leader has read back what it published of everything that is committed now. */
async function readBack({ fleet }: FleetUnderLoad): Promise<void> {
  await fleet.sql('a', 'INSERT INTO entry (writer, n) VALUES (0, 0)');
  // Not in the statement's own transaction: its commit record has to be before.
  const [end] = await fleet.sql<{ lsn: string }>('a', 'SELECT pg_current_wal_lsn() AS lsn');
  const slot = `SELECT confirmed_flush_lsn AS confirmed, confirmed_flush_lsn >= $2::pg_lsn AS "isIt"
    FROM pg_replication_slots WHERE slot_name = $1`;
  const values = [slotName(fleet.cluster, 1), end?.lsn];
  await fleet.until(
    `${end?.lsn} is confirmed`,
    async () => (await fleet.sql('a', slot, values))[0],
    {
      reached: (row) => row?.['isIt'] === true,
    },
  );
}

test('records that were deleted before a follower read them stop it', async () => {
  const begun = await begin();
  await begun.clients.progress(100);
  await begun.clients.stop();
  const topic = changesTopic(begun.fleet.cluster);
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  const admin = client.kafkajs.admin();
  await admin.connect();
  // kafkajs deletes only in partitions whose leaders it has read for something else.
  const ends = await admin.fetchTopicOffsets(topic);
  const offset = ends.find(({ partition }) => partition === 1)?.high ?? '';
  // A leader whose own last batch is deleted before it has read it back stops as well.
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
  await stopsAtMissing(begun, 'TOPIC_MISMATCH', /partition 1/);
});

test('a follower that is past the end of the topic stops', async () => {
  const begun = await begin();
  await begun.clients.stop();
  await begun.fleet.tamper(
    'b',
    'UPDATE understudy.position SET next_offsets[1] = next_offsets[1] + 100000',
  );
  await stopsAtMissing(begun, 'TOPIC_MISMATCH', /partition 0/);
});

test.run();
