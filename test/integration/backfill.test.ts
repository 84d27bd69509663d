/**
 * Rows that predate the stream are backfilled under load: through deletes, key changes, large
 * values that an update leaves out, TRUNCATE, rows that are written all the time, locks, and kills
 * at each step. Keys of every kind, composite and skewed ones too. In the end every node and the
 * topic have the rows.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  backfilled,
  isExact,
  large,
  partitions,
  value,
  withBusyRows,
} from '../support/backfill-rows.ts';
import { beside } from '../support/beside.ts';
import { type Fleet, withFleet } from '../support/fleet.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
/** The leader's: a lock that is held keeps the whole server from its snapshots. */
let own: OwnServer;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
});

test.after(async () => {
  await Promise.all([own.close(), stack.close()]);
});

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

test('rows of every kind of key are backfilled', () => {
  return withFleet({ stack, partitions, tables, tablesOn: { a: rows } }, async (fleet) => {
    await fleet.startAgents();
    await backfilled(fleet);
    await fleet.caughtUp();
    await fleet.assertAllSame(names);
    const { json } = await fleet.cli('verify');
    assert.ok(json.equal, JSON.stringify(json));
  });
});

/**
 * Without a pause three writers starve the agents, and the test waits for a backlog of WAL, not for
 * rows. Hundreds of writes a second reach every part of every table all the same.
 */
const writePauseMs = 5;

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
const writers = 3;

/** Changes of every kind in all parts of the tables, one with each call. */
async function writer(fleet: Fleet, number: number): Promise<(n: number) => Promise<void>> {
  const client = await fleet.session('a');
  return async (n) => {
    const i = n * writers + number;
    const text = statements[i % statements.length] ?? '';
    const written = client.query(text, text.includes('$1') ? [i % 4_000] : []);
    // A key that exists, or a deadlock: then nothing was written.
    await written.catch((error: { code?: string }) => {
      if (!/^(23505|40P01)$/.test(error.code ?? '')) throw error;
    });
    if (i % 500 === 77) await client.query('TRUNCATE gone');
    await sleep(writePauseMs);
  };
}

test('a backfill under load is exact, with the agents killed at each step', () => {
  return withBusyRows(stack, async (fleet) => {
    const all = await Promise.all([0, 1, 2].map((number) => writer(fleet, number)));
    await beside(all, async () => {
      const follower = await fleet.startAgent('b', 'apply.before-commit=kill:5');
      for (const point of ['chunk.after-read', 'chunk.after-watermark']) {
        for (const pass of [2, 4]) {
          const dying = fleet.spawnAgent('a', `${point}=kill:${pass}`);
          assert.is(await dying.exitCode(), null, dying.log);
        }
      }
      assert.is(await follower.exitCode(), null, follower.log);
      await fleet.startAgents();
      await sleep(1_000);
    });
    await isExact(fleet);
  });
});

/** The session of the backfill waits at its failpoint, with a chunk that it has read. */
async function chunkIsOpen(fleet: Fleet): Promise<void> {
  const open = `SELECT state, now() - state_change > '200 ms' AS "isPaused" FROM pg_stat_activity
    WHERE application_name = 'understudy a reads' AND datname = current_database()`;
  await fleet.until('an open chunk', async () => (await fleet.sql('a', open))[0], {
    reached: (row) => row?.['state'] === 'idle in transaction' && row['isPaused'] === true,
  });
}

test('a locked table delays its own rows alone, and TRUNCATE waits for an open chunk', () => {
  const work = async (fleet: Fleet): Promise<void> => {
    const owner = await fleet.session('a');
    await owner.query('BEGIN; LOCK TABLE doc IN ACCESS EXCLUSIVE MODE');
    await fleet.startAgent('b');
    await fleet.startAgent('a', 'chunk.after-read=pause:3000:3');
    await fleet.sql('a', 'UPDATE plain SET n = 7 WHERE id = 1.5');
    await fleet.until('7 on b', () => value(fleet, 'b', '1.5'), { reached: (n) => n === 7 });
    await owner.query('COMMIT');
    await chunkIsOpen(fleet);
    await owner.query('TRUNCATE doc; INSERT INTO doc VALUES (1, 1, NULL)');
    await isExact(fleet);
    const [row] = await fleet.sql<{ n: string }>('b', 'SELECT count(*) AS n FROM doc');
    assert.is(row?.n, '1');
  };
  return withBusyRows(stack, work, { a: own.server });
});

test.run();
