/**
 * Keys that are easily taken for another, large values that updates leave out, keys that change and
 * come back within a transaction: under kills of both agents every node ends with the same rows,
 * and so does whoever folds the topic.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FaultRun } from '../support/fault-run.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { keyCases } from '../support/workloads/key-cases.ts';

// time-limit: 600s

const rounds = process.env['UNDERSTUDY_TEST_FULL'] === undefined ? 1 : 12;
let stack: Stack;
let run: FaultRun | null = null;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after(async () => {
  await run?.close();
  await stack.close();
});

test('rows of every kind of key are the same on all nodes and in the topic', async () => {
  const workloads = [keyCases, bank];
  run = await FaultRun.begin({ stack, partitions: 3, workloads, clients: { pauseMs: 5 } });
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
