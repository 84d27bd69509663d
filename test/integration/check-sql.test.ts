/**
 * `understudy check` on a schema with a hundred tables that have no usable identity, of all kinds:
 * few lines for people, one finding for each table for programs, and a script that psql runs as it
 * is, after which check has no finding and init works. Tests run in order, on one fleet.
 */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';

const run = promisify(execFile);

function many(count: number, definition: (at: number) => string): string {
  return Array.from({ length: count }, (_, at) => definition(at)).join(';\n');
}

const tables = `
  ${many(60, (at) => `CREATE TABLE plain_${at} (line text, n int)`)};
  ${many(15, (at) => `CREATE TABLE natural_${at} (code text NOT NULL UNIQUE, n int)`)};
  ${many(10, (at) => `CREATE TABLE nullable_${at} (code text UNIQUE, n int)`)};
  CREATE SCHEMA "My ""shop""";
  CREATE TABLE "My ""shop"""."Line\n; items" ("Id" int, "sort key" text, "line\nend" int);
  CREATE TABLE "My ""shop"""."Codes" ("Code ""x""" text, UNIQUE ("Code ""x"""));
  CREATE TABLE with_nulls (code text UNIQUE, n int);
  CREATE TABLE with_id (id int, n int);
  CREATE TABLE nothing (id int PRIMARY KEY, v text);
  ALTER TABLE nothing REPLICA IDENTITY NOTHING;
  CREATE TABLE full_only (v text); ALTER TABLE full_only REPLICA IDENTITY FULL;
  CREATE TABLE at_end (id int PRIMARY KEY DEFERRABLE, v text);
  CREATE TABLE deferrable_nothing (id int PRIMARY KEY DEFERRABLE, v text);
  ALTER TABLE deferrable_nothing REPLICA IDENTITY NOTHING;
  CREATE TABLE generated (n int, twice int GENERATED ALWAYS AS (n * 2) STORED PRIMARY KEY);
  CREATE TABLE partial (n int NOT NULL); CREATE UNIQUE INDEX ON partial (n) WHERE n > 0;
  CREATE TABLE expression (n int NOT NULL); CREATE UNIQUE INDEX ON expression ((n + 1));
  CREATE TABLE deferred (n int NOT NULL UNIQUE DEFERRABLE);
  CREATE TABLE not_distinct (n int NOT NULL);
  CREATE UNIQUE INDEX ON not_distinct (n) NULLS NOT DISTINCT;
  CREATE TABLE invalid (n int NOT NULL); CREATE UNIQUE INDEX invalid_n ON invalid (n);
  UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'invalid_n'::regclass;

  CREATE TABLE by_day (day date NOT NULL, v text) PARTITION BY RANGE (day);
  CREATE TABLE by_day_1 PARTITION OF by_day FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
  CREATE TABLE by_day_2 PARTITION OF by_day FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY HASH (v);
  CREATE TABLE by_day_2_0 PARTITION OF by_day_2 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
  ALTER TABLE by_day_2_0 REPLICA IDENTITY NOTHING;
  CREATE TABLE by_code (day date NOT NULL, code text, UNIQUE (day, code)) PARTITION BY RANGE (day);
  CREATE TABLE by_code_1 PARTITION OF by_code FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
  CREATE TABLE "Late" (day date, id int, PRIMARY KEY (day, id) DEFERRABLE) PARTITION BY RANGE (day);
  CREATE TABLE "Late_1" PARTITION OF "Late" FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
  CREATE TABLE parent (v text);
  CREATE TABLE child (more int) INHERITS (parent);
  CREATE TABLE grandchild (id text) INHERITS (child);
  CREATE TABLE natural_child (code text NOT NULL UNIQUE) INHERITS (parent);
  CREATE TABLE fine (id int PRIMARY KEY);`;

const rows = `
  INSERT INTO natural_1 VALUES ('a', 1); INSERT INTO nullable_1 VALUES ('a', 1), ('b', NULL);
  INSERT INTO with_nulls VALUES (NULL, 1), (NULL, 1); INSERT INTO with_id VALUES (1, 5), (2, 5);
  INSERT INTO by_day VALUES ('2024-05-01', 'x'), ('2025-05-01', 'y');
  INSERT INTO by_code VALUES ('2024-05-01', 'x'); INSERT INTO "Late" VALUES ('2024-05-01', 1);
  INSERT INTO parent VALUES ('p'); INSERT INTO child VALUES ('c', 1);
  INSERT INTO plain_1 VALUES ('x');
  INSERT INTO grandchild VALUES ('g', 1, 'own'); INSERT INTO natural_child VALUES ('n', 'x');
  INSERT INTO at_end VALUES (1, 'x'); INSERT INTO generated VALUES (1);`;

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, tables, tablesOn: { a: rows }, init: false });
});

