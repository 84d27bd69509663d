/**
 * What the leader commits is what the follower holds, and nothing else: every kind of statement, of
 * key and of table that Postgres offers, through the real path, with three partitions. Tests run in
 * order, on one fleet: some use the rows of others.
 */

import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { from as copyFrom } from 'pg-copy-streams';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { oddSchema, oddTable, pathTables, reordered, typedTable } from '../support/path-tables.ts';
import { type OwnServer, ownServer } from '../support/stack.ts';

/** The leader's: a prepared transaction keeps the whole server from its snapshots. */
let own: OwnServer;
let fleet: Fleet;

test.before(async () => {
  own = await ownServer();
  const servers = { a: own.server };
  fleet = await startFleet({ servers, partitions: 3, tables: pathTables, tablesOn: reordered });
  await fleet.startAgents();
});

test.after(async () => {
  await fleet.close();
  await own.close();
});

/**
 * Runs the statements on the leader and compares the tables after each: where several are applied
 * together, a later one hides what an earlier one did.
 */
async function arrives(tables: readonly string[], ...statements: string[]): Promise<void> {
  for (const statement of statements) {
    await fleet.sql('a', statement);
    await fleet.caughtUp();
    for (const table of tables) await fleet.assertSame(table);
  }
}

async function rowsOf(table: string): Promise<unknown[]> {
  return fleet.sql('b', `SELECT * FROM ${table} AS t ORDER BY 1`);
}

test('an insert, an update and a delete arrive one after the other', async () => {
  await arrives(['item'], `INSERT INTO item VALUES (1, 'one', NULL), (2, 'two', '')`);
  assert.equal(await rowsOf('item'), [
    { id: '1', name: 'one', note: null },
    { id: '2', name: 'two', note: '' },
  ]);
  await arrives(['item'], `UPDATE item SET note = NULL, name = 'deux' WHERE id = 2`);
  assert.equal((await rowsOf('item'))[1], { id: '2', name: 'deux', note: null });
  await arrives(['item'], 'DELETE FROM item WHERE id = 1');
  assert.is((await rowsOf('item')).length, 1);
});

test('a row whose key changes is at its new key only, also along a chain and back', async () => {
  await arrives(
    ['item'],
    `DELETE FROM item; INSERT INTO item SELECT i, 'n' || i FROM generate_series(1, 50) AS i`,
    'UPDATE item SET id = id + 1000',
    `BEGIN; UPDATE item SET id = 5000 WHERE id = 1001; UPDATE item SET id = 5001 WHERE id = 5000;
     UPDATE item SET id = 1001, note = 'back' WHERE id = 5001; COMMIT`,
    `BEGIN; UPDATE item SET id = 0 WHERE id = 1002; UPDATE item SET id = 1002 WHERE id = 1003;
     UPDATE item SET id = 1003 WHERE id = 0; COMMIT`,
  );
  const rows = await fleet.sql('b', 'SELECT name FROM item WHERE id IN (1002, 1003) ORDER BY id');
  assert.equal(rows, [{ name: 'n3' }, { name: 'n2' }]);
});

test('a key that is deleted and inserted again in one transaction holds the last row', async () => {
  await arrives(
    ['item'],
    `INSERT INTO item VALUES (77, 'first', 'x')`,
    `BEGIN; DELETE FROM item WHERE id = 77; INSERT INTO item VALUES (77, 'second'); COMMIT`,
    `BEGIN; INSERT INTO item VALUES (78, 'gone'); DELETE FROM item WHERE id = 78; COMMIT`,
  );
  const rows = await fleet.sql('b', 'SELECT name, note FROM item WHERE id IN (77, 78)');
  assert.equal(rows, [{ name: 'second', note: null }]);
});

