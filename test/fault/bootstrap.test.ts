/**
 * What goes wrong while a new follower is built: kill -9 in each of its phases, cleaning while it
 * reads, tombstones that expire before they are read, partial rows at the end of the log, a torn
 * batch that truncates. The rules: the node continues where it was or starts over, no deleted row
 * returns, and until it is exact it cannot be promoted, verified or waited for.
 */
// time-limit: 300s
// runs: ci, since test/model/bootstrap.test.ts has its histories
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CleaningBroker, published, tick } from '../support/cleaning-broker.ts';
import type { Fleet } from '../support/fleet.ts';
import { Forger } from '../support/forger.ts';
import { isFull } from '../support/form.ts';
import { diesAt } from '../support/node-lock.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TABLE item (id int PRIMARY KEY, body text);
  CREATE TABLE page (id int PRIMARY KEY, small int, large text);
  ALTER TABLE page ALTER COLUMN large SET STORAGE EXTERNAL`;
const names = ['item', 'page', 'tick'];
const partitions = 2;
/** Together 24 MB: three transactions of the applier, and more. */
const rows = 400;
const body = (text: string) => `repeat(md5(i || '${text}'), 1900)`;
const promote = ['failover', 'c', '--allow-data-loss', '--reason', 'test'] as const;

let stack: Stack;
/** The leader's: one test holds a lock of it. */
let own: OwnServer;
let broker: CleaningBroker;
let fleet: Fleet;

test.before(async () => {
  const starts = [useStack({ postgres: 3 }), ownServer(), CleaningBroker.start()] as const;
  [stack, own, broker] = await Promise.all(starts);
});

test.after(async () => {
  await Promise.all([broker.close(), own.close()]);
  await stack.close();
});

test.after.each(() => fleet.close());

async function begin(deleteRetentionMs = 600_000): Promise<void> {
  const servers = { a: own.server };
  fleet = await broker.startFleet({ stack, servers, tables, partitions, deleteRetentionMs });
  for (let from = 1; from <= rows; from += 100) {
    const ids = `generate_series(${from}, ${from + 99}) AS i`;
    await fleet.sql('a', `INSERT INTO item SELECT i, ${body('first')} FROM ${ids}`);
  }
  const second = body('second').replaceAll('i ', 'id ');
  for (const part of [0, 1, 2, 3]) {
    await fleet.sql('a', `UPDATE item SET body = ${second} WHERE id % 4 = ${part}`);
  }
  await tick(fleet);
  // A node that is built reads up to the end of the log as it finds it.
  await published(fleet);
}

test('a node that is killed in every phase of its build continues', async () => {
  await begin();
  for (const failpoint of [
    'apply.before-commit=kill:1',
    'apply.before-commit=kill:2',
    'apply.after-commit=kill:1',
  ]) {
    await diesAt(fleet, 'c', failpoint);
    await fleet.sql('a', `UPDATE item SET body = 'last' || id WHERE id % 3 = 0`);
    await broker.cleaned(fleet, 'public.item', 2 * rows);
    const status = await fleet.nodeStatus('c');
    assert.is(status.exact, false, JSON.stringify(status));
  }
  const [begun] = await fleet.sql('c', 'SELECT count(*)::int AS n FROM item');
  assert.ok(Number(begun?.['n']) > 0, `rows that were committed are missing\n${fleet.logs()}`);
  await fleet.startAgent('c');
  await fleet.exact('c');
  await fleet.caughtUp('a', ['c']);
  await fleet.assertAllSame(names, 'a', ['c']);
});

test('a build that outlasts the tombstones starts over, and no deleted row returns', async () => {
  await begin(8_000);
  const agent = fleet.spawnAgent('c', 'apply.before-commit=pause:12000:1');
  await agent.logged(/building this node/);
  await fleet.sql('a', 'DELETE FROM item WHERE id % 2 = 0');
  await broker.cleaned(fleet, 'public.item', rows / 2 + 10);
  await agent.logged(/"reason":"reading took/);
  await fleet.exact('c');
  await fleet.caughtUp('a', ['c']);
  await fleet.assertAllSame(names, 'a', ['c']);
});

test('a node with partial rows cannot be promoted, verified or waited for', async () => {
  await begin();
  await fleet.sql(
    'a',
    `INSERT INTO page SELECT i, 0, ${body('page')} FROM generate_series(1, 3) i`,
  );
  // The reselect waits for the lock.
  const locking = await fleet.session('a');
  await locking.query('BEGIN; UPDATE page SET small = 1');
  await locking.query('COMMIT; BEGIN; LOCK TABLE page IN ACCESS EXCLUSIVE MODE');
  await tick(fleet);
  await fleet.startAgent('c');
  const status = await fleet.nodeStatus('c');
  assert.is(status.state, 'bootstrapping', JSON.stringify(status));
  assert.is(status.promotable, false);
  const refused = await fleet.cli(...promote);
  assert.is(refused.code, 4, refused.stdout);
  assert.is(refused.json.error.code, 'NOT_PROMOTABLE');
  assert.is((await fleet.cli('verify', 'c')).json.error.code, 'UNFINISHED');
  const waits = fleet.sql('c', 'SELECT understudy.wait_for($1, $2)', [await fleet.token(), '1 s']);
  const error = await waits.then(() => null).catch((one: Error) => one);
  assert.match(String(error), /being built from the log/);
  await fleet.agent('c').kill();
  await diesAt(fleet, 'c', 'agent.after-start=kill');
  await fleet.startAgent('c');
  assert.is((await fleet.nodeStatus('c')).exact, false);
  await locking.query('COMMIT');
  await fleet.exact('c');
  await fleet.caughtUp('a', ['c']);
  await fleet.assertAllSame(names, 'a', ['c']);
  assert.is((await fleet.cli('verify', 'c')).code, 0);
});

(isFull ? test : test.skip)('a torn batch that truncates is void', async () => {
  await begin();
  await fleet.agent('a').stop();
  const forger = new Forger(fleet);
  const torn = await forger.truncateAfter(await forger.lastPoint(), 'public.item');
  await forger.commit('publisher', torn.slice(0, 1));
  // Its next start finds the torn batch and begins an epoch that voids it.
  await fleet.startAgent('a');
  await broker.cleaned(fleet, 'public.item', 2 * rows);
  await fleet.startAgent('c');
  await fleet.exact('c');
  await fleet.caughtUp('a', ['c']);
  await fleet.assertAllSame(names, 'a', ['c']);
  const [count] = await fleet.sql('c', 'SELECT count(*)::int AS n FROM item');
  assert.equal(count, { n: rows });
});

test.run();
