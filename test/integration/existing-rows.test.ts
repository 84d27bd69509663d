/**
 * Rows that were there before the stream come into it, while writers go on: through deletes, key
 * changes, large values that an update leaves out, TRUNCATE, rows that never rest, commits that
 * wait to be seen, locks, and kills at each step. Keys of every kind, composite and skewed ones
 * too. Meanwhile points name what is missing; in the end every node and the topic have the rows.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { newestRecords } from '../support/newest-records.ts';
import { type Stack, useStack } from '../support/stack.ts';

// time-limit: 240s

const partitions = 3;
const finishedWithinMs = 60_000;
let stack: Stack;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after(async () => {
  await stack.close();
});

const large = 'repeat(md5(i::text), 100)';

const tables = `
  CREATE EXTENSION IF NOT EXISTS citext;
  CREATE COLLATION IF NOT EXISTS folded (provider = icu, locale = 'und-u-ks-level2',
    deterministic = false);
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
  CREATE TABLE doc (id int PRIMARY KEY, n int NOT NULL, body text);
  ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE by_text (k text COLLATE "C" PRIMARY KEY, n int);
  CREATE TABLE by_pattern (k text, n int, note text NOT NULL);
  CREATE UNIQUE INDEX by_pattern_key ON by_pattern (k text_pattern_ops, n);
  ALTER TABLE by_pattern ALTER k SET NOT NULL, ALTER n SET NOT NULL,
    REPLICA IDENTITY USING INDEX by_pattern_key;
  CREATE TABLE by_uuid (k uuid PRIMARY KEY, n int);
  CREATE TABLE by_citext (k citext PRIMARY KEY, n int);
  CREATE TABLE by_folded (k text COLLATE folded PRIMARY KEY, n int);
  CREATE TABLE by_numeric (k numeric PRIMARY KEY, n int);
  CREATE TABLE by_float (k float8 PRIMARY KEY, n int);
  CREATE TABLE by_time (k timestamptz PRIMARY KEY, n int);
  CREATE TABLE by_bpchar (k char(5) PRIMARY KEY, n int);
  CREATE TABLE by_mood (k mood, day date, n int, PRIMARY KEY (day, k));
  CREATE TABLE skewed (n int, "a b" bigint, k citext, note text, PRIMARY KEY (n, k, "a b"));
  CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
  CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (1000);
  CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (1000) TO (100000);
  CREATE TABLE parent (id int PRIMARY KEY, n int);
  CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
  CREATE TABLE always (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (seq * 2) STORED);
  CREATE TABLE empty (id int PRIMARY KEY);
`;

const rows = `
  INSERT INTO doc SELECT i, 0, ${large} FROM generate_series(1, 3000) AS i;
  INSERT INTO by_text SELECT 'k' || i || E'\\n', i FROM generate_series(1, 2000) AS i;
  INSERT INTO by_pattern SELECT 'k' || i % 7, i, 'é' FROM generate_series(1, 2000) AS i;
  INSERT INTO by_uuid SELECT md5(i::text)::uuid, i FROM generate_series(1, 2000) AS i;
  INSERT INTO by_citext SELECT CASE WHEN i % 2 = 0 THEN 'Key' ELSE 'kEY' END || i, i
    FROM generate_series(1, 2000) AS i;
  INSERT INTO by_folded SELECT CASE WHEN i % 2 = 0 THEN 'É' ELSE 'é' END || i, i
    FROM generate_series(1, 2000) AS i;
  INSERT INTO by_numeric SELECT i + 0.50, i FROM generate_series(-1000, 1000) AS i;
  INSERT INTO by_numeric VALUES ('NaN', 0), ('Infinity', 0), ('-Infinity', 0);
  INSERT INTO by_float SELECT i / 3.0, i FROM generate_series(-1000, 1000) AS i;
  INSERT INTO by_float VALUES ('NaN', 0), ('Infinity', 0), ('-Infinity', 0);
  INSERT INTO by_time SELECT '2026-01-01'::timestamptz + i * '1 s'::interval, i
    FROM generate_series(1, 2000) AS i;
  INSERT INTO by_time VALUES ('infinity', 0), ('-infinity', 0);
  INSERT INTO by_bpchar SELECT i::text, i FROM generate_series(1, 2000) AS i;
  INSERT INTO by_mood SELECT (enum_range(NULL::mood))[i % 3 + 1], '2026-01-01'::date + i / 3, i
    FROM generate_series(1, 2000) AS i;
  INSERT INTO skewed SELECT 1, i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'A' END, 'x'
    FROM generate_series(1, 3000) AS i;
  INSERT INTO parts SELECT i, i FROM generate_series(1, 2000) AS i;
  INSERT INTO parent SELECT i, i FROM generate_series(1, 100) AS i;
  INSERT INTO child SELECT i, i FROM generate_series(1, 1200) AS i;
  INSERT INTO always (id) OVERRIDING SYSTEM VALUE SELECT i * 3 FROM generate_series(1, 1000) AS i;
`;

const names = [
  ...['doc', 'by_text', 'by_pattern', 'by_uuid', 'by_citext', 'by_folded', 'by_numeric'],
  ...['by_float', 'by_time', 'by_bpchar', 'by_mood', 'skewed', 'parts_low', 'parts_high'],
  ...['ONLY parent', 'child', 'always', 'empty'],
];

/** Nothing is unfinished, nothing unhealed, in the topic as compaction would leave it. */
async function finished(fleet: Fleet): Promise<void> {
  // The topic is read as a whole: not before the follower has heard that nothing is unfinished.
  const holdsAll = async (): Promise<boolean> => {
    const rows = await fleet.sql('b', `SELECT FROM understudy.position WHERE unfinished = '{}'`);
    return rows.length === 1;
  };
  await until(fleet, holdsAll, 'all rows on b');
  for (const deadlineMs = Date.now() + finishedWithinMs; ; await sleep(1_000)) {
    const { lastPoint, lacking } = await newestRecords(stack, fleet, partitions);
    const isDone = lastPoint?.unfinished.length === 0 && lastPoint.unhealed === null;
    if (isDone) {
      assert.equal(lacking, []);
      return;
    }
    const left = JSON.stringify(lastPoint?.unfinished);
    assert.ok(Date.now() < deadlineMs, `not finished: ${left}\n${fleet.logs()}`);
  }
}