test('a transaction over several tables with references arrives whole', async () => {
  await arrives(
    ['parent', 'child', 'tree'],
    `BEGIN; INSERT INTO parent SELECT i, 'p' FROM generate_series(1, 100) AS i;
     INSERT INTO child SELECT i, i % 100 + 1, 'c' FROM generate_series(1, 500) AS i;
     INSERT INTO tree VALUES (1, NULL, 'root'), (2, 1, 'twig'), (3, 2, 'leaf'); COMMIT`,
    `BEGIN; DELETE FROM child WHERE parent_id = 5; DELETE FROM parent WHERE id = 5;
     UPDATE tree SET parent = 3 WHERE id = 1; COMMIT`,
    `BEGIN; UPDATE tree SET parent = NULL; DELETE FROM tree WHERE id = 2; COMMIT`,
  );
});

test('ON DELETE CASCADE and triggers act once: on the leader', async () => {
  await arrives(
    ['cascading', 'cascaded', 'audit'],
    'INSERT INTO cascading VALUES (1), (2)',
    'INSERT INTO cascaded SELECT i, 1 + i % 2 FROM generate_series(1, 20) AS i',
    'DELETE FROM cascading WHERE id = 1',
  );
  const [row] = await fleet.sql('b', 'SELECT count(*)::int AS n FROM audit');
  assert.equal(row, { n: 20 });
});

test('COPY arrives', async () => {
  const client = await fleet.session('a');
  const lines = Array.from({ length: 20_000 }, (_, i) => `${i + 10_000}\tcopied ${i}\t\\N\n`);
  await pipeline(Readable.from(lines), client.query(copyFrom('COPY item FROM STDIN')));
  await fleet.caughtUp();
  await fleet.assertSame('item');
});

test('TRUNCATE arrives, of one table, of a referenced one, and of several at once', async () => {
  await arrives(
    ['item'],
    `BEGIN; INSERT INTO item VALUES (900001); TRUNCATE item;
     INSERT INTO item VALUES (900002); COMMIT`,
  );
  assert.is((await rowsOf('item')).length, 1);
  await arrives(['parent', 'child'], 'TRUNCATE child, parent');
  assert.is((await rowsOf('parent')).length, 0);
  await arrives(
    ['parent', 'child', 'item'],
    `INSERT INTO parent VALUES (1, 'p')`,
    `INSERT INTO child VALUES (1, 1)`,
    `BEGIN; INSERT INTO parent VALUES (2, 'p'); TRUNCATE parent CASCADE;
     INSERT INTO parent VALUES (3, 'q'); TRUNCATE item; TRUNCATE item; COMMIT`,
  );
  assert.equal(await rowsOf('parent'), [{ id: 3, v: 'q' }]);
});

test('TRUNCATE of a table that an unpublished one refers to arrives', async () => {
  await fleet.tamper('b', 'CREATE UNLOGGED TABLE local_note (id int REFERENCES parent)');
  await arrives(['parent'], 'TRUNCATE parent CASCADE', `INSERT INTO parent VALUES (8, 'new')`);
  await fleet.tamper('b', 'DROP TABLE local_note');
});

test('what is rolled back, whole or to a savepoint, leaves nothing', async () => {
  await arrives(
    ['item'],
    `BEGIN; INSERT INTO item VALUES (1, 'rolled back'); ROLLBACK`,
    `BEGIN; INSERT INTO item VALUES (2, 'stays'); SAVEPOINT s; INSERT INTO item VALUES (3, 'goes');
     UPDATE item SET name = 'changed'; SAVEPOINT t; INSERT INTO item VALUES (4, 'goes');
     RELEASE t; ROLLBACK TO s; INSERT INTO item VALUES (5, 'stays'); COMMIT`,
    `DO $$ BEGIN FOR i IN 100..299 LOOP
       BEGIN INSERT INTO item VALUES (i, 'sub');
         IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
       EXCEPTION WHEN raise_exception THEN NULL; END;
     END LOOP; END $$`,
  );
  const rows = await fleet.sql('b', 'SELECT id::int FROM item WHERE id < 100 ORDER BY id');
  assert.equal(rows, [{ id: 2 }, { id: 5 }]);
  const [count] = await fleet.sql('b', 'SELECT count(*)::int AS n FROM item WHERE id >= 100');
  assert.equal(count, { n: 100 });
});

