/**
 * `keyless: append`: rows of tables without an identity arrive, each as often as it was written,
 * also after kills of the follower. Changing or deleting one stops the stream: Postgres refuses it,
 * or the leader's agent does where Postgres allows it. Tests run in order, on one fleet.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';
import { type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TABLE log (at int, line text);
  CREATE TABLE full_log (line jsonb); ALTER TABLE full_log REPLICA IDENTITY FULL;
  CREATE TABLE by_day (day int, line text, twice int GENERATED ALWAYS AS (day * 2) STORED)
    PARTITION BY RANGE (day);
  CREATE TABLE by_day_1 PARTITION OF by_day FOR VALUES FROM (0) TO (10);
  CREATE TABLE placed (id int PRIMARY KEY, place int UNIQUE)`;
const all = ['log', 'full_log', 'by_day', 'placed'];

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions: 3, tables, init: false });
});

test.after(async () => {
  await fleet?.close();
  await stack?.close();
});

async function same(): Promise<void> {
  await fleet.caughtUp();
  for (const table of all) await fleet.assertSame(table);
}

test('without the setting, check and init name each table and the remedy', async () => {
  for (const verb of ['check', 'init']) {
    const { code, json, stderr } = await fleet.cli(verb);
    assert.is(code, 4);
    const text = `${JSON.stringify(json)}${stderr}`.replaceAll('\\', '');
    assert.match(text, /TABLE_UNSUPPORTED/, verb);
    for (const table of ['log', 'full_log', 'by_day']) {
      const sql = `ALTER TABLE "public"."${table}" ADD COLUMN "id"`;
      // People read the names of all, programs the statements of each.
      const remedy = verb === 'check' ? sql : `public.${table}\\b`;
      assert.match(text, new RegExp(remedy), verb);
    }
  }
});

test('with it, check warns, and a table without any column is still refused', async () => {
  await fleet.configure({ ...fleet.config, keyless: 'append' });
  const { code, json } = await fleet.cli('check');
  assert.is(code, 0, JSON.stringify(json));
  const warned = json.findings.filter((one: { code: string }) => one.code === 'APPEND_ONLY');
  assert.equal(
    warned.map((one: { object: string }) => one.object),
    ['public.by_day', 'public.full_log', 'public.log'],
  );
  await fleet.sql('a', 'CREATE TABLE nothing ()');
  assert.is((await fleet.cli('check')).code, 4);
  await fleet.sql('a', 'DROP TABLE nothing');
  assert.is((await fleet.cli('init')).code, 0);
  await fleet.startAgents();
});

test('equal rows are several rows, in one transaction, in many, and after a TRUNCATE', async () => {
  const line = `INSERT INTO log VALUES (1, 'again')`;
  await fleet.sql('a', `INSERT INTO log SELECT 1, 'again' FROM generate_series(1, 5000)`);
  for (let i = 0; i < 20; i += 1) await fleet.sql('a', `${line}; ${line}`);
  await fleet.sql('a', `INSERT INTO full_log VALUES ('1'), ('1'), (NULL)`);
  await fleet.sql('a', `INSERT INTO by_day SELECT i % 10, 'x' FROM generate_series(1, 100) AS i`);
  await same();
  assert.equal(await fleet.sql('b', 'SELECT count(*)::int AS n FROM log'), [{ n: 5040 }]);
  await fleet.sql('a', `BEGIN; ${line}; TRUNCATE log; ${line}; COMMIT`);
  await same();
  assert.equal(await fleet.sql('b', 'SELECT count(*)::int AS n FROM log'), [{ n: 1 }]);
});

test('a batch that is applied row by row, and a killed follower, double no row', async () => {
  await fleet.sql('a', 'INSERT INTO placed VALUES (1, 1), (2, 2)');
  await same();
  await fleet.sql(
    'a',
    `BEGIN; INSERT INTO log SELECT i, 'with a swap' FROM generate_series(1, 100) AS i;
     UPDATE placed SET place = 3 WHERE id = 1; UPDATE placed SET place = 1 WHERE id = 2;
     UPDATE placed SET place = 2 WHERE id = 1; COMMIT`,
  );
  await same();
  for (const failpoint of ['apply.before-commit', 'apply.after-commit']) {
    await fleet.agent('b').stop();
    const dying = fleet.spawnAgent('b', `${failpoint}=kill`);
    await fleet.sql('a', `INSERT INTO log SELECT i, '${failpoint}' FROM generate_series(1, 50) i`);
    await dying.exitCode();
    await fleet.startAgent('b');
    await same();
  }
  const { code, json } = await fleet.cli('verify');
  assert.is(code, 0, JSON.stringify(json));
});

test('a new partition of such a table takes rows too', async () => {
  const next = 'CREATE TABLE by_day_2 PARTITION OF by_day FOR VALUES FROM (10) TO (20)';
  await fleet.tamper('b', next);
  await fleet.sql('a', `${next}; INSERT INTO by_day VALUES (10, 'y'), (10, 'y'), (1, 'z')`);
  await same();
});

test('Postgres refuses to change or delete a row without identity', async () => {
  for (const statement of [`UPDATE log SET line = 'no'`, 'DELETE FROM log WHERE at = 1']) {
    const refused = await fleet.sql('a', statement).catch((error: { code?: string }) => error.code);
    assert.is(refused, '55000', statement);
  }
  await same();
});

test('a resnapshot of all is refused, and one of the tables that have a key works', async () => {
  const refused = await fleet.cli('resnapshot', '--all');
  assert.is(refused.code, 4, refused.stdout);
  const fill = { table: 'public.placed' };
  await followHint(fleet, 'resnapshotWithoutKey', refused, { fill });
  await same();
});

test('where Postgres allows the change, the leader stops at it', async () => {
  await fleet.sql('a', `INSERT INTO full_log VALUES ('"before"')`);
  await fleet.caughtUp();
  const before = await fleet.digest('b', 'full_log');
  await fleet.sql('a', `BEGIN; INSERT INTO full_log VALUES ('2'); DELETE FROM full_log; COMMIT`);
  assert.is(await fleet.agent('a').exitCode(), 4, fleet.logs());
  assert.match(
    fleet.agent('a').log,
    /TABLE_UNSUPPORTED.*full_log was deleted|full_log was deleted/,
  );
  assert.is(await fleet.digest('b', 'full_log'), before);
});

test.run();
