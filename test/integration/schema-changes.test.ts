/**
 * Schema changes on the leader, which the stream does not carry: the client that makes one is
 * warned at once, status and log name it, and after the same change on every node a resnapshot with
 * a new slot goes on with the new shape, on followers and on nodes that are built from the topic.
 * The tests run in order, on one fleet.
 */
// runs: ci, since test/integration/later-tables.test.ts has the warning and one change
// time-limit: 300s
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';
import { useStack } from '../support/stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const names = ['added', 'removed', 'renamed', 'scaled', 'widened', 'plain'];
const tables = `
  ${names.map((name) => `CREATE TABLE ${name} (id int PRIMARY KEY, n int, note text);`).join('\n')}
  CREATE TABLE dead (id int PRIMARY KEY);
  CREATE TABLE tree (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
  CREATE TABLE tree_low PARTITION OF tree FOR VALUES FROM (0) TO (100);
  CREATE TABLE tree_more (id int PRIMARY KEY, n int)`;

/** Each table, and what its change does to it. */
const changes: readonly (readonly [string, string, RegExp])[] = [
  ['added', 'ALTER TABLE added ADD COLUMN more int NOT NULL DEFAULT 7', /column more was added/],
  ['removed', 'ALTER TABLE removed DROP COLUMN note', /column note was dropped/],
  ['renamed', 'ALTER TABLE renamed RENAME COLUMN n TO m', /column n was renamed to m/],
  ['widened', 'ALTER TABLE widened ALTER n TYPE bigint', /column n is bigint instead of integer/],
  ['scaled', 'ALTER TABLE scaled ALTER n TYPE int USING n * 2', /rewrote its rows/],
  [
    'tree_more',
    'ALTER TABLE tree ATTACH PARTITION tree_more FOR VALUES FROM (100) TO (200)',
    /attached as a partition of public.tree/,
  ],
  ['dead', 'DROP TABLE dead', /it was dropped/],
];

const stack = await useStack({ postgres: 3 });
const check = await testWithDump(stack);
type Notice = { readonly message?: string | undefined; readonly hint?: string | undefined };
let fleet: Fleet;

