/**
 * A partition that is created on the leader after init belongs to the stream at once. A follower
 * without it stops before its rows, continues when it is created there too, and guards it. Tests
 * run in order, on one fleet.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';

const high = 'CREATE TABLE item_high PARTITION OF item FOR VALUES FROM (100) TO (200)';
let fleet: Fleet;

test.before(async () => {
  fleet = await startFleet({
    partitions: 2,
    tables: `CREATE TABLE item (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
      CREATE TABLE item_low PARTITION OF item FOR VALUES FROM (0) TO (100)`,
  });
  await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1, 1)');
  await fleet.caughtUp();
});

test.after(async () => {
  await fleet.close();
});

test('a partition that the follower lacks is in its status, and its rows stop it', async () => {
  await fleet.sql('a', high);
  const { why } = await fleet.nodeStatus('b');
  assert.equal(why, [
    'it lacks partitions that the leader has: public.item_high; it stops at their first row',
  ]);
  await fleet.sql('a', 'BEGIN; INSERT INTO item VALUES (2, 2), (100, 3); COMMIT');
  assert.is(await fleet.agent('b').exitCode(), 4, fleet.logs());
  assert.match(fleet.agent('b').log, /SCHEMA_DIFFERS/);
  assert.equal(await fleet.sql('b', 'SELECT id FROM item'), [{ id: 1 }]);
  assert.not(fleet.agent('a').ended);
});

test('once it is created there, its rows arrive, and rows move in and out of it', async () => {
  const fill = { change: high };
  await followHint(fleet, 'changeHere', fleet.agent('b'), { on: ['b'], fill });
  await fleet.startAgent('b');
  await fleet.caughtUp();
  await fleet.assertSame('item');
  await fleet.sql(
    'a',
    'UPDATE item SET id = 150 WHERE id = 1; UPDATE item SET id = 1 WHERE id = 100',
  );
  await fleet.caughtUp();
  await fleet.assertSame('item_high');
  await fleet.assertSame('item_low');
});

test('the new partition is guarded too', async () => {
  const client = await fleet.session('b');
  const write = 'BEGIN READ WRITE; INSERT INTO item_high VALUES (120, 1)';
  const refused = await client.query(write).catch((error: { code?: string }) => error.code);
  assert.is(refused, '25006');
});

test('rows of an attached tree of partitions stop the leader', async () => {
  await fleet.sql(
    'a',
    `CREATE TABLE item_tree (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
     ALTER TABLE item ATTACH PARTITION item_tree FOR VALUES FROM (200) TO (400)`,
  );
  await fleet.caughtUp();
  assert.not(fleet.agent('a').ended);
  await fleet.sql(
    'a',
    `CREATE TABLE branch (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
     CREATE TABLE leaf PARTITION OF branch FOR VALUES FROM (200) TO (300);
     INSERT INTO branch VALUES (200, 1);
     ALTER TABLE item_tree ATTACH PARTITION branch FOR VALUES FROM (200) TO (300)`,
  );
  assert.is(await fleet.agent('a').exitCode(), 4, fleet.logs());
  assert.match(fleet.agent('a').log, /SCHEMA_CHANGED.*attached as a partition with rows in it/);
});

test.run();
