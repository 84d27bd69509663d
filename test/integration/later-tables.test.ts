/**
 * Tables that are added to the publication while the stream runs: they come over with the rows that
 * they hold, those of transactions that were open meanwhile too, and a promoted node has them.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { busyTables, finished, partitions, until } from '../support/existing-rows.ts';
import { startFleet } from '../support/fleet.ts';
import { newestRecords } from '../support/newest-records.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after(async () => {
  await stack.close();
});

test('tables that are published later bring their rows, and a promoted node has them', async () => {
  const fleet = await startFleet({ stack, partitions, tables: busyTables });
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

test.run();
