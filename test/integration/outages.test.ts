/**
 * Servers go away and come back while writers go on: Postgres of the leader and of the follower,
 * the Kafka broker, and a second publisher that takes the transactional id. Agents recover by
 * themselves; nothing is lost, nothing is there twice.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Sandbox } from '../../scripts/sandbox/sandbox.ts';
import { startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { connectKafka } from '../../src/topic/kafka-client.ts';
import { changesTopic, transactionalId } from '../../src/topic/topic-layout.ts';
import { createTransactionalProducer } from '../../src/topic/transactional-producer.ts';
import { type Fleet, type NodeName, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { Load, loadRows, loadTableNames, loadTables } from '../support/load.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';

const partitions = 2;
let stack: Stack;
let sandbox: Sandbox;
let fleet: Fleet;
let agents: Record<NodeName, FleetAgent>;
let load: Load;
let firstWriter = 1;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  sandbox = await startSandbox({ postgres: 2, brokers: 1, registry: true, log: () => undefined });
  const [a, b] = sandbox.postgres;
  fleet = await startFleet({
    stack,
    partitions,
    tables: loadTables,
    servers: { ...(a && { a }), ...(b && { b }) },
    brokers: sandbox.brokers,
    registryUrl: sandbox.registry?.url ?? '',
  });
  agents = await fleet.startAgents();
  await fleet.sql('a', loadRows);
  load = new Load({ url: fleet.url('a') });
});

test.after(async () => {
  await load.stop();
  await fleet.close();
  await sandbox.stop();
  await stack.close();
});

/** Both agents are the processes they were, and the follower holds what was acknowledged. */
async function isExact(): Promise<void> {
  await load.progress(30);
  await load.stop();
  await fleet.caughtUp();
  for (const table of loadTableNames) await fleet.assertSame(table);
  const rows = await fleet.sql<{ entry: string }>(
    'b',
    `SELECT writer || '/' || n AS entry FROM journal`,
  );
  const held = new Set(rows.map(({ entry }) => entry));
  assert.is(held.size, rows.length, 'no entry is there twice');
  assert.equal(
    [...load.acked].filter((entry) => !held.has(entry)),
    [],
    'no entry is lost',
  );
  assert.not(agents.a.ended || agents.b.ended, fleet.logs());
  firstWriter += 10;
  load = new Load({ url: fleet.url('a'), firstWriter });
  await load.progress(10);
}

for (const how of ['a fast restart', 'a crash'] as const) {
  for (const [at, who] of ['leader', 'follower'].entries()) {
    test(`${how} of the ${who}’s Postgres is survived by both agents`, async () => {
      const server = sandbox.postgres[at];
      await (how === 'a crash' ? server?.kill() : server?.stop('fast'));
      await server?.start();
      await isExact();
    });
  }
}

test('a broker that is killed and returns is survived by both agents', async () => {
  const [broker] = sandbox.kafka;
  await broker?.kill();
  await load.progress(50);
  await broker?.start();
  await isExact();
});

test('an agent that starts while the broker is down waits for it', async () => {
  const [broker] = sandbox.kafka;
  await broker?.kill();
  await agents.a.kill();
  agents.a = fleet.spawnAgent('a');
  await agents.a.says(/KAFKA_UNREACHABLE/);
  await broker?.start();
  await agents.a.says(/"message":"leading"/);
  await isExact();
});

test('a second agent for a node is refused, and the first one goes on', async () => {
  for (const node of fleet.nodes) {
    const second = fleet.spawnAgent(node);
    assert.is(await second.exitCode(), 3, second.log);
    assert.match(second.log, /NODE_LOCKED/);
  }
  await isExact();
});

test('a publisher that fences the leader and writes nothing costs one restart', async () => {
  const before = agents.a.log.length;
  const topic = changesTopic(fleet.cluster);
  const client = connectKafka({ brokers: sandbox.brokers, clientId: 'stranger' }, testLog);
  const producer = createTransactionalProducer(client, {
    topic,
    partitions,
    transactionalId: transactionalId(fleet.cluster),
  });
  await producer.open();
  await agents.a.says(/"message":"leading"/, before);
  await producer.close();
  await isExact();
  const rows = await fleet.sql('b', 'SELECT DISTINCT leader FROM understudy.epochs');
  assert.equal(rows, [{ leader: 'a' }]);
});

test.run();