test('a prepared transaction arrives when it is committed, not when rolled back', async () => {
  const name = fleet.cluster;
  await arrives(
    ['item'],
    `BEGIN; INSERT INTO item VALUES (7001, 'prepared'); PREPARE TRANSACTION '${name}-1'`,
    `BEGIN; INSERT INTO item VALUES (7002, 'prepared'); PREPARE TRANSACTION '${name}-2'`,
    `INSERT INTO item VALUES (7003, 'between')`,
    `COMMIT PREPARED '${name}-1'`,
    `ROLLBACK PREPARED '${name}-2'`,
  );
  const rows = await fleet.sql('b', 'SELECT id::int FROM item WHERE id > 7000 ORDER BY id');
  assert.equal(rows, [{ id: 7001 }, { id: 7003 }]);
});

test('a row of 8 MB arrives', async () => {
  await arrives(
    ['big'],
    `INSERT INTO big SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 262144) AS i`,
    `INSERT INTO big SELECT 2, repeat('ü', 4 * 1024 * 1024)`,
    `UPDATE big SET body = body || '!' WHERE id = 1`,
  );
  const rows = await fleet.sql('b', 'SELECT octet_length(body) AS n FROM big ORDER BY id');
  assert.equal(rows, [{ n: 8 * 1024 * 1024 + 1 }, { n: 8 * 1024 * 1024 }]);
});

test('a large value that an update leaves alone arrives under REPLICA IDENTITY FULL', async () => {
  await arrives(
    ['toasted'],
    `INSERT INTO toasted SELECT i, 0, string_agg(md5(i || '/' || j), '')
     FROM generate_series(1, 5) AS i, generate_series(1, 1000) AS j GROUP BY i`,
    'UPDATE toasted SET n = n + 1',
    'UPDATE toasted SET id = id + 10 WHERE id < 3',
    `BEGIN; UPDATE toasted SET body = 'small' WHERE id = 3; UPDATE toasted SET n = 9 WHERE id = 3;
     UPDATE toasted SET body = NULL WHERE id = 4; DELETE FROM toasted WHERE id = 5; COMMIT`,
  );
  const [row] = await fleet.sql('b', 'SELECT n, length(body) AS n2 FROM toasted WHERE id = 11');
  assert.equal(row, { n: 1, n2: 32_000 });
});

test('names with quotes, dots, blanks, other scripts and reserved words arrive', async () => {
  const table = `${oddSchema}.${oddTable}`;
  await arrives(
    [table, 'public."a.b"', 'a.b'],
    `INSERT INTO ${table} VALUES (1, 'x', 'ж', 'from'), (1, '', NULL, '"')`,
    `UPDATE ${table} SET "select" = '''' WHERE "a.b" = 'x'`,
    `DELETE FROM ${table} WHERE "a.b" = ''`,
    `INSERT INTO public."a.b" VALUES (1, 'table with a dot')`,
    `INSERT INTO a.b VALUES (1, 'table of a schema')`,
  );
  assert.is((await fleet.sql('b', `SELECT * FROM ${table}`)).length, 1);
});

const keys: Readonly<Record<string, readonly string[]>> = {
  text: [`''`, `' '`, `'ä'`, `'a'`, `E'\\\\N'`, `'null'`, `E'a\\nb'`, `'{}'`, `repeat('k', 900)`],
  uuid: [`'00000000-0000-0000-0000-000000000000'`, `'ffffffff-ffff-ffff-ffff-ffffffffffff'`],
  numeric: ['0', '-1.50', '12345678901234567890.123', `'NaN'`, `'Infinity'`],
  bigint: ['0', '9223372036854775807', '-9223372036854775808'],
  boolean: ['true', 'false'],
  'char(6)': [`'ab'`, `''`, `'abcdef'`],
  bytea: [`'\\x'`, `'\\x00000000'`, `'\\x00'`],
  date: [`'infinity'`, `'-infinity'`, `'0044-03-15 BC'`, `'2024-02-29'`],
  timestamptz: [`'infinity'`, `'2024-01-01 00:00:00.000001+02'`, `'4713-01-01 00:00:00 BC'`],
  'double precision': [`'NaN'`, `'-Infinity'`, '0.1', '1e-300'],
  'int[]': [`'{}'`, `'{1,NULL,3}'`],
  mood: [`'sad'`, `'not so sad'`],
  inet: [`'10.0.0.1'`, `'::1/64'`],
  interval: [`'1 mon -1 day 00:00:01.5'`, `'-3 years'`],
  oid: ['4294967295', '0'],
};