test('rows of every kind of key come over', async () => {
  const fleet = await startFleet({ stack, partitions, tables, tablesOn: { a: rows } });
  try {
    await fleet.startAgents();
    await finished(fleet);
    await fleet.caughtUp();
    for (const name of names) await fleet.assertSame(name);
    const { json } = await fleet.cli('verify');
    assert.ok(json.equal, JSON.stringify(json));
  } finally {
    await fleet.close();
  }
});

const busyTables = `
  CREATE TABLE doc (id int PRIMARY KEY, n int NOT NULL, body text);
  ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE plain (id numeric PRIMARY KEY, n int NOT NULL);
  CREATE TABLE gone (id int PRIMARY KEY, n int NOT NULL)`;

const busyRows = `
  INSERT INTO doc SELECT i, 0, ${large} FROM generate_series(1, 4000) AS i;
  INSERT INTO plain SELECT i + 0.5, 0 FROM generate_series(1, 6000) AS i;
  INSERT INTO gone SELECT i, 0 FROM generate_series(1, 4000) AS i`;

/** The leader holds rows before init; the fleet ends with the work, whatever comes of it. */
async function withBusyRows(work: (fleet: Fleet) => Promise<void>): Promise<void> {
  const options = { stack, partitions, tables: busyTables, tablesOn: { a: busyRows } };
  const fleet = await startFleet(options);
  try {
    await work(fleet);
  } finally {
    await fleet.close();
  }
}

