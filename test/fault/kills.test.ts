/**
 * Agents are killed at random moments under load, publisher and appliers, alone and together, with
 * one partition and with four. Rows are compared at points on the way; at the end nothing that was
 * acknowledged is lost and nothing is there twice, on any node and in the topic.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FaultRun } from '../support/fault-run.ts';
import type { NodeName } from '../support/fleet.ts';
import { between } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { largeBatches } from '../support/workloads/large-batches.ts';

// time-limit: 900s

const isFull = process.env['UNDERSTUDY_TEST_FULL'] !== undefined;
/** For each number of partitions. */
const kills = isFull ? 100 : 6;
const comparedEvery = isFull ? 10 : 6;
const writers = isFull ? 2 : 1;
const batchKills = isFull ? 20 : 2;
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

/** One of them, or all at once. */
function victims(random: () => number): readonly NodeName[] {
  const drawn = random();
  if (drawn < 0.45) return ['a'];
  if (drawn < 0.85) return ['b'];
  return random() < 0.5 ? ['a', 'b'] : ['b', 'a'];
}

for (const partitions of [1, 4]) {
  test(`${kills} kills at random moments over ${partitions} partitions`, async () => {
    run = await FaultRun.begin({ stack, partitions, clients: { writers } });
    const { random, clients } = run;
    for (let done = 1; done <= kills; done += 1) {
      await sleep(between(random, 0, 700));
      await run.kill(...victims(random));
      // The other half is killed while it starts.
      if (random() < 0.5) await run.recovered();
      if (done % comparedEvery === 0) {
        await run.recovered();
        await clients.progress(40);
        await run.compare();
      }
    }
    const { looks, acknowledged } = await run.end();
    assert.ok(looks > kills && acknowledged > kills, `${looks} looks, ${acknowledged} commits`);
  });
}

test('a publisher killed in the middle of large batches repeats and loses none', async () => {
  const workloads = [largeBatches, bank];
  run = await FaultRun.begin({
    stack,
    partitions: 4,
    workloads,
    clients: { writers: 1, pauseMs: 300 },
  });
  const { random, clients } = run;
  for (let done = 1; done <= batchKills; done += 1) {
    await clients.progress(2);
    await sleep(between(random, 0, 400));
    await run.kill('a');
    await run.recovered();
  }
  await run.end();
});

test.run();
