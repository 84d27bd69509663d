/**
 * Agents are killed where a crash is worst: between Kafka and Postgres, in the middle of a Kafka
 * transaction, around the commit on a follower. A restart continues exactly, under load, with
 * nothing lost and nothing twice.
 */
// runs: ci, since test/model/publish.test.ts and align.test.ts crash at every step
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FleetUnderLoad } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { seeded, seedOfRun } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { entries } from '../support/workloads/entries.ts';
import { moves } from '../support/workloads/moves.ts';
import { versions } from '../support/workloads/versions.ts';

let stack: Stack;
let under: FleetUnderLoad;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  const tables = 'CREATE TABLE many (id int PRIMARY KEY, n int, note text)';
  const workloads = [bank, entries, moves, versions];
  under = await FleetUnderLoad.start({ stack, partitions: 3, workloads, tables });
});

test.after(async () => {
  await under.close();
  await stack.close();
});

/** Restarts the agent so that it dies at the failpoint, and then once more so that it lives. */
async function dieAt(node: 'a' | 'b', place: string, pass: number): Promise<void> {
  const { fleet } = under;
  await fleet.agent(node).kill();
  const dying = fleet.spawnAgent(node, `${place}=kill:${pass}`);
  assert.is(await dying.exitCode(), null, `${place} was never reached:\n${dying.log}`);
  await fleet.startAgent(node);
}

const random = seeded(seedOfRun());

const places: readonly (readonly ['a' | 'b', string, number])[] = [
  ['a', 'publish.before-send', 20],
  ['a', 'publish.before-commit', 20],
  ['a', 'publish.after-commit', 20],
  ['a', 'ack.before', 20],
  ['a', 'own.after-init', 1],
  ['a', 'own.after-fence', 1],
  ['b', 'apply.before', 10],
  ['b', 'apply.before-commit', 10],
  ['b', 'apply.after-commit', 10],
];

for (const [node, place, passMax] of places) {
  const pass = 1 + Math.floor(random() * passMax);
  test(`a kill at ${place}, pass ${pass}, loses nothing and repeats nothing`, async () => {
    await dieAt(node, place, pass);
    if (isFull && passMax > 1) await dieAt(node, place, 1);
    await under.isExact();
  });
}

test('a kill in the middle of a transaction sent in pieces leaves no part of it', async () => {
  const { fleet } = under;
  const insert = `INSERT INTO many
    SELECT i, 0, repeat('n', 300) FROM generate_series(1000, 21000) AS i`;
  const arrived = async (): Promise<number> => {
    const rows = await fleet.sql('b', 'SELECT 1 FROM many');
    return rows.length;
  };
  await under.clients.pause();
  await under.leaderAgent.kill();
  const dying = fleet.spawnAgent('a', 'publish.after-send=kill:3');
  await fleet.sql('a', insert);
  assert.is(await dying.exitCode(), null, dying.log);
  assert.is(await arrived(), 0);
  await fleet.startAgent('a');
  await fleet.caughtUp();
  assert.is(await arrived(), 20_001);
  await fleet.assertSame('many');
  await under.isExact();
});

test('both agents killed at once are exact again, in any order of their starts', async () => {
  for (const order of [['a', 'b'] as const, ['b', 'a'] as const]) {
    await under.progress(30);
    await Promise.all([under.leaderAgent.kill(), under.fleet.agent('b').kill()]);
    for (const node of order) await under.fleet.startAgent(node);
  }
  await under.isExact();
});

test.run();
