/**
 * Tables that are added to the publication while the stream runs: they come over with the rows that
 * they hold, those of transactions that were open meanwhile too, and a promoted node has them. One
 * that has no key stays outside, whatever the WAL has of it, and stops nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { answeredStatus } from '../support/answered-status.ts';
import { busyTables, finished, partitions, until } from '../support/existing-rows.ts';
import { startFleet } from '../support/fleet.ts';
import { newestRecords } from '../support/newest-records.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
/** The leader's: a transaction that stays open keeps the whole server from its snapshots. */
let own: OwnServer;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
});

test.after(async () => {
  await Promise.all([own.close(), stack.close()]);
});

test('tables that are published later bring their rows, and a promoted node has them', async () => {
  const servers = { a: own.server };
  const fleet = await startFleet({ stack, servers, partitions, tables: busyTables });
  const later = `
    CREATE TABLE later (id int PRIMARY KEY, n int NOT NULL);
    CREATE TABLE bare (id int PRIMARY KEY);
    CREATE TABLE tree (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
    CREATE TABLE tree_low PARTITION OF tree FOR VALUES FROM (0) TO (100);
    CREATE TABLE tree_high PARTITION OF tree FOR VALUES FROM (100) TO (1000)`;
  const publish = (table: string): Promise<unknown> => {
    return fleet.sql('a', `ALTER PUBLICATION understudy_${fleet.cluster} ADD TABLE ONLY ${table}`);
  };
  const has = async (node: 'a' | 'b', table: string, n: string): Promise<boolean> => {
    const [row] = await fleet.sql<{ n: string }>(node, `SELECT count(*) AS n FROM ${table}`);
    return row?.n === n;
  };
  try {
    await fleet.startAgents();
    await fleet.tamper('b', later);
    await fleet.sql('a', later);
    await fleet.sql('a', 'INSERT INTO later SELECT i, 0 FROM generate_series(1, 700) AS i');
    await fleet.sql('a', 'INSERT INTO tree SELECT i, 0 FROM generate_series(1, 500) AS i');
    // It is open when the table is published: what it wrote is neither streamed nor seen yet.
    const open = await fleet.session('a');
    await open.query('BEGIN; INSERT INTO later VALUES (1000, 0)');
    await publish('later');
    await publish('tree');
    await publish('bare');
    await fleet.sql('a', 'UPDATE later SET n = 1 WHERE id = 1');
    await until(fleet, () => has('b', 'later', '1'), 'the update on b');
    await sleep(2_500);
    assert.ok(await has('b', 'later', '1'), 'nothing is read while the transaction is open');
    await fleet.agent('a').kill();
    await fleet.startAgent('a');
    await open.query('COMMIT');
    await until(fleet, () => has('b', 'later', '701'), 'all rows on b');
    await until(fleet, () => has('b', 'tree', '500'), 'the rows of partitions on b');
    await finished(stack, fleet);
    await fleet.caughtUp();
    for (const name of ['later', 'tree_low', 'tree_high']) await fleet.assertSame(name);
    await fleet.agent('a').kill();
    const led = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'a burnt');
    assert.is(led.code, 0, led.stderr);
    await fleet.sql('b', 'UPDATE later SET n = 2 WHERE id = 2');
    await fleet.sql('b', 'INSERT INTO tree VALUES (600, 0)');
    await fleet.sql('b', 'INSERT INTO bare VALUES (7)');
    const streamed = async (): Promise<boolean> => {
      const { rows: held } = await newestRecords(stack, fleet, partitions);
      const [tree, bare] = [held.get('public.tree_high'), held.get('public.bare')];
      const isThere = tree?.has('600') === true && bare?.has('7') === true;
      return isThere && held.get('public.later')?.get('2')?.['n'] === '2';
    };
    await until(fleet, streamed, 'the promoted node publishes them');
  } finally {
    await fleet.close();
  }
});

