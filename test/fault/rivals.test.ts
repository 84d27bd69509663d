/**
 * Publishers that are not alone: frozen while another takes the transactional id, fenced several
 * times, and two agents that both lead by what they know. A fenced publisher appends nothing more;
 * nothing is lost, nothing is there twice, and one agent continues by itself. Tests run in order,
 * on one fleet.
 */
// runs: ci, since test/model/claim.test.ts has all races
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { databaseOfUrl } from '../../src/catalog/postgres-session.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createTransactionalProducer } from '../../src/topic/kafka/transactional-producer.ts';
import { changesTopic, transactionalId } from '../../src/topic/records/layout.ts';
import { FleetUnderLoad } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { entries } from '../support/workloads/entries.ts';
import { lists } from '../support/workloads/lists.ts';

// time-limit: 600s

const rounds = isFull ? 10 : 2;
const frozenMs = isFull ? 5_000 : 1_000;
const rivalryMs = isFull ? 30_000 : 2_500;
const partitions = 3;
let stack: Stack;
let run: FleetUnderLoad;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  const workloads = [bank, lists, entries];
  run = await FleetUnderLoad.start({ stack, partitions, workloads });
});

test.after(async () => {
  await run.close();
  await stack.close();
});

/** Takes the transactional id, which ends the open transaction, and writes nothing. */
async function fence(): Promise<void> {
  const { cluster } = run.fleet;
  const client = connectKafka({ brokers: stack.brokers, clientId: 'rival' }, testLog);
  const topic = changesTopic(cluster);
  const options = { topic, partitions, transactionalId: transactionalId(cluster) };
  const rival = createTransactionalProducer(client, options);
  await rival.open();
  await rival.close();
}

test('a publisher that was frozen continues', async () => {
  const { fleet, clients } = run;
  fleet.agent('a').signal('SIGSTOP');
  await Promise.all([sleep(frozenMs), clients.progress(50)]);
  fleet.agent('a').signal('SIGCONT');
  await clients.progress(50);
  await run.compare();
  assert.not(fleet.agent('a').ended, fleet.logs());
});

test('a publisher that was fenced, awake or frozen, appends nothing and restarts', async () => {
  const { fleet, clients } = run;
  for (let round = 0; round < rounds; round += 1) {
    const isFrozen = round % 2 === 1;
    const agent = fleet.agent('a');
    const before = agent.log.length;
    if (isFrozen) agent.signal('SIGSTOP');
    await clients.progress(20);
    await fence();
    if (isFrozen) agent.signal('SIGCONT');
    await agent.logged(/"message":"leading"/, before);
  }
  await clients.progress(30);
  await run.compare();
});

test('of two agents that both lead, neither loses or repeats a write', async () => {
  const { fleet, clients } = run;
  const { config } = fleet;
  const first = fleet.agent('a');
  const from = first.log.length;
  // Their locks are in different databases, so that they do not know of each other. No template:
  // a session in one keeps others from creating a database on the server.
  const maintenanceDatabase = databaseOfUrl(fleet.url('a'));
  await fleet.configure({ ...config, maintenanceDatabase });
  const second = fleet.spawnAgent('a');
  await second.logged(/"message":"promotion step"/);
  await fleet.configure(config);
  await Promise.all([sleep(rivalryMs), clients.progress(50)]);
  const leads = (log: string): number => log.match(/"message":"leading"/g)?.length ?? 0;
  // An agent that leads again was fenced in between.
  const times = (): readonly number[] => [leads(first.log.slice(from)), leads(second.log)];
  const reached = (led: readonly number[]): boolean => Math.min(...led) >= 2;
  await fleet.until('both agents lead twice', times, { reached });
  await Promise.all([first.kill(), second.kill()]);
  await fleet.startAgent('a');
  await clients.progress(50);
  await run.end();
});

test.run();
