/**
 * Agents die at the places where a crash is worst: between Kafka and Postgres, in the middle of a
 * Kafka transaction, around the commit on a follower. A restart must go on exactly, under load,
 * with nothing lost and nothing twice.
 */
// runs: ci
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FleetUnderLoad, seed } from '../support/fleet-under-load.ts';
import { seeded } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let under: FleetUnderLoad;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  under = await FleetUnderLoad.start({ stack, partitions: 3 }, 3_000);
});

test.after(async () => {
  await under.close();
  await stack.close();
});

/** Restarts the agent so that it dies at the place, and then once more so that it lives. */
async function dieAt(node: 'a' | 'b', place: string, pass: number): Promise<void> {
  const { fleet } = under;
  await fleet.agent(node).kill();
  const dying = fleet.spawnAgent(node, `${place}=kill:${pass}`);
  assert.is(await dying.exitCode(), null, `${place} was never reached:\n${dying.log}`);
  await fleet.startAgent(node);
}

const random = seeded(seed);

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
    if (passMax > 1) await dieAt(node, place, 1);
    await under.isExact();
  });
}

test('a kill in the middle of a transaction sent in pieces leaves no part of it', async () => {
  const { fleet } = under;
  const insert = `INSERT INTO moving
    SELECT i, 0, repeat('n', 300) FROM generate_series(1000, 21000) AS i`;
  const arrived = async (): Promise<number> => {
    const rows = await fleet.sql('b', 'SELECT 1 FROM moving WHERE id >= 1000');
    return rows.length;
  };
  await under.rest();
  await under.leader.kill();
  const dying = fleet.spawnAgent('a', 'publish.after-send=kill:3');
  await fleet.sql('a', insert);
  assert.is(await dying.exitCode(), null, dying.log);
  assert.is(await arrived(), 0);
  await fleet.startAgent('a');
  await fleet.caughtUp();
  assert.is(await arrived(), 20_001);
  await under.isExact();
});

test('both agents dying at once, in any order of return, are exact again', async () => {
  for (const order of [['a', 'b'] as const, ['b', 'a'] as const]) {
    await under.progress(30);
    await Promise.all([under.leader.kill(), under.follower.kill()]);
    for (const node of order) await under.fleet.startAgent(node);
  }
  await under.isExact();
});

test.run();
