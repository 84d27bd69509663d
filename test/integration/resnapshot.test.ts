/**
 * Tables are read anew while writers go on and agents are killed: followers get every row as the
 * leader has it, and lose what it has not, whatever stood there; readers keep what they had until
 * then. So does a node that takes the lead in the middle of it, and one that follows that.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { newestRecords } from '../support/newest-records.ts';
import { type Stack, useStack } from '../support/stack.ts';

// time-limit: 400s
// runs: ci

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

/** What a follower must not keep: gaps, rows of nobody, keys that are spelled otherwise. */
const strange = `
  DELETE FROM doc WHERE id % 5 = 0; UPDATE doc SET n = -1 WHERE id % 7 = 0;
  INSERT INTO doc VALUES (-1, 0, 'nobody has it');
  UPDATE price SET id = id * 1.00 WHERE id < 300; DELETE FROM price WHERE id > 1900;
  INSERT INTO price VALUES (-1, 0);
  DELETE FROM tree_low; INSERT INTO tree_high VALUES (4999, 0)`;

const all = ['doc', 'price', 'mail', 'tree_low', 'tree_high', 'other'];

async function withFleet(nodes: 2 | 3, work: () => Promise<void>): Promise<void> {
  fleet = await startFleet({ stack, nodes, partitions, tables, tablesOn: { a: rows } });
  try {
    await fleet.startAgents();
    await whole('b');
    await work();
  } finally {
    await fleet.close();
  }
}

async function whole(node: 'b' | 'c'): Promise<void> {
  const holdsAll = async (): Promise<boolean> => {
    const [row] = await fleet.sql(node, `SELECT FROM understudy.position WHERE unfinished = '{}'`);
    return row !== undefined;
  };
  for (const deadlineMs = Date.now() + 60_000; !(await holdsAll()); await sleep(100)) {
    assert.ok(Date.now() < deadlineMs, `${node} never has all rows\n${fleet.logs()}`);
  }
}

