/**
 * Agents are killed at every step of a rebuild. The rules: at any moment the database of the node
 * serves readers with rows of one moment; the next start continues; the node cannot be promoted
 * before it is exact; nothing is left at the end. A follower that is not stale can be rebuilt as
 * well, and a leader never.
 */
// time-limit: 300s
// runs: ci, since test/unit/rebuild.test.ts has the decisions
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CleaningBroker } from '../support/cleaning-broker.ts';
import type { Fleet } from '../support/fleet.ts';
import { diesAt, startLocked } from '../support/node-lock.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const tables = `
  CREATE TABLE item (id int PRIMARY KEY, body text UNIQUE);
  CREATE TABLE part (id int PRIMARY KEY, item int REFERENCES item);
  CREATE INDEX part_item ON part (item)`;
const names = ['item', 'part', 'tick'];

const stack: Stack = await useStack({ postgres: 3 });
const withDump = await testWithDump(stack);
let broker: CleaningBroker;
let fleet: Fleet;

test.before(async () => {
  broker = await CleaningBroker.start();
});

test.after(async () => {
  await broker.close();
  await stack.close();
});

test.after.each(() => fleet.close());

/** Node c follows and is exact, with 50 items. */
async function begin(): Promise<void> {
  fleet = await broker.startFleet({ stack, tables, tablesByHand: false, partitions: 2 });
  await fleet.sql('a', `INSERT INTO item SELECT i, 'first ' || i FROM generate_series(1, 50) i`);
  await fleet.sql('a', 'INSERT INTO part SELECT i, i FROM generate_series(1, 50) i');
  await fleet.startAgent('c');
  await fleet.exact('c');
  await fleet.caughtUp('a', ['c']);
  await fleet.shows('c', 'promotable', ({ promotable }) => promotable);
}

/** By a session of its own, as a reader that connects now. */
async function itemsOn(node: 'a' | 'c'): Promise<unknown> {
  const reader = await fleet.session(node);
  const { rows } = await reader.query('SELECT count(*)::int AS n, min(body) AS least FROM item');
  return rows[0];
}

async function databases(): Promise<readonly string[]> {
  const reader = await fleet.session('c');
  const { rows } = await reader.query(
    `SELECT substr(datname, length(current_database()) + 1) AS name FROM pg_database
     WHERE starts_with(datname, current_database()) ORDER BY name`,
  );
  return rows.map(({ name }) => name);
}

withDump(
  'a rebuild that is killed at every step continues, and readers always have rows',
  async () => {
    await begin();
    assert.is(await fleet.agent('c').stop(), 0);
    await fleet.sql('a', `UPDATE item SET body = 'second ' || id`);
    await broker.cleaned(fleet, 'public.item', 55);
    const old = { n: 50, least: 'first 1' };
    for (const failpoint of [
      'rebuild.after-mark=kill',
      'rebuild.after-create=kill',
      'schema.after-statement=kill:2',
      'rebuild.after-prepare=kill',
      'apply.before-commit=kill:1',
      'apply.after-commit=kill:1',
      'schema.after-statement=kill:1',
      'rebuild.before-swap=kill',
      'rebuild.inside-swap=kill',
    ]) {
      await diesAt(fleet, 'c', failpoint);
      assert.equal(await itemsOn('c'), old, failpoint);
      const status = await fleet.nodeStatus('c');
      assert.equal(
        [status.exact, status.promotable],
        [false, false],
        `${failpoint}: ${status.why}`,
      );
    }
    assert.equal(await databases(), ['', '_understudy_rebuild']);
    await diesAt(fleet, 'c', 'rebuild.after-swap=kill');
    assert.equal(await itemsOn('c'), { n: 50, least: 'second 1' }, 'after the swap');
    assert.equal(await databases(), ['', '_understudy_old']);
    await diesAt(fleet, 'c', 'rebuild.after-drop=kill');
    assert.equal(await databases(), ['']);
    await startLocked(fleet, 'c', /"message":"following"/);
    await fleet.caughtUp('a', ['c']);
    await fleet.assertAllSame(names, 'a', ['c']);
    assert.is((await fleet.nodeStatus('c')).promotable, true);
    assert.is((await fleet.cli('verify', 'c')).code, 0);
  },
);

withDump('a follower that is not stale is rebuilt on request', async () => {
  await begin();
  const leader = await fleet.cli('rebuild', 'a');
  assert.is(leader.json.error.code, 'PREREQUISITE', leader.stdout);
  await fleet.tamper('c', `CREATE TABLE own (id int PRIMARY KEY); INSERT INTO own VALUES (1)`);
  const own = await fleet.cli('rebuild', 'c');
  assert.match(own.json.error.message, 'its table public.own holds rows');
  await fleet.tamper('c', 'TRUNCATE own');
  await fleet.tamper('c', `UPDATE item SET body = 'wrong' WHERE id = 7`);
  assert.is(await fleet.agent('c').stop(), 0);
  // Without an agent the request is stored, and the next one begins the rebuild.
  const asked = await fleet.cli('rebuild', 'c');
  assert.is(asked.code, 0, asked.stdout);
  assert.equal([asked.json.way, asked.json.agentRuns], ['swap', false]);
  assert.is((await fleet.nodeStatus('c')).promotable, false);
  const here = await fleet.cli('failover', 'c', '--allow-data-loss', '--reason', 'test');
  assert.is(here.json.error.code, 'NOT_PROMOTABLE', here.stdout);
  await diesAt(fleet, 'c', 'rebuild.after-prepare=kill');
  // Another request: the second database is dropped.
  const agent = fleet.spawnAgent('c', 'rebuild.after-prepare=pause:15000');
  await agent.logged(/building a second database/);
  const inPlace = await fleet.cli('rebuild', 'c', '--in-place');
  assert.is(inPlace.code, 0, `${inPlace.stdout}\n${fleet.logs()}`);
  assert.is(inPlace.json.database, null);
  await agent.logged(/"message":"following"/);
  assert.not.match(agent.log, 'swapped in the rebuilt database');
  await fleet.exact('c');
  await fleet.caughtUp('a', ['c']);
  await fleet.assertAllSame(names, 'a', ['c']);
  assert.equal(await databases(), ['']);
  // And in a second database, while it follows.
  await fleet.tamper('c', `UPDATE item SET body = 'wrong' WHERE id = 8`);
  assert.is((await fleet.cli('rebuild', 'c')).code, 0);
  await agent.logged(/dropped the old database/);
  await fleet.caughtUp('a', ['c']);
  await fleet.assertAllSame(names, 'a', ['c']);
});

withDump('destroy drops the second database', async () => {
  await begin();
  assert.is((await fleet.cli('rebuild', 'c')).code, 0);
  await fleet.agent('c').kill();
  await diesAt(fleet, 'c', 'rebuild.after-prepare=kill');
  await fleet.agent('a').stop();
  const listed = await fleet.cli('destroy');
  assert.match(
    listed.json.nodes.map((one: { databases: string[] }) => one.databases).join(),
    '_understudy_rebuild',
  );
  assert.is((await fleet.cli('destroy', '--yes')).code, 0);
  assert.equal(await databases(), ['']);
});

test.run();