/** Changes of every kind, all over the tables, until it is told to stop. */
function writing(fleet: Fleet): { stop(): Promise<void> } {
  let stopped = false;
  const statements = [
    'UPDATE doc SET n = n + 1 WHERE id % 7 = $1 % 7 AND id % 50 = $1 % 50',
    'UPDATE doc SET n = n + 1 WHERE id IN (1, 2000, 3999)',
    'DELETE FROM doc WHERE id = $1 * 13 % 4000',
    `INSERT INTO doc VALUES ($1 * 13 % 4000, 0, repeat('x', 3000)) ON CONFLICT DO NOTHING`,
    'UPDATE doc SET id = id + 10000 WHERE id = $1 * 17 % 4000',
    'UPDATE doc SET id = id - 10000 WHERE id = $1 * 17 % 4000 + 10000',
    'UPDATE plain SET id = id * 1.0 WHERE id = $1 * 7 % 6000 + 0.5',
    'UPDATE plain SET n = n + 1 WHERE id = $1 * 11 % 6000 + 0.5',
    'UPDATE gone SET n = n + 1 WHERE id = $1',
  ];
  const write = async (writer: number): Promise<void> => {
    const client = await fleet.session('a');
    for (let i = writer; !stopped; i += 3) {
      const text = statements[i % statements.length] ?? '';
      const written = client.query(text, text.includes('$1') ? [i % 4_000] : []);
      // A key that is taken, or a deadlock: then nothing was written.
      await written.catch((error: { code?: string }) => {
        if (!/^(23505|40P01)$/.test(error.code ?? '')) throw error;
      });
      if (i % 500 === 77) await client.query('TRUNCATE gone');
    }
  };
  const all = Promise.all([write(0), write(1), write(2)]);
  return {
    stop: async () => {
      stopped = true;
      await all;
    },
  };
}

async function isExact(fleet: Fleet): Promise<void> {
  await finished(fleet);
  await fleet.caughtUp();
  for (const name of ['doc', 'plain', 'gone']) await fleet.assertSame(name);
  const newest = await newestRecords(stack, fleet, partitions);
  for (const name of ['doc', 'plain', 'gone']) {
    const [row] = await fleet.sql<{ n: string }>('a', `SELECT count(*) AS n FROM ${name}`);
    assert.is(newest.rows.get(`public.${name}`)?.size ?? 0, Number(row?.n), name);
  }
}

test('while writers go on and the agents are killed at each step', () => {
  return withBusyRows(async (fleet) => {
    const writers = writing(fleet);
    const follower = await fleet.startAgent('b', 'apply.before-commit=kill:5');
    for (const point of ['chunk.after-read', 'chunk.after-watermark']) {
      for (const pass of [2, 4]) {
        assert.is(await fleet.spawnAgent('a', `${point}=kill:${pass}`).exit, null);
      }
    }
    assert.is(await follower.exit, null);
    await fleet.startAgents();
    await sleep(1_000);
    await writers.stop();
    await isExact(fleet);
  });
});

/** Commits wait for a standby that nobody is: they are streamed, and nobody sees them. */
async function holdCommits(fleet: Fleet, isHeld: boolean): Promise<void> {
  const names = isHeld ? 'nobody' : '';
  await fleet.sql('a', `ALTER SYSTEM SET synchronous_standby_names = '${names}'`);
  await fleet.sql('a', 'SELECT pg_reload_conf()');
  for (const deadlineMs = Date.now() + 10_000; ; await sleep(50)) {
    const client = await fleet.session('a');
    const { rows } = await client.query('SHOW synchronous_standby_names');
    await client.end();
    if (rows[0]?.synchronous_standby_names === names) return;
    assert.ok(Date.now() < deadlineMs, 'the setting never came');
  }
}

async function value(fleet: Fleet, node: 'a' | 'b', id: string): Promise<number | undefined> {
  const [row] = await fleet.sql<{ n: number }>(node, 'SELECT n FROM plain WHERE id = $1', [id]);
  return row?.n;
}

async function until(fleet: Fleet, reached: () => Promise<boolean>, what: string): Promise<void> {
  for (const deadlineMs = Date.now() + finishedWithinMs; !(await reached()); await sleep(50)) {
    assert.ok(Date.now() < deadlineMs, `never: ${what}\n${fleet.logs()}`);
  }
}

/**
 * While rows are read, one of plain is set to 100 in a commit that is streamed and that nobody on
 * the leader sees until `release`; afterwards it is everywhere.
 */
