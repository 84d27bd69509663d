/**
 * A resnapshot of tables under load, with agents that are killed: followers get every row as the
 * leader has it, and lose every other, whatever they held; readers keep what they had until then.
 * So does a node that is promoted in the middle of it, and one that follows that node.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { beside } from '../support/beside.ts';
import { type Fleet, withFleet } from '../support/fleet.ts';
import { Forger } from '../support/forger.ts';
import { followHint } from '../support/hint-runner.ts';
import { newestRecords } from '../support/newest-records.ts';
import { type Stack, useStack } from '../support/stack.ts';

// time-limit: 500s
// runs: ci, since test/model/backfill.test.ts has its histories

const partitions = 3;
let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 3 });
});

test.after(async () => {
  await stack.close();
});

const tables = `
  CREATE TABLE doc (id int PRIMARY KEY, n int NOT NULL, body text);
  ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE price (id numeric PRIMARY KEY, n int NOT NULL);
  CREATE TABLE mail (id int PRIMARY KEY, address text UNIQUE);
  CREATE TABLE tree (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
  CREATE TABLE tree_low PARTITION OF tree FOR VALUES FROM (0) TO (1000);
  CREATE TABLE tree_high PARTITION OF tree FOR VALUES FROM (1000) TO (5000);
  CREATE TABLE other (id int PRIMARY KEY)`;

const rows = `
  INSERT INTO doc SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 2000) AS i;
  INSERT INTO price SELECT i + 0.5, 0 FROM generate_series(1, 2000) AS i;
  INSERT INTO mail SELECT i, 'm' || i FROM generate_series(1, 500) AS i;
  INSERT INTO tree SELECT i, 0 FROM generate_series(1, 2000) AS i;
  INSERT INTO other VALUES (1)`;

/** What a follower must not keep: gaps, rows of no leader, keys that are spelled otherwise. */
const strange = `
  DELETE FROM doc WHERE id % 5 = 0; UPDATE doc SET n = -1 WHERE id % 7 = 0;
  INSERT INTO doc VALUES (-1, 0, 'only here');
  UPDATE price SET id = id * 1.00 WHERE id < 300; DELETE FROM price WHERE id > 1900;
  INSERT INTO price VALUES (-1, 0);
  DELETE FROM tree_low; INSERT INTO tree_high VALUES (4999, 0)`;

const all = ['doc', 'price', 'mail', 'tree_low', 'tree_high', 'other'];

function withRows(nodes: 2 | 3, work: () => Promise<void>): Promise<void> {
  return withFleet({ stack, nodes, partitions, tables, tablesOn: { a: rows } }, async (started) => {
    fleet = started;
    await fleet.startAgents();
    await fleet.complete('b');
    await work();
  });
}

/** Followers, and the topic as compaction would leave it, hold the leader's rows and no others. */
async function sameEverywhere(leader: 'a' | 'b' = 'a'): Promise<void> {
  await fleet.caughtUp(leader);
  await fleet.assertAllSame(all, leader);
  const newest = await newestRecords(fleet);
  assert.equal(newest.partial, []);
  for (const name of all) {
    const [row] = await fleet.sql<{ n: string }>(leader, `SELECT count(*) AS n FROM ${name}`);
    assert.is(String(newest.rows.get(`public.${name}`)?.size ?? 0), row?.n, `${name} in the topic`);
  }
}

async function leftovers(node: 'b' | 'c'): Promise<void> {
  const found = await fleet.sql(
    node,
    `SELECT relname FROM pg_class WHERE relnamespace = 'understudy'::regnamespace
       AND relname LIKE 'seen%' UNION ALL SELECT relation_id FROM understudy.rereads`,
  );
  assert.equal(found, []);
}

