/**
 * ALTER TYPE, and ALTER TABLE for a column of that table's row type, can change the text of every
 * stored value, without a row message: the leader stops before it sends another row. A change that
 * leaves stored values alone does not stop it.
 */
// runs: ci, since test/unit/transaction-builder.test.ts has the decisions
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';
import { type Stack, useStack } from '../support/stack.ts';

/** The enum is reached through a domain over its array, a composite and a range. */
const tables = `
  CREATE TYPE mood AS ENUM ('sad', 'happy');
  CREATE DOMAIN moods AS mood[];
  CREATE TYPE pair AS (a int, m mood);
  CREATE TYPE span AS RANGE (subtype = mood);
  CREATE TYPE lonely AS ENUM ('x');
  CREATE TABLE array_of (id int PRIMARY KEY, v moods);
  CREATE TABLE row_of (id int PRIMARY KEY, v pair);
  CREATE TABLE range_of (id int PRIMARY KEY, v span);
  CREATE TABLE plain (id int PRIMARY KEY, s text);
  CREATE TABLE of_rows (id int PRIMARY KEY, v plain[])`;

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.before.each(async () => {
  fleet = await startFleet({ stack, tables });
  await fleet.startAgents();
  await fleet.sql('a', `INSERT INTO array_of VALUES (1, '{sad}')`);
  await fleet.caughtUp();
});

test.after.each(() => fleet.close());
test.after(() => stack.close());

async function noted(): Promise<readonly string[]> {
  const rows = await fleet.sql<{ name: string }>(
    'a',
    'SELECT table_oid::regclass::text AS name FROM understudy.unseen_changes ORDER BY 1',
  );
  return rows.map(({ name }) => name);
}

test('the same change on every node, and the hint, go on with the new type', async () => {
  const change = `ALTER TYPE pair ADD ATTRIBUTE b text`;
  await fleet.sql('a', `INSERT INTO row_of VALUES (1, '(1,sad)'); ${change}`);
  const agent = fleet.agent('a');
  assert.is(await agent.exitCode(), 4, agent.log);
  await fleet.tamper('b', change);
  await followHint(fleet, 'changesNotSentHint', agent);
  await fleet.startAgent('a');
  await fleet.sql('a', `INSERT INTO row_of VALUES (2, '(2,happy,new)')`);
  await fleet.applied('b');
  await fleet.complete('b');
  await fleet.assertSame('row_of');
});

for (const [change, tablesOfType] of [
  [`ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'`, ['array_of', 'range_of', 'row_of']],
  ['ALTER TYPE pair ADD ATTRIBUTE b text', ['row_of']],
  ['ALTER TABLE plain ADD COLUMN more int', ['of_rows']],
] as const) {
  test(`${change} stops the leader, and each table of the type is named`, async () => {
    await fleet.sql('a', change);
    assert.equal(await noted(), tablesOfType);
    for (const next of [() => fleet.agent('a'), () => fleet.spawnAgent('a')]) {
      const agent = next();
      assert.is(await agent.exitCode(), 4, agent.log);
      const what = `${change.split(' ', 2).join(' ')} changed how values of`;
      assert.match(agent.log, new RegExp(`"code":"SCHEMA_CHANGED".*${what}`));
    }
  });
}

test('a change that leaves stored values alone does not stop the leader', async () => {
  for (const node of fleet.nodes) {
    await fleet.tamper(node, `ALTER TYPE mood ADD VALUE 'calm' BEFORE 'happy'`);
  }
  await fleet.sql(
    'a',
    `ALTER TYPE lonely RENAME VALUE 'x' TO 'y'; ALTER TYPE mood OWNER TO CURRENT_USER;
     ALTER TABLE plain ALTER s SET STORAGE EXTERNAL; ALTER TABLE array_of SET (fillfactor = 70)`,
  );
  assert.equal(await noted(), []);
  await fleet.sql('a', `INSERT INTO array_of VALUES (2, '{calm,NULL}')`);
  await fleet.caughtUp();
  await fleet.assertSame('array_of');
});

test.run();