test('keys of every kind can be inserted, updated, changed and deleted', async () => {
  for (const [type, values] of Object.entries(keys)) {
    const table = `"keyed ${type}"`;
    const rows = values.map((value) => `(${value}, 'new')`).join(', ');
    await fleet.sql('a', `INSERT INTO ${table} VALUES ${rows}`);
    await fleet.sql('a', `UPDATE ${table} SET v = 'updated' WHERE id = ${values[0]}`);
    await fleet.sql('a', `DELETE FROM ${table} WHERE id = ${values[1]}`);
  }
  await fleet.caughtUp();
  for (const [type, values] of Object.entries(keys)) {
    const digest = await fleet.assertSame(`"keyed ${type}"`);
    assert.match(digest, new RegExp(`^${values.length - 1} rows`), type);
  }
});

test('a key of the same value in other digits or letters is one row', async () => {
  await arrives(
    ['"keyed numeric"', 'keyed_folded'],
    `INSERT INTO "keyed numeric" VALUES (100.0, 'x')`,
    `UPDATE "keyed numeric" SET id = 100.00 WHERE id = 100`,
    `BEGIN; DELETE FROM "keyed numeric" WHERE id = 100; INSERT INTO "keyed numeric" VALUES (1e2);
     UPDATE "keyed numeric" SET id = 100.000, v = 'y' WHERE id = 100; COMMIT`,
    `INSERT INTO keyed_folded VALUES ('Anna', 1), ('BERT', 2)`,
    `UPDATE keyed_folded SET id = 'anna' WHERE id = 'Anna'`,
    `BEGIN; DELETE FROM keyed_folded WHERE id = 'bert'; INSERT INTO keyed_folded VALUES ('Bert', 3);
     UPDATE keyed_folded SET n = 4 WHERE id = 'bert'; COMMIT`,
  );
});

test('composite keys arrive in the order of their index', async () => {
  await arrives(
    ['keyed_composite', 'keyed_index'],
    `INSERT INTO keyed_composite SELECT i % 7, 'b' || i, '2024-01-01'::date + i, 'v'
     FROM generate_series(1, 200) AS i`,
    `UPDATE keyed_composite SET a = a + 1, c = c - 1 WHERE a < 3`,
    `DELETE FROM keyed_composite WHERE b LIKE 'b1%'`,
    `INSERT INTO keyed_index SELECT i, 'c' || i, 'v' FROM generate_series(1, 20) AS i`,
    `UPDATE keyed_index SET code = code || 'x' WHERE id % 2 = 0`,
    `UPDATE keyed_index SET id = id + 100 WHERE id % 3 = 0`,
    'DELETE FROM keyed_index WHERE id < 5',
  );
});

test('identity and generated columns arrive with the leader’s values', async () => {
  await arrives(
    ['generated', 'numbered'],
    'INSERT INTO generated (n) SELECT i FROM generate_series(1, 30) AS i',
    'UPDATE generated SET n = n + 1 WHERE id % 3 = 0',
    'INSERT INTO generated (id, n) OVERRIDING SYSTEM VALUE VALUES (1000, 5)',
    `INSERT INTO numbered (k, v) SELECT 'k' || i, 'v' FROM generate_series(1, 30) AS i`,
    `UPDATE numbered SET v = 'w' WHERE k LIKE 'k1%'`,
    `UPDATE numbered SET k = k || '!' WHERE k LIKE 'k2%'`,
    `UPDATE numbered SET number = DEFAULT WHERE k = 'k3'`,
  );
});