test('a follower that was written to is as the leader again, and readers see no gap', () => {
  return withRows(2, async () => {
    await fleet.tamper('b', strange);
    let queries = 0;
    const reader = await fleet.session('b');
    const read = async (): Promise<void> => {
      const { rows: seen } = await reader.query('SELECT FROM doc WHERE id IN (1, 2, 1999)');
      assert.is(seen.length, 3, 'rows that are right are never missing');
      queries += 1;
    };
    await beside([read], async () => {
      const { code, json, stderr } = await fleet.cli(
        'resnapshot',
        ...['public.doc', 'public.price', 'public.tree', 'public.mail'],
      );
      assert.is(code, 0, stderr);
      assert.ok(json.finished);
      assert.equal(json.tables, [
        ...['public.doc', 'public.price'],
        ...['public.tree_high', 'public.tree_low', 'public.mail'],
      ]);
      await sameEverywhere();
    });
    assert.ok(queries > 3);
    const [price] = await fleet.sql('b', 'SELECT id FROM price WHERE id = 1.5');
    assert.is(price?.['id'], '1.5', 'spelled as on the leader');
    await leftovers('b');
  });
});

test('a deleted row does not block another with its unique value', () => {
  return withRows(2, async () => {
    await fleet.tamper(
      'b',
      `DELETE FROM mail WHERE id = 3; INSERT INTO mail VALUES (900, 'm3');
       UPDATE mail SET address = 'x' WHERE id = 10; UPDATE mail SET address = 'm10' WHERE id = 11`,
    );
    const { code, stderr } = await fleet.cli('resnapshot', 'public.mail');
    assert.is(code, 0, stderr);
    await sameEverywhere();
    await leftovers('b');
  });
});

test('a resnapshot under load is exact, with both agents killed', () => {
  return withRows(2, async () => {
    await fleet.tamper('b', strange);
    await fleet.agent('a').kill();
    await fleet.agent('b').kill();
    const asked = await fleet.cli('resnapshot', '--all', '--no-wait');
    assert.is(asked.code, 0, asked.stderr);
    assert.not(asked.json.newEpoch);
    const client = await fleet.session('a');
    const write = async (i: number): Promise<void> => {
      await client.query('UPDATE doc SET n = n + 1 WHERE id % 100 = $1', [i % 100]);
      await client.query('DELETE FROM doc WHERE id = $1', [(i * 7) % 2000]);
      await client.query('UPDATE price SET id = id + 5000 WHERE id = $1', [(i % 2000) + 0.5]);
      await client.query(`INSERT INTO doc VALUES ($1, 0, 'new')`, [10_000 + i]);
      await sleep(2);
    };
    await beside([write], async () => {
      const follower = fleet.spawnAgent('b', 'apply.before-commit=kill:2');
      for (const point of ['chunk.after-watermark=kill:2', 'publish.after-commit=kill:3']) {
        const dying = fleet.spawnAgent('a', point);
        assert.is(await dying.exitCode(), null, dying.log);
      }
      assert.is(await follower.exitCode(), null, follower.log);
      await fleet.startAgents();
      await sleep(500);
    });
    // The begin of the resnapshot is applied by then: what is complete afterwards is complete.
    await fleet.applied('b');
    await fleet.complete('b');
    await sameEverywhere();
    await leftovers('b');
  });
});

