/**
 * `run --until` builds a new node at a chosen LSN of a compacted log: it has the rows of that
 * moment although they were changed and deleted since, and the whole schema; detached, it is a
 * database of its own. An LSN whose rows the broker may have compacted is refused before anything
 * is created, with the earliest that is left.
 */
// time-limit: 300s
// runs: ci, since test/model/place.test.ts has every LSN
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { reselected } from '../support/backfill-rows.ts';
import { CleaningBroker, tick } from '../support/cleaning-broker.ts';
import type { Fleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const tables = `
  CREATE TABLE item (id int PRIMARY KEY, body text UNIQUE);
  CREATE TABLE page (id int PRIMARY KEY, small int, large text);
  ALTER TABLE page ALTER COLUMN large SET STORAGE EXTERNAL`;

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

async function begin(compactionLagMs: number): Promise<void> {
  const shape = { tables, tablesByHand: false, partitions: 2, compactionLagMs };
  fleet = await broker.startFleet({ stack, ...shape });
  const large = `(SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 200) AS j)`;
  await fleet.sql('a', `INSERT INTO item SELECT i, 'first ' || i FROM generate_series(1, 200) i`);
  await fleet.sql('a', `INSERT INTO page SELECT i, 0, ${large} FROM generate_series(1, 10) i`);
  await fleet.sql('a', `UPDATE item SET body = 'second ' || id`);
  await fleet.sql('a', 'DELETE FROM item WHERE id > 150');
  await fleet.sql('a', 'UPDATE page SET small = 1');
}

async function point(label: string): Promise<string> {
  const { code, json, stdout } = await fleet.cli('point', label);
  assert.is(code, 0, stdout);
  return json.lsn;
}

withDump('a node has the rows of the LSN, which the leader has no more', async () => {
  await begin(25_000);
  await broker.cleaned(fleet, 'public.item', 260);
  await fleet.sql('a', `UPDATE item SET body = 'third ' || id WHERE id < 50`);
  await reselected(fleet);
  const lsn = await point('here');
  const wanted = [await fleet.digest('a', 'item'), await fleet.digest('a', 'page')];
  await fleet.sql('a', 'DELETE FROM item WHERE id % 2 = 0');
  await fleet.sql(
    'a',
    `UPDATE item SET body = 'bad'||id; UPDATE page SET small = 2, large = 'bad'`,
  );
  await tick(fleet);
  const { code, json, stdout } = await fleet.cli('run', 'c', '--until', 'here');
  assert.is(code, 0, stdout);
  assert.equal(json, { node: 'c', lsn, reached: true });
  assert.equal([await fleet.digest('c', 'item'), await fleet.digest('c', 'page')], wanted);
  const status = await fleet.nodeStatus('c');
  assert.equal([status.lsn, status.exact], [lsn, true], JSON.stringify(status));
  // An LSN that is not yet in the log is waited for.
  const ahead = fleet.spawnCommand('run', 'b', '--until', await fleet.token());
  await tick(fleet);
  assert.is(await ahead.exitCode(), 0, ahead.log);
  const detached = await fleet.cli('detach', 'c');
  assert.is(detached.code, 0, detached.stdout);
  assert.is(detached.json.lsn, lsn);
  const writer = await fleet.session('c');
  const twice = writer.query(`INSERT INTO item VALUES (900, 'third 1')`);
  const refused = await twice.then(
    () => undefined,
    (error: { code?: string }) => error.code,
  );
  assert.is(refused, '23505', 'unique indexes are there');
});

withDump('an LSN whose rows may be compacted is refused, and nothing is created', async () => {
  await begin(86_400_000);
  const early = await point('early');
  await fleet.sql('a', `UPDATE item SET body = 'third ' || id`);
  // The leader's agent would find it within a minute: the command must not rely on that.
  await broker.lowerLag(fleet, { compactionLagMs: 6_000 });
  await broker.cleaned(fleet, 'public.item', 230);
  const { code, json } = await fleet.cli('run', 'c', '--until', 'early');
  assert.is(code, 4, JSON.stringify(json));
  assert.is(json.error.code, 'PREREQUISITE');
  assert.match(json.error.message, `may no longer hold every row of ${early}`);
  assert.match(
    json.error.hint,
    /earliest LSN that can still be built is 1:|No earlier LSN can be built/,
  );
  const [schema] = await fleet.sql('c', `SELECT to_regnamespace('understudy') AS name`);
  assert.is(schema?.['name'], null, 'the database is as it was');
});

test.run();
