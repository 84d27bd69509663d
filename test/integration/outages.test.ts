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
import { changesTopic, slotName, transactionalId } from '../../src/topic/topic-layout.ts';
import { createTransactionalProducer } from '../../src/topic/transactional-producer.ts';
import { type Fleet, type NodeName, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { loadTables } from '../support/load.ts';
import { LoadedFleet } from '../support/loaded-fleet.ts';
import { testLog } from '../support/topic-stack.ts';

const partitions = 2;
let sandbox: Sandbox;
let fleet: Fleet;
let agents: Record<NodeName, FleetAgent>;
let loaded: LoadedFleet;

test.before(async () => {
  sandbox = await startSandbox({ postgres: 2, brokers: 1, registry: true, log: () => undefined });
  const [a, b] = sandbox.postgres;
  fleet = await startFleet({
    partitions,
    tables: loadTables,
    servers: { ...(a && { a }), ...(b && { b }) },
    brokers: sandbox.brokers,
    registryUrl: sandbox.registry?.url ?? '',
  });
  agents = await fleet.startAgents();
  loaded = await LoadedFleet.begin(fleet);
});

test.after(async () => {
  await loaded.stop();
  await fleet.close();
  await sandbox.stop();
});

/** Both agents are the processes they were, and the follower holds what was acknowledged. */
async function isExact(): Promise<void> {
  await loaded.progress(30);
  await loaded.isExact();
  assert.not(agents.a.ended || agents.b.ended, fleet.logs());
  await loaded.progress(10);
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

/** Each kill may come between the answer to a commit and the end of its transaction. */
const brokerKills = process.env.UNDERSTUDY_TEST_FULL === undefined ? 2 : 10;

for (let kill = 1; kill <= brokerKills; kill += 1) {
  test(`a broker that is killed and returns is survived by both agents (${kill})`, async () => {
    const [broker] = sandbox.kafka;
    await broker?.kill();
    await loaded.progress(50);
    await broker?.start();
    await isExact();
  });
}

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

test('a failover after a crash of the broker begins past all that was confirmed', async () => {
  const [broker] = sandbox.kafka;
  await loaded.progress(50);
  await broker?.kill();
  await agents.a.kill();
  await loaded.stop();
  const [slot] = await fleet.sql<{ confirmed: string }>(
    'a',
    `SELECT confirmed_flush_lsn::text AS confirmed FROM pg_replication_slots
     WHERE slot_name = $1`,
    [slotName(fleet.cluster, 1)],
  );
  await broker?.start();
  const words = ['failover', 'b', '--allow-data-loss', '--reason', 'the leader died'];
  const { code, json, stderr } = await fleet.cli(...words);
  assert.is(code, 0, `${JSON.stringify(json)} ${stderr} ${fleet.logs()}`);
  const [base] = await fleet.sql(
    'b',
    `SELECT base_epoch AS epoch, base_upto >= $1::pg_lsn AS "holdsConfirmed"
     FROM understudy.epochs WHERE epoch = 2`,
    [slot?.confirmed],
  );
  assert.equal(base, { epoch: 1, holdsConfirmed: true }, `confirmed ${slot?.confirmed}`);
});

test.run();