test('a node that is promoted in the middle of it begins it again, from its own rows', () => {
  return withRows(3, async () => {
    await fleet.complete('c');
    await fleet.tamper('c', strange);
    await fleet.agent('a').kill();
    await fleet.startAgent('a', 'chunk.after-watermark=pause:60000:2');
    await fleet.cli('resnapshot', 'public.doc', '--no-wait');
    for (const node of ['b', 'c'] as const) {
      const begun = async () => (await fleet.sql(node, 'SELECT FROM understudy.rereads')).length;
      await fleet.until(`the resnapshot on ${node}`, begun, { reached: (n) => n > 0 });
    }
    await fleet.sql('a', 'DELETE FROM doc WHERE id = 17');
    for (const node of ['b', 'c'] as const) await fleet.applied(node);
    await fleet.agent('a').kill();
    const refused = await fleet.cli('failover', 'b');
    assert.is(refused.code, 6);
    assert.match(refused.json.error.message, /is backfilling .*public.doc/);
    await fleet.agent('b').kill();
    const dying = await fleet.startAgent('b', 'own.after-ask=kill');
    const asking = fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'a burnt');
    assert.is(await dying.exitCode(), null);
    await fleet.startAgent('b');
    const led = await asking;
    assert.is(led.code, 0, led.stderr);
    await fleet.complete('c');
    await fleet.tamper(
      'c',
      `DELETE FROM tree; INSERT INTO tree SELECT i, 0 FROM
      generate_series(1, 2000) AS i; DELETE FROM price`,
    );
    await fleet.cli('resnapshot', 'public.price');
    await fleet.caughtUp('b', ['b', 'c']);
    await fleet.assertAllSame(all, 'b', ['b', 'c']);
    await leftovers('b');
    await leftovers('c');
  });
});

test('a cluster that is initialised again takes followers with the rows that they hold', () => {
  return withRows(2, async () => {
    await fleet.agent('a').kill();
    await fleet.agent('b').kill();
    assert.is((await fleet.cli('destroy', '--yes')).code, 0);
    await fleet.sql('b', `${strange}; INSERT INTO other VALUES (2)`);
    await fleet.sql('a', 'DELETE FROM other; DELETE FROM doc WHERE id < 50');
    const refused = await fleet.cli('init');
    assert.is(refused.code, 4);
    assert.match(refused.json.error.hint, /init --replace-rows/);
    await followHint(fleet, 'notEmpty', refused);
    await fleet.startAgent('b');
    const [kept] = await fleet.sql('b', 'SELECT count(*)::int AS n FROM doc');
    assert.ok(Number(kept?.['n']) > 1_500, 'readers keep their rows');
    await fleet.startAgent('a');
    await fleet.complete('b');
    await sameEverywhere();
    await leftovers('b');
  });
});

test('a leader that was restored from a copy is refused, or begins an epoch with its rows', () => {
  return withRows(2, async () => {
    await fleet.agent('a').stop();
    // A copy from before the last start.
    await fleet.sql('a', 'UPDATE understudy.node SET start_number = start_number - 1');
    const refused = await fleet.cli('resnapshot', '--all');
    assert.is(refused.json.error.code, 'RESTORED_COPY', refused.stdout);
    assert.match(refused.json.error.hint, /understudy failover.*understudy run a/);
    await fleet.sql('a', 'UPDATE understudy.node SET start_number = start_number + 1');
    // A copy whose WAL ends before what the topic holds.
    const forger = new Forger(fleet);
    const counts = Array.from({ length: partitions }, () => 0);
    const ahead = await forger.pointAfter(await forger.lastPoint(), counts, 1_000_000_000n);
    await forger.commit('publisher', ahead);
    const agent = fleet.spawnAgent('a');
    assert.is(await agent.exitCode(), 4, agent.log);
    assert.match(agent.log, '"TIMELINE_MISMATCH"');
    const [answer] = await followHint(fleet, 'serverBehindEpoch: resnapshot', agent);
    assert.is(answer?.json.newEpoch, true);
    await fleet.startAgent('a');
    await fleet.sql('a', 'UPDATE other SET id = 2');
    await fleet.complete('b');
    await sameEverywhere();
  });
});

test('a resnapshot of what is no table of the stream is refused', () => {
  return withRows(2, async () => {
    const unknown = await fleet.cli('resnapshot', 'public.nothing');
    assert.is(unknown.code, 1);
    assert.match(unknown.json.error.message, /no table of the stream matches public.nothing/);
    const both = await fleet.cli('resnapshot', 'public.doc', '--all');
    assert.is(both.code, 1);
    await fleet.sql('a', `SELECT understudy.read_anew('{no_such_table}')`);
    await fleet.agent('a').logged(/ignored resnapshot request: table is not part of the stream/);
    await sameEverywhere();
  });
});

test.run();
