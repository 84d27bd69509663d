/**
 * Keys that are easily taken for another, large values that updates leave out, keys that change and
 * come back within a transaction: under kills of both agents every node ends with the same rows,
 * and the topic folds to the same.
 */
// runs: ci, since test/integration/identities.test.ts has the keys
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FleetUnderLoad } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { keyCases } from '../support/workloads/key-cases.ts';

// time-limit: 600s

const rounds = isFull ? 12 : 1;
let stack: Stack;
let run: FleetUnderLoad | null = null;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after(async () => {
  await run?.close();
  await stack.close();
});

test('rows of every kind of key are the same on all nodes and in the topic', async () => {
  const workloads = [keyCases, bank];
  run = await FleetUnderLoad.start({ stack, partitions: 3, workloads, clients: { pauseMs: 5 } });
  for (let round = 0; round < rounds; round += 1) {
    await run.clients.progress(80);
    await run.kill('b');
    await run.clients.progress(60);
    await run.kill('a');
    await run.recovered();
    await run.clients.progress(80);
    await run.compare();
  }
  const { records } = await run.end();
  assert.ok(records > 300, `${records} records`);
});

test.run();