test('tables without a key are passed over until they have one or are gone', async () => {
  const keyless = ['kept', 'withdrawn', 'dropped', 'computed'];
  const plain = 'CREATE TABLE plain (id int PRIMARY KEY, n int NOT NULL)';
  const fleet = await startFleet({ stack, partitions, tables: plain });
  const publication = `understudy_${fleet.cluster}`;
  const kept = 'CREATE TABLE kept (n int NOT NULL, note text)';
  const plainIs = async (n: number): Promise<void> => {
    await fleet.sql('a', 'INSERT INTO plain VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET n = $1', [
      n,
    ]);
    await fleet.caughtUp();
    assert.equal(await fleet.sql('b', 'SELECT n FROM plain'), [{ n }], fleet.logs());
  };
  const write = async (): Promise<void> => {
    for (const table of ['kept', 'withdrawn', 'dropped']) {
      await fleet.sql('a', `INSERT INTO ${table} VALUES (1, 'x'), (2, 'y')`);
    }
    await fleet.sql('a', 'INSERT INTO computed SELECT max(n) + 1 FROM computed');
    await fleet.sql('a', 'TRUNCATE dropped, plain');
  };
  try {
    await fleet.startAgents();
    await fleet.tamper('b', kept);
    await fleet.sql(
      'a',
      `${kept}; CREATE TABLE withdrawn (n int, note text);
      CREATE TABLE dropped (n int, note text);
      CREATE TABLE computed (n int, twice int GENERATED ALWAYS AS (n * 2) STORED PRIMARY KEY);
      INSERT INTO computed VALUES (1);
      ALTER PUBLICATION ${publication} ADD TABLE ${keyless.join(', ')}`,
    );
    await write();
    const agent = fleet.agent('a');
    for (const table of keyless) {
      await agent.says(new RegExp(`"table":"public.${table}".*table is not part of the stream`));
    }
    assert.match(agent.log, /public.kept has no replica identity.*ALTER TABLE .*kept/);
    await plainIs(1);
    const { json } = await answeredStatus(fleet);
    for (const table of keyless) assert.match(json.nodes[0].why.join(), `public.${table}`);
    // All of this is in the WAL before anybody decodes it, under catalogs that are no more.
    await agent.kill();
    await write();
    const key = `ALTER TABLE kept ADD COLUMN later text DEFAULT 'now', ADD PRIMARY KEY (n, note)`;
    await fleet.tamper('b', key);
    await fleet.sql('a', `UPDATE kept SET note = 'z'`).then(
      () => assert.unreachable('Postgres lets a published table without a key be updated'),
      () => undefined,
    );
    await fleet.sql('a', `DELETE FROM kept`).catch(() => undefined);
    await fleet.sql('a', `ALTER PUBLICATION ${publication} DROP TABLE withdrawn, kept`);
    await fleet.sql('a', `UPDATE kept SET note = note || ctid::text; ${key}`);
    await fleet.sql('a', `ALTER PUBLICATION ${publication} ADD TABLE kept; DROP TABLE dropped`);
    await fleet.sql('a', `INSERT INTO kept VALUES (3, 'with a key', NULL)`);
    await fleet.sql('a', `UPDATE kept SET later = 'changed' WHERE n = 1`);
    await fleet.startAgent('a');
    const hasAll = async (): Promise<boolean> => /^5 rows/.test(await fleet.digest('b', 'kept'));
    await until(fleet, hasAll, 'the rows of kept on b');
    await finished(stack, fleet);
    await plainIs(2);
    await fleet.assertSame('kept');
    await fleet.sql('a', 'DELETE FROM kept WHERE n = 2; UPDATE kept SET n = 7 WHERE n = 3');
    await plainIs(3);
    await fleet.assertSame('kept');
    const { json: after } = await answeredStatus(fleet);
    const why = after.nodes[0].why.join();
    assert.match(why, /not in the stream: .*public.computed/);
    assert.not.match(why, /public.kept/);
    // It is a table of the stream now: what it was for a while is not passed over any more.
    assert.is(await fleet.agent('a').stop(), 0);
    await fleet.sql('a', 'ALTER TABLE kept DROP CONSTRAINT kept_pkey');
    await fleet.sql('a', `INSERT INTO kept VALUES (8, 'no key', NULL)`);
    await fleet.sql('a', 'ALTER TABLE kept ADD PRIMARY KEY (n, note)');
    const stopped = fleet.spawnAgent('a');
    assert.is(await stopped.exitCode(), 4, stopped.log);
    assert.match(stopped.log, /public.kept .*it had another identity for a while/);
  } finally {
    await fleet.close();
  }
});

test.run();