/** Followers, and the topic as compaction would leave it, hold the leader's rows and no others. */
async function sameEverywhere(leader: 'a' | 'b' = 'a'): Promise<void> {
  await fleet.caughtUp(leader);
  for (const name of all) await fleet.assertSame(name, leader);
  const newest = await newestRecords(stack, fleet, partitions);
  assert.equal(newest.lacking, []);
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

test('a follower that somebody wrote to is as the leader again, and readers see no gap', () => {
  return withFleet(2, async () => {
    await fleet.tamper('b', strange);
    let looks = 0;
    let stopped = false;
    const reader = await fleet.session('b');
    const reading = (async () => {
      for (; !stopped; looks += 1) {
        const { rows: seen } = await reader.query('SELECT FROM doc WHERE id IN (1, 2, 1999)');
        assert.is(seen.length, 3, 'rows that are right are never missing');
      }
    })();
    try {
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
    } finally {
      stopped = true;
      await reading;
    }
    assert.ok(looks > 3);
    const [price] = await fleet.sql('b', 'SELECT id FROM price WHERE id = 1.5');
    assert.is(price?.['id'], '1.5', 'spelled as on the leader');
    await leftovers('b');
  });
});

test('what is no more does not keep a row with its unique value out', () => {
  return withFleet(2, async () => {
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

test('while writers go on and both agents are killed', () => {
  return withFleet(2, async () => {
    await fleet.tamper('b', strange);
    await fleet.agent('a').kill();
    await fleet.agent('b').kill();
    const asked = await fleet.cli('resnapshot', '--all', '--no-wait');
    assert.is(asked.code, 0, asked.stderr);
    assert.not(asked.json.newEpoch);
    let stopped = false;
    const writing = (async () => {
      const client = await fleet.session('a');
      for (let i = 1; !stopped; i += 1) {
        await client.query('UPDATE doc SET n = n + 1 WHERE id % 100 = $1', [i % 100]);
        await client.query('DELETE FROM doc WHERE id = $1', [(i * 7) % 2000]);
        await client.query('UPDATE price SET id = id + 5000 WHERE id = $1', [(i % 2000) + 0.5]);
        await client.query(`INSERT INTO doc VALUES ($1, 0, 'new')`, [10_000 + i]);
        await sleep(2);
      }
    })();
    const follower = fleet.spawnAgent('b', 'apply.before-commit=kill:2');
    for (const point of ['chunk.after-watermark=kill:2', 'publish.after-commit=kill:3']) {
      assert.is(await fleet.spawnAgent('a', point).exitCode(), null);
    }
    assert.is(await follower.exitCode(), null);
    await fleet.startAgents();
    await sleep(500);
    stopped = true;
    await writing;
    await fleet.caughtUp('a').catch(() => undefined);
    await whole('b');
    await sameEverywhere();
    await leftovers('b');
  });
});

test('a node that leads in the middle of it has all read once more, from itself', () => {
  return withFleet(3, async () => {
    await whole('c');
    await fleet.tamper('c', strange);
    await fleet.agent('a').kill();
    await fleet.startAgent('a', 'chunk.after-watermark=pause:60000:2');
    await fleet.cli('resnapshot', 'public.doc', '--no-wait');
    const begun = async (node: 'b' | 'c'): Promise<boolean> => {
      return (await fleet.sql(node, 'SELECT FROM understudy.rereads')).length > 0;
    };
    for (const deadlineMs = Date.now() + 30_000; !((await begun('b')) && (await begun('c'))); ) {
      assert.ok(Date.now() < deadlineMs, fleet.logs());
      await sleep(100);
    }
    await fleet.sql('a', 'DELETE FROM doc WHERE id = 17');
    await fleet.caughtUp('a').catch(() => undefined);
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
    await whole('c');
    await fleet.tamper(
      'c',
      `DELETE FROM tree; INSERT INTO tree SELECT i, 0 FROM
      generate_series(1, 2000) AS i; DELETE FROM price`,
    );
    await fleet.cli('resnapshot', 'public.price');
    await fleet.caughtUp('b', ['b', 'c']);
    for (const name of all) await fleet.assertSame(name, 'b', ['b', 'c']);
    await leftovers('b');
    await leftovers('c');
  });
});

test('a cluster that is made again takes followers with the rows that they hold', () => {
  return withFleet(2, async () => {
    await fleet.agent('a').kill();
    await fleet.agent('b').kill();
    assert.is((await fleet.cli('destroy', '--yes')).code, 0);
    await fleet.sql('b', `${strange}; INSERT INTO other VALUES (2)`);
    await fleet.sql('a', 'DELETE FROM other; DELETE FROM doc WHERE id < 50');
    const refused = await fleet.cli('init');
    assert.is(refused.code, 4);
    assert.match(refused.json.error.hint, /init --replace-rows/);
    const { code, stderr } = await fleet.cli('init', '--replace-rows');
    assert.is(code, 0, stderr);
    await fleet.startAgent('b');
    const [kept] = await fleet.sql('b', 'SELECT count(*)::int AS n FROM doc');
    assert.ok(Number(kept?.['n']) > 1_500, 'readers have what was there');
    await fleet.startAgent('a');
    await whole('b');
    await sameEverywhere();
    await leftovers('b');
  });
});

test('what cannot be read anew is refused with its reason', () => {
  return withFleet(2, async () => {
    const unknown = await fleet.cli('resnapshot', 'public.nothing');
    assert.is(unknown.code, 1);
    assert.match(unknown.json.error.message, /no table of the stream matches public.nothing/);
    const both = await fleet.cli('resnapshot', 'public.doc', '--all');
    assert.is(both.code, 1);
    await fleet.sql('a', `SELECT understudy.read_anew('{nobody}')`);
    await fleet.agent('a').says(/ignored resnapshot request: table is not part of the stream/);
    await sameEverywhere();
  });
});

test.run();
