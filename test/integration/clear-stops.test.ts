/**
 * What this version cannot replicate must stop the agent with the right code, before anything past
 * it is applied: else nodes would differ without an error.
 */
// runs: ci, since test/integration/later-tables.test.ts has the stop of its kind
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { followHint } from '../support/hint-runner.ts';
import { type Stack, useStack } from '../support/stack.ts';

const tables = 'CREATE TABLE item (id int PRIMARY KEY, n int, body text)';
let stack: Stack;
const fleets: Fleet[] = [];

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after(async () => {
  for (const fleet of fleets) await fleet.close();
  await stack.close();
});

/** The one before is over then: every fleet holds a slot and connections of the shared servers. */
async function newFleet(partitions = 2): Promise<Fleet> {
  await fleets.pop()?.close();
  const fleet = await startFleet({ stack, partitions, tables });
  fleets.push(fleet);
  return fleet;
}

/** Ends with exit code 4 and this error, now and when it is started again. */
async function stops(fleet: Fleet, agent: FleetAgent, code: string): Promise<FleetAgent> {
  const isThisStop = async (one: FleetAgent): Promise<FleetAgent> => {
    assert.is(await one.exitCode(), 4, one.log);
    assert.match(one.log, new RegExp(`"code":\\s*"${code}"`));
    return one;
  };
  await isThisStop(agent);
  return await isThisStop(fleet.spawnAgent(agent.node as 'a' | 'b'));
}

async function ids(fleet: Fleet, node: 'a' | 'b' = 'b'): Promise<number[]> {
  const rows = await fleet.sql<{ id: number }>(node, 'SELECT id FROM item ORDER BY id');
  return rows.map(({ id }) => id);
}

test('a table that is dropped and re-created stops the leader', async () => {
  const fleet = await newFleet();
  const agents = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1)');
  await fleet.caughtUp();
  await fleet.sql('a', `BEGIN; DROP TABLE item; ${tables}; INSERT INTO item VALUES (2); COMMIT`);
  await stops(fleet, agents.a, 'SCHEMA_CHANGED');
  assert.equal(await ids(fleet), [1]);
});

for (const change of [
  'ADD COLUMN more int',
  'DROP COLUMN body',
  'ALTER COLUMN n TYPE bigint',
  'RENAME COLUMN n TO m',
  'RENAME TO renamed',
  'SET SCHEMA later',
]) {
  test(`ALTER TABLE … ${change} and a write stop the leader`, async () => {
    const fleet = await newFleet(1);
    const agents = await fleet.startAgents();
    await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
    await fleet.caughtUp();
    const name = { 'RENAME TO renamed': 'renamed', 'SET SCHEMA later': 'later.item' }[change];
    await fleet.sql(
      'a',
      `BEGIN; CREATE SCHEMA later; ALTER TABLE item ${change};
      INSERT INTO ${name ?? 'item'} (id) VALUES (2); COMMIT`,
    );
    await stops(fleet, agents.a, 'SCHEMA_CHANGED');
    // Ids outlive names: a row that Postgres sends before the message with the new name is right.
    if (name === undefined) assert.equal(await ids(fleet), [1]);
  });
}

for (const [what, change] of [
  ['rewrites a table', () => 'ALTER TABLE item ALTER n TYPE int USING n * 100'],
  [
    'makes a column again',
    () => `ALTER TABLE item DROP COLUMN body; ALTER TABLE item ADD COLUMN body text DEFAULT 'new'`,
  ],
  [
    'leaves deletes out of the publication',
    (cluster: string) => `ALTER PUBLICATION understudy_${cluster} SET (publish = 'insert, update')`,
  ],
] as const) {
  test(`what ${what} stops the leader without a single row message`, async () => {
    const fleet = await newFleet(1);
    const agents = await fleet.startAgents();
    await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
    await fleet.caughtUp();
    await fleet.sql('a', change(fleet.cluster));
    await stops(fleet, agents.a, 'SCHEMA_CHANGED');
    const [leads, follows] = (await fleet.status()).nodes;
    assert.match(leads?.why.join() ?? '', /with SCHEMA_CHANGED/);
    assert.is(follows?.promotable, false, 'the stream does not carry the change');
    const { json } = await fleet.cli('failover', 'b', '--dry-run');
    assert.match(json.lacks.join(), /the leader stopped at a change/);
  });
}

test('a follower’s table that differs stops it until it is corrected', async () => {
  const fleet = await newFleet();
  for (const [harm, mend] of [
    ['ALTER TABLE item DROP COLUMN n', 'ALTER TABLE item ADD COLUMN n int'],
    ['ALTER TABLE item ALTER n TYPE text', 'ALTER TABLE item ALTER n TYPE int USING n::int'],
  ] as const) {
    await fleet.tamper('b', harm);
    const agents = await fleet.startAgents();
    await fleet.sql('a', 'INSERT INTO item SELECT coalesce(max(id), 0) + 1, 7 FROM item');
    const stopped = await stops(fleet, agents.b, 'SCHEMA_DIFFERS');
    assert.not(agents.a.ended);
    await followHint(fleet, 'changeHere', stopped, { on: ['b'], fill: { change: mend } });
    await fleet.startAgent('b');
    await fleet.caughtUp();
    await fleet.assertSame('(SELECT id, n, body FROM item)');
    await Promise.all([fleet.agent('a').stop(), fleet.agent('b').stop()]);
  }
});

test('a row that a follower refuses stops it before its transaction', async () => {
  const fleet = fleets.at(-1) as Fleet;
  await fleet.tamper('b', 'ALTER TABLE item ADD CONSTRAINT narrow CHECK (n < 100)');
  const agents = await fleet.startAgents();
  const before = await ids(fleet);
  await fleet.sql('a', 'BEGIN; INSERT INTO item VALUES (50, 1), (51, 100); COMMIT');
  const stopped = await stops(fleet, agents.b, 'ROW_REFUSED');
  assert.equal(await ids(fleet), before);
  await followHint(fleet, 'changeHere', stopped, { on: ['b'] });
  await fleet.startAgent('b');
  await fleet.caughtUp();
  await fleet.assertSame('(SELECT id, n, body FROM item)');
});

test('a function that needs a search_path is named, with what sets it', async () => {
  await fleets.pop()?.close();
  const languages = [
    ['plain', `LANGUAGE plpgsql AS 'BEGIN RETURN inner_one($1); END'`],
    ['inlined', `LANGUAGE sql AS 'SELECT inner_one($1)'`],
  ];
  const functions = languages.map(
    ([name, body]) => `CREATE FUNCTION ${name}(n int) RETURNS int IMMUTABLE ${body};`,
  );
  const checks = languages.map(([name]) => `CHECK (${name}(n) < 100)`);
  const fleet = await startFleet({
    stack,
    tables: `CREATE FUNCTION inner_one(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
      ${functions.join('')} CREATE TABLE item (id int PRIMARY KEY, n int, ${checks.join()})`,
  });
  fleets.push(fleet);
  const agents = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
  let agent: FleetAgent = agents.b;
  for (const _ of languages) {
    const stopped = await stops(fleet, agent, 'ROW_REFUSED');
    assert.match(stopped.log, /SQLSTATE 42883, table public.item/);
    const fill = { schemas: 'public' };
    await followHint(fleet, 'changeHere', stopped, { on: ['b'], fill });
    await followHint(fleet, 'refusedHint', stopped, { on: ['a'], fill });
    agent = fleet.spawnAgent('b');
  }
  await fleet.caughtUp();
  await fleet.assertSame('item');
});

test.run();