function withUnseenCommit(
  failpoint: string,
  work: (fleet: Fleet, release: () => Promise<void>) => Promise<void>,
): Promise<void> {
  return withBusyRows(async (fleet) => {
    try {
      await fleet.startAgent('b');
      await fleet.startAgent('a', failpoint);
      const writer = await fleet.session('a');
      await holdCommits(fleet, true);
      const waiting = writer.query('UPDATE plain SET n = 100 WHERE id = 5000.5');
      await until(fleet, async () => (await value(fleet, 'b', '5000.5')) === 100, '100 on b');
      assert.is(await value(fleet, 'a', '5000.5'), 0, 'on the leader nobody sees it');
      await work(fleet, async () => {
        assert.is(await value(fleet, 'a', '5000.5'), 0, 'on the leader nobody sees it still');
        await holdCommits(fleet, false);
        await waiting;
      });
      await isExact(fleet);
      assert.is(await value(fleet, 'b', '5000.5'), 100);
    } finally {
      await holdCommits(fleet, false);
    }
  });
}

test('what was streamed before it can be seen is not undone', () => {
  return withUnseenCommit('chunk.after-read=pause:3000:2', async (fleet, release) => {
    await finished(fleet);
    await release();
  });
});

test('nor is it after a restart, which waits until all that was streamed is seen', () => {
  return withUnseenCommit('chunk.after-read=pause:60000:2', async (fleet, release) => {
    await fleet.agent('a').kill();
    await fleet.startAgent('a');
    await sleep(1_500);
    const { lastPoint } = await newestRecords(stack, fleet, partitions);
    assert.ok((lastPoint?.unfinished.length ?? 0) > 0, 'nothing is read meanwhile');
    await release();
  });
});

test('a locked table delays its own rows alone, and TRUNCATE waits for an open chunk', () => {
  return withBusyRows(async (fleet) => {
    const owner = await fleet.session('a');
    await owner.query('BEGIN; LOCK TABLE doc IN ACCESS EXCLUSIVE MODE');
    await fleet.startAgent('b');
    await fleet.startAgent('a', 'chunk.after-read=pause:2000:3');
    await fleet.sql('a', 'UPDATE plain SET n = 7 WHERE id = 1.5');
    await until(fleet, async () => (await value(fleet, 'b', '1.5')) === 7, '7 on b');
    await owner.query('COMMIT');
    await fleet.agent('a').says(/"message":"leading"/);
    await sleep(800);
    await owner.query('TRUNCATE doc; INSERT INTO doc VALUES (1, 1, NULL)');
    await isExact(fleet);
    const [row] = await fleet.sql<{ n: string }>('b', 'SELECT count(*) AS n FROM doc');
    assert.is(row?.n, '1');
  });
});

test('what is missing is said, and nobody takes it for exact', () => {
  return withBusyRows(async (fleet) => {
    await fleet.startAgent('b');
    await fleet.startAgent('a', 'chunk.after-read=pause:60000:3');
    const holds = async (): Promise<boolean> => {
      const rows = await fleet.sql('b', 'SELECT FROM doc LIMIT 1');
      return rows.length > 0;
    };
    await until(fleet, holds, 'rows on b');
    const { json: status } = await fleet.cli('status');
    const [doc] = status.unfinished;
    assert.is(doc.table, 'public.doc');
    assert.ok(doc.rows > 0, JSON.stringify(doc));
    const [, b] = status.nodes;
    assert.equal([b.exact, b.promotable], [false, false]);
    assert.match(b.why.join(), /lacks rows from before the stream, of public.doc and 2 more/);
    const verified = await fleet.cli('verify');
    assert.is(verified.code, 4);
    assert.is(verified.json.error.code, 'UNFINISHED');
    const token = await fleet.token();
    const read = fleet.sql('b', `SELECT understudy.wait_for($1, '20 s')`, [token]);
    const refused = await read.then(
      () => null,
      (error: Error & { code?: string }) => error,
    );
    assert.is(refused?.code, 'UN002', String(refused));
    await fleet.agent('a').kill();
    const failed = await fleet.cli('failover', 'b');
    assert.is(failed.code, 6);
    assert.match(failed.json.error.message, /lacks rows .* public.doc, public.gone, public.plain/);
    const led = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'a burnt');
    assert.is(led.code, 0, led.stderr);
    await fleet.sql('b', 'UPDATE doc SET n = n + 1 WHERE id = 1');
    const { json: after } = await fleet.cli('status');
    assert.equal(after.unfinished, []);
  });
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
    await finished(fleet);
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