test.after(async () => {
  await fleet?.close();
  await stack?.close();
});

async function findings(...options: readonly string[]): Promise<Finding[]> {
  return (await fleet.cli('check', ...options)).json.findings;
}

/** The first statements that a finding offers on node a. */
function remedy(all: readonly Finding[], object: string): string {
  const finding = all.find((one) => one.object === object);
  assert.ok(finding, object);
  return finding.sql
    .flatMap((one) => (one.caution === null && one.node === 'a' ? one.statement : []))
    .join(' ');
}

test('a hundred tables are few lines for people, and one finding each for programs', async () => {
  const all = await findings();
  const errors = all.filter(({ severity }) => severity === 'error');
  assert.ok(errors.length > 100, String(errors.length));
  for (const one of all) {
    const keys = ['severity', 'code', 'object', 'message', 'hint', 'sql'];
    assert.equal(Object.keys(one), keys);
  }
  const { stdout, code } = await fleet.text('check');
  assert.is(code, 4);
  const lines = stdout.split('\n');
  assert.ok(lines.length < 60, stdout);
  assert.match(stdout, /plain_0,\n {2}and \d+ more \(--all\)/);
  assert.match(lines.at(-1) ?? '', /^not ready: \d+ errors, no warnings$/);
  const named = (await fleet.text('check', '--all')).stdout;
  for (const name of ['plain_59', 'by_day_2_0', 'natural_child']) assert.match(named, name);
});

test('natural keys come first, and only what PostgreSQL takes as an identity', async () => {
  const all = await findings();
  assert.match(
    remedy(all, 'public.natural_1'),
    /" REPLICA IDENTITY USING INDEX "natural_1_code_key";$/,
  );
  assert.match(
    remedy(all, 'public.nullable_1'),
    /"code" SET NOT NULL, REPLICA IDENTITY USING INDEX/,
  );
  assert.match(remedy(all, 'public.not_distinct'), /USING INDEX/);
  for (const name of ['partial', 'expression', 'deferred', 'invalid', 'with_nulls', 'with_id']) {
    assert.match(remedy(all, `public.${name}`), / ADD COLUMN /, name);
  }
  assert.match(remedy(all, 'public.nothing'), /REPLICA IDENTITY DEFAULT/);
  assert.match(remedy(all, 'public.by_code'), /ADD PRIMARY KEY \("day", "code"\)/);
  const searched = await findings('--find-keys');
  assert.match(remedy(searched, 'public.with_id'), /ADD PRIMARY KEY \("id"\)/);
  // An empty table, and one without such columns, show nothing.
  assert.match(remedy(searched, 'public.plain_2'), / ADD COLUMN /);
  assert.match(remedy(searched, 'public.with_nulls'), / ADD COLUMN /);
});

for (const [node, options] of [
  ['a', []],
  ['b', ['b']],
] as const) {
  test(`psql runs the script of node ${node} as it is`, async () => {
    const { stdout, code } = await fleet.text('check', '--sql', ...options);
    assert.is(code, 0);
    const file = join(fleet.configFile, '..', `${node}.sql`);
    await writeFile(file, `${stdout}\n`);
    await run('psql', ['-X', '-q', '-d', fleet.url(node), '-f', file]);
  });
}

test('afterwards check has no finding, init works, and every row is in the stream', async () => {
  assert.equal(await findings(), []);
  const { code, stdout } = await fleet.text('check');
  assert.is(code, 0);
  assert.is(stdout, 'ready: no errors, no warnings');
  const init = await fleet.cli('init');
  assert.is(init.code, 0, `${init.stdout} ${init.stderr}`);
  await fleet.startAgents();
  await fleet.exact('b');
  await fleet.sql(
    'a',
    `UPDATE plain_1 SET n = 7; UPDATE ONLY grandchild SET v = 'new';
    UPDATE by_day SET v = v || '!'; DELETE FROM "Late"`,
  );
  await fleet.caughtUp();
  for (const table of ['plain_1', 'grandchild', 'by_day', '"Late"', 'generated', 'nullable_1']) {
    await fleet.assertSame(table);
  }
});

test.run();