test.before(async () => {
  fleet = await startFleet({
    ...{ stack, nodes: 3, initialised: ['a', 'b'], partitions: 2, tablesOn: { a: tables } },
  });
  await Promise.all([fleet.startAgent('a'), fleet.startAgent('b')]);
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

/** The messages that the client gets for a statement. */
async function noticesOf(sql: string): Promise<readonly Notice[]> {
  const session = await fleet.session('a');
  const notices: Notice[] = [];
  session.on('notice', (notice) => notices.push(notice));
  await session.query(sql);
  await session.end();
  return notices;
}

async function changesShown(): Promise<string> {
  return (await fleet.nodeStatus('a')).why.filter((line) => /^schema of/.test(line)).join('\n');
}

/** The end of the recipe: all nodes have the change. */
async function goOn(
  followers: readonly ('b' | 'c')[],
  stopped: Parameters<typeof followHint>[2],
): Promise<void> {
  await followHint(fleet, 'goOn', stopped);
  await followed(followers);
}

async function followed(followers: readonly ('b' | 'c')[]): Promise<void> {
  await fleet.startAgent('a');
  // Not before they know of the new epoch, in which all tables are backfilling.
  for (const node of followers) await fleet.applied(node);
  for (const node of followers) await fleet.complete(node);
  await fleet.caughtUp('a', ['a', ...followers]);
}

check('harmless changes are quiet, and one that is undone is forgotten', async () => {
  const quiet = await noticesOf(
    `CREATE INDEX ON plain (n); ALTER TABLE plain ALTER n SET DEFAULT 3;
     GRANT SELECT ON plain TO PUBLIC; ALTER TABLE plain REPLICA IDENTITY FULL;
     ALTER TABLE plain ALTER note SET STATISTICS 10;
     CREATE TABLE other (id int); ALTER TABLE other ADD COLUMN x int; DROP TABLE other`,
  );
  assert.equal(quiet, []);
  const [warning, ...more] = await noticesOf('ALTER TABLE plain ADD COLUMN x int');
  assert.equal(more, []);
  assert.match(
    warning?.message ?? '',
    /public.plain and no schema changes: its column x was added/,
  );
  assert.match(warning?.hint ?? '', /understudy resnapshot --all --new-slot/);
  assert.match(await changesShown(), /public.plain changed at .*column x was added; .* next row/);
  await fleet.agent('a').logged(/"what":"its column x was added".*stops at its next row/);
  assert.equal(await noticesOf('ALTER TABLE plain DROP COLUMN x'), []);
  assert.is(await changesShown(), '');
  await fleet.agent('a').logged(/the change of a published table was undone/);
  await fleet.sql('a', 'INSERT INTO plain VALUES (1, 1)');
  await fleet.caughtUp('a', ['a', 'b']);
});

check('each change warns its client, and all of them travel by a resnapshot', async () => {
  for (const name of [...names, 'tree', 'tree_more', 'dead']) {
    const values = /tree_more/.test(name) ? 'i + 100' : 'i';
    await fleet.sql(
      'a',
      `INSERT INTO ${name} (id) SELECT ${values} FROM generate_series(2, 60) AS i`,
    );
  }
  for (const name of names) await fleet.sql('a', `UPDATE ${name} SET n = id * 3, note = 'x' || id`);
  await fleet.caughtUp('a', ['a', 'b']);
  for (const [table, sql, what] of changes) {
    const notices = await noticesOf(sql);
    assert.ok(
      notices.some(({ message = '' }) => message.includes(table) && what.test(message)),
      sql,
    );
    assert.match(await changesShown(), what);
  }
  assert.is(await fleet.agent('a').exitCode(), 4, fleet.agent('a').log);
  // The first that the leader finds stops it: a changed table, or the one that was rewritten.
  assert.match(fleet.agent('a').log, /understudy resnapshot (--all --new-slot|public.scaled)/);
  const refused = await fleet.cli('resnapshot', 'public.added');
  assert.is(refused.code, 4);
  assert.match(refused.json.error.hint, /--all --new-slot/);
  await fleet.sql('a', 'INSERT INTO added (id, n) VALUES (1000, 1)');
  for (const [, sql] of changes) await fleet.tamper('b', sql);
  await goOn(['b'], refused);
  await fleet.sql(
    'a',
    'INSERT INTO added (id, more) VALUES (1001, 8); DELETE FROM scaled WHERE id < 9',
  );
  await fleet.caughtUp('a', ['a', 'b']);
  await fleet.assertAllSame([...names, 'tree', 'tree_more'], 'a', ['a', 'b']);
  assert.is(await changesShown(), '');
  const verified = await fleet.cli('verify', 'b');
  assert.is(verified.code, 0, JSON.stringify(verified.json));
});

check('a node that is built from the topic has the new shape and every row', async () => {
  await fleet.agent('a').logged(/"message":"published the schema"/);
  await fleet.startAgent('c');
  await fleet.shows('c', 'promotable', ({ promotable }) => promotable);
  await fleet.caughtUp();
  await fleet.assertAllSame([...names, 'tree', 'tree_more']);
  assert.is((await fleet.cli('verify')).code, 0);
});

check('a follower that lacks the change waits for it, and continues by itself', async () => {
  const change = 'ALTER TABLE plain ADD COLUMN late text';
  await fleet.sql('a', change);
  assert.is(await fleet.agent('a').stop(), 0);
  await fleet.tamper('c', change);
  const { code, json } = await fleet.cli('resnapshot', '--all', '--new-slot');
  assert.is(code, 0, JSON.stringify(json));
  await fleet.startAgent('a');
  await fleet.agent('b').logged(/SCHEMA_BEHIND.*ALTER TABLE .*ADD COLUMN .*late.* text/);
  await followHint(fleet, 'changeHere', fleet.agent('b'), { on: ['b'] });
  for (const node of ['b', 'c'] as const) await fleet.applied(node);
  for (const node of ['b', 'c'] as const) await fleet.complete(node);
  await fleet.sql('a', `UPDATE plain SET late = 'z'`);
  await fleet.caughtUp();
  await fleet.assertAllSame([...names, 'tree']);
  assert.is((await fleet.cli('verify')).code, 0);
});

check('a change that is undone after a row goes on by the same command', async () => {
  await fleet.sql(
    'a',
    'BEGIN; ALTER TABLE plain ADD COLUMN x int; INSERT INTO plain (id) VALUES (900); COMMIT',
  );
  assert.is(await fleet.agent('a').exitCode(), 4, fleet.agent('a').log);
  await fleet.sql('a', 'ALTER TABLE plain DROP COLUMN x');
  assert.is(await fleet.spawnAgent('a').exitCode(), 4);
  assert.match(fleet.agent('a').log, /rows were written meanwhile/);
  await goOn(['b', 'c'], fleet.agent('a'));
  await fleet.assertAllSame([...names, 'tree']);
});

check('what no resnapshot can cure is refused, and nothing is changed', async () => {
  await fleet.sql('a', 'ALTER TABLE plain DROP CONSTRAINT plain_pkey');
  assert.is(await fleet.agent('a').stop(), 0);
  const state = `SELECT epoch FROM understudy.node UNION ALL
    SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`;
  const before = await fleet.sql('a', state);
  const refused = await fleet.cli('resnapshot', '--all', '--new-slot');
  assert.is(refused.code, 4, JSON.stringify(refused.json));
  assert.match(refused.json.error.hint, /ALTER TABLE "public"\."plain" .*PRIMARY KEY/);
  await fleet.sql('a', 'ALTER TABLE plain ADD PRIMARY KEY (id)');
  await fleet.sql('a', `ALTER PUBLICATION understudy_${fleet.cluster} DROP TABLE plain`);
  const unpublished = await fleet.cli('resnapshot', 'public.plain');
  assert.is(unpublished.code, 4);
  assert.equal(await fleet.sql('a', state), before);
  await followHint(fleet, 'tableNotPublished: PUBLICATION', unpublished, { on: ['a'] });
  await followHint(fleet, 'tableNotPublished: resnapshot', unpublished);
  await followed(['b', 'c']);
  await fleet.assertAllSame([...names, 'tree']);
});

check('ddl: refuse refuses such a change at the client, and lets the others pass', async () => {
  assert.is(await fleet.agent('a').stop(), 0);
  await fleet.configure({ ...fleet.config, ddl: 'refuse' });
  await fleet.startAgent('a');
  for (const sql of ['ALTER TABLE plain DROP COLUMN note', 'DROP TABLE plain']) {
    const error = await fleet.sql('a', sql).then(
      () => null,
      (refused: { message: string; hint?: string }) => refused,
    );
    assert.match(error?.message ?? '', /understudy replicates public.plain/);
    assert.match(error?.hint ?? '', /SET understudy.ddl = 'allow'/);
  }
  await fleet.sql('a', 'CREATE INDEX ON plain (note); CREATE TABLE free (id int); DROP TABLE free');
  await fleet.sql(
    'a',
    `SET understudy.ddl = 'allow'; ALTER TABLE plain ADD COLUMN y int;
     ALTER TABLE plain DROP COLUMN y; RESET understudy.ddl`,
  );
  await fleet.sql('a', `UPDATE plain SET n = 5`);
  await fleet.caughtUp();
  await fleet.assertSame('plain');
});

test.run();
