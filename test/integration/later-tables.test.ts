/**
 * Tables that are added to the publication while the stream runs: they are backfilled, with the
 * rows of transactions that were open meanwhile, and a promoted node has them. One without a key is
 * not part of the stream, whatever the WAL has of it, and stops nothing.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { backfilled, busyTables, partitions, readsTried } from '../support/backfill-rows.ts';
import { type Fleet, withFleet } from '../support/fleet.ts';
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

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: { code?: string }) => error.code,
  );
}

test('tables that are published later are backfilled, and a promoted node has them', () => {
  const servers = { a: own.server };
  const later = `
    CREATE TABLE later (id int PRIMARY KEY, n int NOT NULL);
    CREATE TABLE bare (id int PRIMARY KEY);
    CREATE TABLE tree (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
    CREATE TABLE tree_low PARTITION OF tree FOR VALUES FROM (0) TO (100);
    CREATE TABLE tree_high PARTITION OF tree FOR VALUES FROM (100) TO (1000)`;
  return withFleet({ stack, servers, partitions, tables: busyTables }, async (fleet) => {
    const publish = (table: string): Promise<unknown> => {
      const publication = `understudy_${fleet.cluster}`;
      return fleet.sql('a', `ALTER PUBLICATION ${publication} ADD TABLE ONLY ${table}`);
    };
    const rowsOnB = async (table: string): Promise<number> => {
      const [row] = await fleet.sql<{ n: number }>('b', `SELECT count(*)::int AS n FROM ${table}`);
      return row?.n ?? 0;
    };
    const arrive = (n: number, table: string): Promise<number> => {
      const reached = (rows: number): boolean => rows === n;
      return fleet.until(`${n} rows of ${table} on b`, () => rowsOnB(table), { reached });
    };
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
    await arrive(1, 'later');
    await readsTried(fleet, 3);
    await fleet.sql('a', 'UPDATE later SET n = 2 WHERE id = 1');
    await fleet.applied('b');
    assert.is(await rowsOnB('later'), 1, 'rows were read while the transaction was open');
    await fleet.agent('a').kill();
    await fleet.startAgent('a');
    await open.query('COMMIT');
    await arrive(701, 'later');
    await arrive(500, 'tree');
    await backfilled(fleet);
    await fleet.caughtUp();
    await fleet.assertAllSame(['later', 'tree_low', 'tree_high']);
    await fleet.agent('a').kill();
    const led = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'a burnt');
    assert.is(led.code, 0, led.stderr);
    await fleet.sql('b', 'UPDATE later SET n = 2 WHERE id = 2');
    await fleet.sql('b', 'INSERT INTO tree VALUES (600, 0)');
    await fleet.sql('b', 'INSERT INTO bare VALUES (7)');
    const published = async () => {
      const { rows } = await newestRecords(fleet);
      return {
        tree: rows.get('public.tree_high')?.has('600'),
        bare: rows.get('public.bare')?.has('7'),
        later: rows.get('public.later')?.get('2')?.['n'],
      };
    };
    await fleet.until('the promoted node publishes them', published, {
      reached: ({ tree, bare, later: n }) => tree === true && bare === true && n === '2',
    });
  });
});

test('tables without a key are left out until they have one or are dropped', () => {
  const tables = 'CREATE TABLE plain (id int PRIMARY KEY, n int NOT NULL)';
  return withFleet({ stack, partitions, tables }, keylessTables);
});

async function keylessTables(fleet: Fleet): Promise<void> {
  const keyless = ['kept', 'withdrawn', 'dropped', 'computed'];
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
    await agent.logged(new RegExp(`"table":"public.${table}".*table is not part of the stream`));
  }
  assert.match(agent.log, /public.kept has no replica identity.*ALTER TABLE .*kept/);
  await plainIs(1);
  const { why: meanwhile } = await fleet.nodeStatus('a');
  for (const table of keyless) assert.match(meanwhile.join(), `public.${table}`);
  // All of this is in the WAL before it is decoded, when its catalogs exist no more.
  await agent.kill();
  await write();
  const key = `ALTER TABLE kept ADD COLUMN later text DEFAULT 'now', ADD PRIMARY KEY (n, note)`;
  await fleet.tamper('b', key);
  for (const statement of [`UPDATE kept SET note = 'z'`, 'DELETE FROM kept']) {
    assert.is(await codeOf(fleet.sql('a', statement)), '55000', `Postgres allows ${statement}`);
  }
  await fleet.sql('a', `ALTER PUBLICATION ${publication} DROP TABLE withdrawn, kept`);
  await fleet.sql('a', `UPDATE kept SET note = note || ctid::text; ${key}`);
  await fleet.sql('a', `ALTER PUBLICATION ${publication} ADD TABLE kept; DROP TABLE dropped`);
  await fleet.sql('a', `INSERT INTO kept VALUES (3, 'with a key', NULL)`);
  await fleet.sql('a', `UPDATE kept SET later = 'changed' WHERE n = 1`);
  await fleet.startAgent('a');
  await fleet.until('5 rows of kept on b', () => fleet.digest('b', 'kept'), {
    reached: (digest) => digest.startsWith('5 rows'),
  });
  await backfilled(fleet);
  await plainIs(2);
  await fleet.assertSame('kept');
  await fleet.sql('a', 'DELETE FROM kept WHERE n = 2; UPDATE kept SET n = 7 WHERE n = 3');
  await plainIs(3);
  await fleet.assertSame('kept');
  const why = (await fleet.nodeStatus('a')).why.join();
  assert.match(why, /not in the stream: .*public.computed/);
  assert.not.match(why, /public.kept/);
  await anotherIdentity(fleet);
}

/** It is a table of the stream now: changes under another identity are not skipped any more. */
async function anotherIdentity(fleet: Fleet): Promise<void> {
  assert.is(await fleet.agent('a').stop(), 0);
  const client = await fleet.session('a');
  const warnings: string[] = [];
  client.on('notice', ({ message, hint }) => warnings.push(`${message} ${hint}`));
  await client.query('ALTER TABLE kept DROP CONSTRAINT kept_pkey');
  assert.is(warnings.length, 1);
  assert.match(warnings[0] ?? '', /public.kept .*another identity.* resnapshot --all --new-slot/);
  assert.match((await fleet.nodeStatus('a')).why.join(), /schema of public.kept changed at/);
  await fleet.sql('a', `INSERT INTO kept VALUES (8, 'no key', NULL)`);
  await fleet.sql('a', 'ALTER TABLE kept ADD PRIMARY KEY (n, note)');
  const stopped = fleet.spawnAgent('a');
  assert.is(await stopped.exitCode(), 4, stopped.log);
  assert.match(stopped.log, /public.kept .*it had another identity for a while/);
  // The table is as the stream knows it, and a row in the WAL is not.
  assert.not.match((await fleet.nodeStatus('a')).why.join(), /schema of/);
  const continued = await fleet.cli('resnapshot', '--all', '--new-slot');
  assert.is(continued.code, 0, continued.stderr);
  await fleet.startAgent('a');
  await fleet.applied('b');
  await backfilled(fleet);
  await fleet.caughtUp();
  await fleet.assertSame('kept');
}

test.run();
