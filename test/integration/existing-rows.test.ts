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
  for (const deadlineMs = Date.now() + finishedWithinMs; ; await sleep(200)) {
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

test.run();
