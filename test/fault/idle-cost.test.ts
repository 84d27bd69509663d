/**
 * A pair of idle agents uses next to no CPU: there is no busy loop and no timer without a purpose.
 * Counted in CPU time, which a slow or a busy machine hardly changes, not in wall time.
 */
// time-limit: 240s
// runs: full, since it needs a machine of its own
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { isFull } from '../support/form.ts';
import { cpuSeconds } from '../support/process-cost.ts';
import { type Stack, useStack } from '../support/stack.ts';

/** The promise is 2 % of a core for both; within 20 s one collection of garbage would show. */
const [overSeconds, shareMax] = isFull ? [60, 0.02] : [20, 0.03];
/** Starting compiles code, and the engine tidies up for a while after. */
const settleMs = 15_000;

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, tables: 'CREATE TABLE item (id int PRIMARY KEY)' });
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function shareOf(agents: readonly FleetAgent[]): Promise<number[]> {
  const before = await Promise.all(agents.map(({ pid }) => cpuSeconds(pid)));
  await sleep(overSeconds * 1000);
  const after = await Promise.all(agents.map(({ pid }) => cpuSeconds(pid)));
  return after.map((seconds, i) => (seconds - (before[i] ?? 0)) / overSeconds);
}

test('an idle pair of agents uses next to nothing of a core', async () => {
  const { a, b } = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1)');
  await fleet.caughtUp();
  await sleep(settleMs);
  const shares = await shareOf([a, b]);
  const percent = shares.map((share) => `${(share * 100).toFixed(2)} %`).join(' and ');
  process.stderr.write(`leader and follower use ${percent} of a core\n`);
  const both = shares.reduce((sum, share) => sum + share, 0);
  assert.ok(both < shareMax, `idle agents use ${percent}, together more than ${shareMax * 100} %`);
});

test.run();
