/**
 * A follower that was stopped until the broker had compacted what it lacks, with deletes whose
 * tombstones have expired: it is rebuilt from the log, in a second database or in its own tables.
 * No deleted row returns, readers of the old database are served meanwhile, and the node cannot be
 * promoted, verified or detached before it is exact; then it leads.
 */
// time-limit: 300s
// runs: ci, since test/integration/bootstrap.test.ts builds from the same topic
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CleaningBroker, tick } from '../support/cleaning-broker.ts';
import type { Fleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';
import { startLocked } from '../support/node-lock.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const tables = `
  CREATE TABLE item (id int PRIMARY KEY, body text UNIQUE, extra int DEFAULT 7);
  CREATE TABLE part (id int PRIMARY KEY, item int REFERENCES item ON DELETE CASCADE);
  CREATE INDEX part_item ON part (item);
  CREATE VIEW bodies AS SELECT body FROM item WHERE id < 5`;
const names = ['item', 'part', 'bodies', 'tick'];
const deleteRetentionMs = 8_000;
const longerThanTheTest = 290_000;
const following = /"message":"following"/;

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

/** Node c follows and is stopped; what it lacks is cleaned, with the tombstones in it. */
async function goesStale(tablesByHand: boolean, isLagLowered = false): Promise<void> {
  const lag = isLagLowered ? { compactionLagMs: 86_400_000 } : {};
  const shape = { tables, tablesByHand, partitions: 2, deleteRetentionMs, ...lag };
  fleet = await broker.startFleet({ stack, ...shape });
  await fleet.sql('a', `INSERT INTO item SELECT i, 'first ' || i FROM generate_series(1, 300) i`);
  await fleet.sql('a', 'INSERT INTO part SELECT i, i FROM generate_series(1, 300) i');
  await tick(fleet);
  await fleet.startAgent('c');
  await fleet.exact('c');
  await fleet.caughtUp('a', ['c']);
  await fleet.shows('c', 'promotable', ({ promotable }) => promotable);
  assert.is(await fleet.agent('c').stop(), 0);
  if (isLagLowered) await broker.lowerLag(fleet, { deleteRetentionMs, compactionLagMs: 6_000 });
  await fleet.sql('a', 'DELETE FROM item WHERE id % 3 = 0');
  await fleet.sql('a', `UPDATE item SET body = 'second ' || id`);
  await fleet.sql('a', `UPDATE item SET body = CASE id WHEN 1 THEN 'x' ELSE body END`);
  await fleet.sql('a', `UPDATE item SET body = 'second 1' WHERE id = 2`);
  await fleet.sql('a', `INSERT INTO item SELECT i, 'late ' || i FROM generate_series(301, 310) i`);
  await broker.cleaned(fleet, 'public.item', 215);
  assert.is((await fleet.cli('point', 'while-away')).code, 0);
}

async function equalAndLeads(): Promise<void> {
  await fleet.exact('c');
  await fleet.caughtUp('a', ['c']);
  await fleet.assertAllSame(names, 'a', ['c']);
  const verified = await fleet.cli('verify', 'c');
  assert.is(verified.code, 0, JSON.stringify(verified.json));
  await fleet.shows('c', 'promotable', ({ promotable }) => promotable);
  const [label] = await fleet.sql('c', `SELECT FROM understudy.points WHERE label = 'while-away'`);
  assert.ok(label, 'a label that was published while it was stopped is known');
  await fleet.agent('a').kill();
  const led = await fleet.cli('failover', 'c', '--allow-data-loss', '--reason', 'test');
  assert.is(led.code, 0, `${led.stdout}\n${fleet.logs()}`);
  const writer = await fleet.session('c');
  const twice = writer.query(`INSERT INTO item VALUES (900, 'late 301')`);
  assert.is(await codeOf(twice), '23505', 'unique indexes are there');
}

function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: { code?: string }) => error.code,
  );
}

async function refusedMeanwhile(detach: string): Promise<void> {
  const status = await fleet.nodeStatus('c');
  assert.is(status.state, 'rebuilding', JSON.stringify(status));
  assert.equal([status.exact, status.promotable], [false, false]);
  const failover = await fleet.cli('failover', 'c', '--allow-data-loss', '--reason', 'test');
  assert.is(failover.json.error.code, 'NOT_PROMOTABLE', failover.stdout);
  assert.is((await fleet.cli('verify', 'c')).json.error.code, 'UNFINISHED');
  assert.is((await fleet.cli('detach', 'c')).json.error.code, detach);
  assert.is((await fleet.cli('run', 'c', '--until', 'while-away')).code, 3, 'its agent runs');
}

async function itemsOnC(): Promise<number> {
  const [row] = await fleet.sql<{ n: number }>('c', 'SELECT count(*)::int AS n FROM item');
  return row?.n ?? 0;
}

const databasesQuery = `
  SELECT datname AS name, shobj_description(oid, 'pg_database') AS comment,
         has_database_privilege('public', datname, 'CONNECT') AS everybody,
         datconnlimit AS most, encoding, datcollate AS collate, datlocprovider AS provider,
         (SELECT array_agg(o ORDER BY o) FROM pg_db_role_setting, unnest(setconfig) AS o
          WHERE setdatabase = d.oid) AS settings
  FROM pg_database d WHERE starts_with(datname, current_database())`;

withDump(
  'a rebuild in a second database: the first one serves readers until the swap',
  async () => {
    await goesStale(false);
    const [{ name = '' } = {}] = await fleet.sql<{ name: string }>('c', databasesQuery);
    await fleet.tamper('c', `COMMENT ON DATABASE "${name}" IS 'of the shop''s'`);
    await fleet.tamper('c', `ALTER DATABASE "${name}" SET search_path = "$user", public, "x,y"`);
    await fleet.tamper('c', `ALTER DATABASE "${name}" SET work_mem = '5MB'`);
    await fleet.tamper('c', `REVOKE ALL ON DATABASE "${name}" FROM PUBLIC`);
    await fleet.tamper('c', `ALTER DATABASE "${name}" CONNECTION LIMIT 77`);
    const before = await fleet.sql('c', databasesQuery);
    const rows = await fleet.digest('c', 'item');
    const paused = fleet.spawnAgent('c', `rebuild.after-prepare=pause:${longerThanTheTest}`);
    await paused.logged(/building a second database/);
    const reader = await fleet.session('c');
    await refusedMeanwhile('UNFINISHED');
    const again = await fleet.cli('rebuild', 'c');
    assert.is(again.code, 0, `${again.stdout}\n${fleet.logs()}`);
    assert.equal([again.json.way, again.json.agentRuns], ['swap', true]);
    const waits = `SELECT understudy.wait_for('${await fleet.token()}', '200ms') AS there`;
    assert.is((await reader.query(waits)).rows[0]?.there, false, 'a token times out');
    assert.is(await fleet.digest('c', 'item'), rows, 'readers get the old rows');
    assert.is(await codeOf(fleet.sql('c', 'DELETE FROM item')), '25006', 'behind the write guard');
    await paused.kill();
    const agent = await startLocked(fleet, 'c', following);
    await agent.logged(/swapped in the rebuilt database/);
    assert.match(
      String(await codeOf(reader.query('SELECT 1'))),
      /57P01|undefined/,
      'its session was ended',
    );
    await agent.logged(/dropped the old database/);
    await equalAndLeads();
    assert.equal(await fleet.sql('c', databasesQuery), [
      { ...before[0], settings: withoutGuard(before[0]) },
    ]);
  },
);

/** A leader takes writes. */
function withoutGuard(database: Record<string, unknown> | undefined): string[] {
  const settings = (database?.['settings'] ?? []) as string[];
  return settings.filter((setting) => !setting.startsWith('default_transaction_read_only'));
}

test('a rebuild in its own tables keeps their indexes', async () => {
  // Nothing has read the smaller setting before the node itself does.
  await goesStale(true, true);
  await fleet.configure({ ...fleet.config, rebuild: 'manual' });
  const stopped = fleet.spawnAgent('c');
  assert.is(await stopped.exitCode(), 4, stopped.log);
  assert.match(stopped.log, '"STALE"');
  await fleet.configure({ ...fleet.config, rebuild: 'in-place' });
  const [requested] = await followHint(fleet, 'stale', stopped, { node: 'c' });
  assert.is(requested?.json.way, 'in-place');
  const paused = fleet.spawnAgent('c', `apply.before-commit=pause:${longerThanTheTest}:2`);
  await fleet.until('no items on c', itemsOnC, { reached: (items) => items === 0 });
  await refusedMeanwhile('PREREQUISITE');
  await paused.kill();
  await startLocked(fleet, 'c', following);
  await equalAndLeads();
});

test.run();
