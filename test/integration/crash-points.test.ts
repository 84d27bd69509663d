/**
 * Agents die at the places where a crash is worst: between Kafka and Postgres, in the middle of a
 * Kafka transaction, around the commit on a follower. A restart must go on exactly, under load,
 * with nothing lost and nothing twice.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, type NodeName, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { loadTables, seeded } from '../support/load.ts';
import { LoadedFleet } from '../support/loaded-fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let fleet: Fleet;
let loaded: LoadedFleet;
let agents: Record<NodeName, FleetAgent>;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions: 3, tables: loadTables });
  agents = await fleet.startAgents();
  loaded = await LoadedFleet.begin(fleet, { padding: 3_000 });
});

test.after(async () => {
  await loaded.stop();
  await fleet.close();
  await stack.close();
});

/** Restarts the agent so that it dies at the place, and then once more so that it lives. */
async function dieAt(node: NodeName, place: string, pass: number): Promise<void> {
  await agents[node].kill();
  const dying = fleet.spawnAgent(node, `${place}=kill:${pass}`);
  assert.is(await dying.exitCode(), null, `${place} was never reached:\n${dying.log}`);
  agents[node] = await fleet.startAgent(node);
}

const random = seeded(Number(process.env.UNDERSTUDY_TEST_SEED ?? Date.now() % 1e9));

const places: readonly (readonly [NodeName, string, number])[] = [
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
    await loaded.isExact();
  });
}

test('a kill in the middle of a transaction sent in pieces leaves no part of it', async () => {
  await loaded.stop();
  const insert = `INSERT INTO moving
    SELECT i, 0, repeat('n', 300) FROM generate_series(1000, 21000) AS i`;
  await agents.a.kill();
  const dying = fleet.spawnAgent('a', 'publish.after-send=kill:3');
  await fleet.sql('a', insert);
  assert.is(await dying.exitCode(), null, dying.log);
  const [before] = await fleet.sql('b', 'SELECT count(*)::int AS n FROM moving WHERE id >= 1000');
  assert.equal(before, { n: 0 });
  agents.a = await fleet.startAgent('a');
  await loaded.isExact();
  const [after] = await fleet.sql('b', 'SELECT count(*)::int AS n FROM moving WHERE id >= 1000');
  assert.equal(after, { n: 20_001 });
});

test('both agents dying at once, in any order of return, are exact again', async () => {
  for (const order of [['a', 'b'] as const, ['b', 'a'] as const]) {
    await loaded.progress(30);
    await Promise.all([agents.a.kill(), agents.b.kill()]);
    for (const node of order) agents[node] = await fleet.startAgent(node);
  }
  await loaded.isExact();
});

test.run();
