/**
 * Rules of the tests themselves, read from their text: what touches a whole server has a server of
 * its own, and what waits has a bound.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

interface TestFile {
  readonly path: string;
  readonly text: string;
}

/** Two files with servers run at a time, on the same servers. */
const files = ['test/integration', 'test/fault'].flatMap(filesBelow);

const waiting: readonly TestFile[] = [
  ...files,
  ...filesBelow('test/support').filter(({ path }) => path !== 'test/support/until.ts'),
];

function filesBelow(folder: string): readonly TestFile[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .map((path) => ({ path, text: readFileSync(path, 'utf8') }));
}

/** What changes or holds up every database of a server. */
const serverWide: readonly RegExp[] = [
  /\bPREPARE TRANSACTION\b/,
  /\bALTER SYSTEM\b/,
  /\bpg_reload_conf\b/,
  /\bsynchronous_standby_names\b/,
  /\btemplate1\b/,
  /\b(max_connections|max_prepared_transactions|max_replication_slots|max_wal_senders)\b/,
  /\b(max_slot_wal_keep_size|wal_level)\b/,
  /\b(pg_switch_wal|CHECKPOINT)\b/,
  /\bIN ACCESS EXCLUSIVE MODE\b/,
];

/**
 * A transaction that writes, or may, and that its statement leaves open. With END it is the body of
 * a function.
 */
function leavesOpen(statement: string): boolean {
  const isOpen = !/\b(COMMIT|ROLLBACK|END)\b/.test(statement.replaceAll('ROLLBACK TO', ''));
  const writes = /\b(INSERT|UPDATE|DELETE|TRUNCATE|CREATE|ALTER|pg_current_xact_id)\b|^BEGIN$/;
  return isOpen && writes.test(statement);
}

function touchesServer(text: string): boolean {
  const begun = [...text.matchAll(/(['`"])(BEGIN\b(?:(?!\1)[\s\S])*)\1/g)];
  return (
    serverWide.some((pattern) => pattern.test(text)) ||
    begun.some(([, , statement = '']) => leavesOpen(statement))
  );
}

const ownServers = /\b(ownServer|startSandbox)\(/;

/** Files that only mention it, or hold it for no longer than a statement takes. */
const mayUseShared: Readonly<Record<string, string>> = {
  'test/integration/follower-position.test.ts': 'open until another session waits for its lock',
  'test/integration/large-values.test.ts': 'four statements, one after the other',
  'test/integration/new-partition.test.ts': 'the guard refuses the write, and so ends it',
  'test/integration/schema-round-trip.test.ts': 'a schema is built in it, nothing waits',
};

test('what touches a whole server has a server of its own', () => {
  const wrong = files.filter(({ text }) => touchesServer(text) && !ownServers.test(text));
  assert.equal(
    wrong.map(({ path }) => path).filter((path) => mayUseShared[path] === undefined),
    [],
    'start a server with ownServer(): the shared ones serve another test at the same time',
  );
  const idle = Object.keys(mayUseShared).filter((path) => !wrong.some((one) => one.path === path));
  assert.equal(idle, [], 'an exception that nothing needs');
});

test('waits have a bound: they go through until()', () => {
  const handMade = [/\bDate\.now\(\) \+ \w*([mM]ax|patience|deadline)/, /\bdeadlineMs\b/];
  // A loop whose condition asks a server has no end when the answer stays the same.
  const patterns = [...handMade, /\bwhile \([^;{]*\bawait\b/];
  const wrong = waiting.filter(({ text }) => patterns.some((pattern) => pattern.test(text)));
  assert.equal(
    wrong.map(({ path }) => path),
    [],
  );
});

test('a file that the short form leaves out says why', () => {
  const lines = files.flatMap(({ path, text }) => {
    return [...text.matchAll(/^\/\/ runs: (.*)$/gm)].map(([, line = '']) => ({ path, line }));
  });
  assert.ok(lines.length > 20);
  const silent = lines.filter(({ line }) => !/^(ci|full), since .{10}/.test(line));
  assert.equal(silent, []);
  const named = lines.flatMap(({ path, line }) =>
    [...line.matchAll(/test\/[\w/-]+\.test\.ts/g)].map(([test]) => ({ path, test })),
  );
  assert.equal(
    named.filter(({ test }) => !existsSync(test)),
    [],
    'a test that is not there',
  );
});

test('the rule of servers finds what it is made for', () => {
  const held = [
    `await user.query("PREPARE TRANSACTION 'held'")`,
    `await a.query('BEGIN; INSERT INTO t VALUES (1)')`,
    `await a.query('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE')`,
    `await a.query('BEGIN')`,
  ];
  for (const text of held) assert.ok(touchesServer(text), text);
  const brief = [
    `await a.query('BEGIN; INSERT INTO t VALUES (1); COMMIT')`,
    `await a.query('BEGIN; LOCK TABLE t IN SHARE MODE')`,
    `await a.query('BEGIN ISOLATION LEVEL REPEATABLE READ')`,
    `CREATE FUNCTION f() AS 'BEGIN INSERT INTO t VALUES (1); END'`,
  ];
  for (const text of brief) assert.not(touchesServer(text), text);
});

test.run();