test('unique values can be swapped in one transaction', async () => {
  await arrives(
    ['placed', 'deferred', 'booked'],
    'INSERT INTO placed SELECT i, i FROM generate_series(1, 9) AS i',
    `BEGIN; UPDATE placed SET place = 0 WHERE id = 1; UPDATE placed SET place = 1 WHERE id = 2;
     UPDATE placed SET place = 2 WHERE id = 1; COMMIT`,
    `BEGIN; DELETE FROM placed WHERE id = 3; UPDATE placed SET place = 3 WHERE id = 4; COMMIT`,
    'INSERT INTO deferred SELECT i, i FROM generate_series(1, 9) AS i',
    `UPDATE deferred SET place = 10 - place`,
    `INSERT INTO booked VALUES (1, '[1,5)'), (2, '[5,9)')`,
    `BEGIN; UPDATE booked SET span = '[20,21)' WHERE id = 1;
     UPDATE booked SET span = '[1,5)' WHERE id = 2;
     UPDATE booked SET span = '[5,9)' WHERE id = 1; COMMIT`,
  );
});

test('a row that moves to another partition is in that one only', async () => {
  await arrives(
    ['region', 'region_eu', 'region_us', 'region_rest'],
    `INSERT INTO region SELECT i, (ARRAY['eu', 'us', 'asia'])[1 + i % 3], 'v'
     FROM generate_series(1, 90) AS i`,
    `UPDATE region SET name = 'us' WHERE name = 'eu' AND id < 40`,
    `UPDATE region SET v = 'w', name = 'mars' WHERE id BETWEEN 50 AND 60`,
    `TRUNCATE region_rest`,
    `INSERT INTO region VALUES (500, 'venus', 'after')`,
  );
  await arrives(['region'], 'TRUNCATE region', `INSERT INTO region VALUES (1, 'eu', 'again')`);
  assert.equal(await rowsOf('region_eu'), [{ id: 1, name: 'eu', v: 'again' }]);
});

test('an inheritance child keeps its rows when its parent’s are deleted', async () => {
  await arrives(
    ['ONLY base', 'derived'],
    `INSERT INTO base VALUES (1, 'base'), (2, 'base')`,
    `INSERT INTO derived VALUES (1, 'derived', 7)`,
    'DELETE FROM ONLY base WHERE id = 1',
    `UPDATE base SET v = 'both'`,
    'TRUNCATE ONLY base',
  );
  assert.is((await rowsOf('derived')).length, 1);
});

test('columns may be in another order on the follower', async () => {
  await arrives(
    ['(SELECT id, x, y, z FROM shuffled)'],
    `INSERT INTO shuffled (id, x, y, z) VALUES (1, 'x', 1.50, '2024-01-01'), (2, NULL, 0, NULL)`,
    `UPDATE shuffled SET y = 2.25, x = 'xx' WHERE id = 1`,
  );
  const [row] = await fleet.sql('b', 'SELECT id, x, y FROM shuffled ORDER BY id');
  assert.equal(row, { id: 1, x: 'xx', y: '2.25' });
});

test('values of every type arrive as they are', async () => {
  await arrives(['typed'], ...typedTable.rows);
  const [row] = await fleet.sql('b', 'SELECT count(*)::int AS n FROM typed');
  assert.equal(row, { n: typedTable.rows.length });
});

test('the settings of writers do not change what arrives', async () => {
  await arrives(
    ['typed'],
    `SET datestyle = 'SQL, DMY'; SET intervalstyle = 'iso_8601'; SET timezone = 'Asia/Kathmandu';
     SET bytea_output = 'escape'; SET extra_float_digits = -5; SET search_path = a, public;
     INSERT INTO public.typed (id, ts, tz, d, iv, f8, by)
     VALUES (900, now(), now(), current_date, '1 day 2 hours', pi(), '\\x00ff')`,
    'RESET ALL',
  );
});

test('a row without columns beside its key, and a key without changes, arrive', async () => {
  await arrives(
    ['only_key'],
    'INSERT INTO only_key VALUES (1), (2)',
    'UPDATE only_key SET id = id',
    'UPDATE only_key SET id = 3 WHERE id = 2',
  );
});

test.run();
