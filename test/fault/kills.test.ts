/**
 * Agents are killed at random moments under load, publisher and appliers, alone and together, with
 * four partitions, and in the full form with one. Rows are compared at points on the way; at the
 * end nothing that was acknowledged is lost and nothing is there twice, on any node and in the
 * topic.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NodeName } from '../support/fleet-options.ts';
import { FleetUnderLoad } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { between, someOf } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { largeBatches } from '../support/workloads/large-batches.ts';

// time-limit: 900s
// runs: ci, since test/integration/transactions-whole.test.ts kills each agent

/** For each number of partitions. */
const kills = isFull ? 100 : 6;
/** In rounds. */
const comparedEvery = isFull ? 10 : 3;
const nodes = isFull ? 3 : 2;
const batchKills = isFull ? 20 : 2;
let stack: Stack;
let run: FleetUnderLoad | null = null;

test.before(async () => {
  stack = await useStack({ postgres: nodes });
});

test.after.each(async () => {
  await run?.close();
  run = null;
});

test.after(() => stack.close());

/** One of them, some, or all at once, in any order. */
function victims({ random, nodes }: FleetUnderLoad): readonly NodeName[] {
  return someOf(random, nodes, between(random, 1, nodes.length));
}

for (const partitions of isFull ? [1, 4] : [4]) {
  test(`${kills} kills at random moments over ${partitions} partitions`, async () => {
    run = await FleetUnderLoad.start({ stack, partitions, nodes, clients: { writers: 1 } });
    const { random, clients } = run;
    for (let killed = 0, round = 1; killed < kills; round += 1) {
      await sleep(between(random, 0, 700));
      const chosen = victims(run);
      await run.kill(...chosen);
      killed += chosen.length;
      // The other half is killed while it starts.
      if (random() < 0.5) await run.recovered();
      if (round % comparedEvery === 0) {
        await run.recovered();
        await clients.progress(40);
        await run.compare();
      }
    }
    await run.recovered();
    const { snapshots, acknowledged } = await run.end();
    assert.ok(snapshots > kills, `${snapshots} snapshots`);
    assert.ok(acknowledged > kills, `${acknowledged} commits`);
  });
}

test('a publisher killed in the middle of large batches repeats and loses none', async () => {
  const workloads = [largeBatches, bank];
  run = await FleetUnderLoad.start({
    stack,
    partitions: 4,
    workloads,
    clients: { writers: 1, pauseMs: 300 },
  });
  const { random, clients } = run;
  for (let done = 1; done <= batchKills; done += 1) {
    // A leader that is killed before each first point publishes nothing, while WAL piles up.
    await run.fleet.caughtUp();
    await clients.progress(1);
    await sleep(between(random, 0, 400));
    await run.kill('a');
    await run.recovered();
  }
  await run.end();
});

test.run();
