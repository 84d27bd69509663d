/**
 * Servers go down and come back under load: Postgres of the leader and of the follower, the Kafka
 * broker, and a second publisher that takes the transactional id. Agents recover by themselves;
 * nothing is lost, nothing is there twice. Tests run in order: the last one promotes node b.
 */
// runs: ci, since test/integration/promotion.test.ts kills a server
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Sandbox } from '../../scripts/sandbox/sandbox.ts';
import { startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createTransactionalProducer } from '../../src/topic/kafka/transactional-producer.ts';
import { changesTopic, slotName, transactionalId } from '../../src/topic/records/layout.ts';
import { FleetUnderLoad, fewWorkloads } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';

const partitions = 2;
let stack: Stack;
let sandbox: Sandbox;
let under: FleetUnderLoad;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  sandbox = await startSandbox({ postgres: 2, brokers: 1, registry: true, log: () => undefined });
  const [a, b] = sandbox.postgres;
  under = await FleetUnderLoad.start({
    stack,
    partitions,
    servers: { ...(a && { a }), ...(b && { b }) },
    brokers: sandbox.brokers,
    registryUrl: sandbox.registry?.url ?? '',
    workloads: fewWorkloads,
  });
});

test.after(async () => {
  await under.close();
  await sandbox.stop();
  await stack.close();
});

for (const how of ['a fast restart', 'a crash'] as const) {
  for (const [at, who] of ['leader', 'follower'].entries()) {
    test(`${how} of the ${who}’s Postgres does not stop the agents`, async () => {
      const server = sandbox.postgres[at];
      await (how === 'a crash' ? server?.kill() : server?.stop('fast'));
      await server?.start();
      await under.isExact();
    });
  }
}

/** Each kill may come between the answer to a commit and the end of its transaction. */
const brokerKills = isFull ? 10 : 2;

for (let kill = 1; kill <= brokerKills; kill += 1) {
  test(`a broker that is killed and returns does not stop the agents (${kill})`, async () => {
    const [broker] = sandbox.kafka;
    await broker?.kill();
    await under.progress(50);
    await broker?.start();
    await under.isExact();
  });
}

test('an agent that starts while the broker is down waits for it', async () => {
  const [broker] = sandbox.kafka;
  await broker?.kill();
  await under.leaderAgent.kill();
  under.fleet.spawnAgent('a');
  await under.leaderAgent.logged(/KAFKA_UNREACHABLE/);
  await broker?.start();
  await under.leaderAgent.logged(/"message":"leading"/);
  await under.isExact();
});

test('a second agent for a node is refused, and the first one is not affected', async () => {
  for (const node of under.fleet.nodes) {
    const second = await under.fleet.cli('run', node);
    assert.is(second.code, 3, second.stderr);
    assert.is(second.json.error.code, 'NODE_LOCKED');
  }
  await under.isExact();
});

test('a publisher that fences the leader and writes nothing costs one restart', async () => {
  const before = under.leaderAgent.log.length;
  const topic = changesTopic(under.fleet.cluster);
  const client = connectKafka({ brokers: sandbox.brokers, clientId: 'stranger' }, testLog);
  const producer = createTransactionalProducer(client, {
    topic,
    partitions,
    transactionalId: transactionalId(under.fleet.cluster),
  });
  await producer.open();
  await under.leaderAgent.logged(/"message":"leading"/, before);
  await producer.close();
  await under.isExact();
  const rows = await under.fleet.sql('b', 'SELECT DISTINCT leader FROM understudy.epochs');
  assert.equal(rows, [{ leader: 'a' }]);
});

test('a failover after a crash of the broker begins past all that was confirmed', async () => {
  const [broker] = sandbox.kafka;
  await under.progress(50);
  await broker?.kill();
  await under.leaderAgent.kill();
  await under.clients.stop();
  const [slot] = await under.fleet.sql<{ confirmed: string }>(
    'a',
    `SELECT confirmed_flush_lsn::text AS confirmed FROM pg_replication_slots
     WHERE slot_name = $1`,
    [slotName(under.fleet.cluster, 1)],
  );
  await broker?.start();
  const words = ['failover', 'b', '--allow-data-loss', '--reason', 'the leader died'];
  const { code, json, stderr } = await under.fleet.cli(...words);
  assert.is(code, 0, `${JSON.stringify(json)} ${stderr} ${under.fleet.logs()}`);
  const [base] = await under.fleet.sql(
    'b',
    `SELECT base_epoch AS epoch, base_upto >= $1::pg_lsn AS "holdsConfirmed"
     FROM understudy.epochs WHERE epoch = 2`,
    [slot?.confirmed],
  );
  assert.equal(base, { epoch: 1, holdsConfirmed: true }, `confirmed ${slot?.confirmed}`);
});

test.run();
