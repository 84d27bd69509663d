/**
 * Three brokers, each of which leads some partitions or coordinates the transactions, die in turn
 * and come back; then two of them at once. Partitions and the coordinator move under the agents.
 * What is written meanwhile waits in the leader's WAL; nothing is lost and nothing is there twice.
 */
// time-limit: 300s
// runs: full, since three brokers take a small machine
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { FleetUnderLoad, fewWorkloads } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';

/** Controllers elect first, then partitions get leaders, then replicas come back into sync. */
const electionMaxMs = 120_000;
const rounds = isFull ? 4 : 1;

let stack: Stack;
let sandbox: Sandbox;
let under: FleetUnderLoad;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  const log = (line: string): void => void process.stderr.write(`${line}\n`);
  sandbox = await startSandbox({ postgres: 0, brokers: 3, registry: false, log });
  under = await FleetUnderLoad.start({
    stack,
    partitions: 4,
    brokers: sandbox.brokers,
    workloads: fewWorkloads,
  });
});

test.after(async () => {
  await under.close();
  await sandbox.stop();
  await stack.close();
});

for (let round = 1; round <= rounds; round += 1) {
  for (const index of [0, 1, 2]) {
    test(`broker ${index + 1} of three dies, the stream continues (${round})`, async () => {
      const broker = sandbox.kafka[index];
      await broker?.kill();
      await under.progress(50);
      // Two of three brokers take and give records.
      await under.fleet.caughtUp();
      await broker?.start();
      await under.isExact();
    });
  }

  test(`two of three brokers die: the stream waits for one (${round})`, async () => {
    const [first, second] = sandbox.kafka;
    await Promise.all([first?.kill(), second?.kill()]);
    await under.progress(50);
    const token = await under.fleet.token();
    const [there] = await under.fleet.sql('b', `SELECT understudy.wait_for($1, '1 s') AS there`, [
      token,
    ]);
    assert.equal(there, { there: false }, 'nothing is committed by one broker of three');
    await first?.start();
    await under.fleet.caughtUp('a', under.fleet.nodes, electionMaxMs);
    await second?.start();
    await under.isExact();
  });
}

test.run();
