/**
 * One partition has a hundred times more to carry than the others, and the follower is frozen on
 * top of it. No reader sees a transaction in part while partitions stand at different places, and
 * what waits for the slow one does not fill the follower's memory.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { residentBytes } from '../support/checker/resident-bytes.ts';
import { FaultRun } from '../support/fault-run.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { pairs } from '../support/workloads/pairs.ts';
import { slowPartition } from '../support/workloads/versions.ts';

// time-limit: 600s

const rounds = process.env['UNDERSTUDY_TEST_FULL'] === undefined ? 1 : 10;
const frozenMs = 2_000;
const residentMax = 600 * 1024 ** 2;
let stack: Stack;
let run: FaultRun;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  run = await FaultRun.begin({ stack, partitions: 4, workloads: [bank, pairs, slowPartition] });
});

test.after(async () => {
  await run.close();
  await stack.close();
});

test('readers see whole transactions while one partition lags, within bounded memory', async () => {
  const { fleet, clients, watchers } = run;
  for (let round = 0; round < rounds; round += 1) {
    await clients.progress(150);
    fleet.agent('b').signal('SIGSTOP');
    await Promise.all([sleep(frozenMs), clients.progress(150)]);
    fleet.agent('b').signal('SIGCONT');
    await clients.progress(150);
    const bytes = residentBytes(fleet.agent('b').pid) ?? 0;
    assert.ok(bytes < residentMax, `the follower's agent has ${bytes} bytes`);
  }
  await run.end();
  assert.ok(watchers.looksAt('b') > 5, `${watchers.looksAt('b')} looks`);
});

test.run();
