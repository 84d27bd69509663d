/**
 * TRUNCATE in every combination: several tables and those that refer to them, one partition and all
 * of them, parents and children, with rows written before and after it in the same transaction, and
 * inside of subtransactions that commit or roll back. Tests run in order, on one fleet.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ExactReader } from '../support/exact-rows.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TABLE one (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
  CREATE TABLE two (id int PRIMARY KEY, one int REFERENCES one);
  CREATE TABLE three (id int PRIMARY KEY, two int REFERENCES two);
  CREATE TABLE tree (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
  CREATE TABLE low PARTITION OF tree FOR VALUES FROM (0) TO (100);
  CREATE TABLE high PARTITION OF tree FOR VALUES FROM (100) TO (200) PARTITION BY HASH (id);
  CREATE TABLE high_0 PARTITION OF high FOR VALUES WITH (MODULUS 2, REMAINDER 0);
  CREATE TABLE high_1 PARTITION OF high FOR VALUES WITH (MODULUS 2, REMAINDER 1);
  CREATE TABLE leaning (id int PRIMARY KEY, tree int REFERENCES tree);
  CREATE TABLE parent (id int PRIMARY KEY);
  CREATE TABLE child (x int, PRIMARY KEY (id)) INHERITS (parent)`;
const names = [
  ...['one', 'two', 'three', 'low', 'high_0', 'high_1', 'leaning', 'ONLY parent', 'child'],
];

const rows = `
  INSERT INTO one (v) SELECT 'v' FROM generate_series(1, 5); INSERT INTO two SELECT id, id FROM one;
  INSERT INTO three SELECT id, id FROM two; INSERT INTO parent VALUES (1), (2);
  INSERT INTO tree SELECT i * 15, 'v' FROM generate_series(1, 12) AS i;
  INSERT INTO leaning SELECT id, id FROM tree; INSERT INTO child VALUES (1, 1), (2, 2)`;

let stack: Stack;
let fleet: Fleet;
let reader: ExactReader;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions: 3, tables });
  reader = new ExactReader(fleet);
  await fleet.startAgents();
});

test.after(async () => {
  await reader?.close();
  await fleet?.close();
  await stack?.close();
});

test.before.each(async () => {
  await fleet.sql('a', 'TRUNCATE one, two, three, tree, leaning, parent, child RESTART IDENTITY');
  await fleet.sql('a', rows);
  await fleet.caughtUp();
});

/** Gives how many rows each table has, where it has any. */
async function arrives(...statements: readonly string[]): Promise<Record<string, number>> {
  await fleet.sql('a', `BEGIN; ${statements.join('; ')}`);
  if (!statements.includes('ROLLBACK')) await fleet.sql('a', 'COMMIT');
  await fleet.caughtUp();
  const counts: Record<string, number> = {};
  for (const name of names) {
    const text = `SELECT t::text FROM ${name.replace(/\w+$/, 'public.$&')} AS t
      ORDER BY t::text COLLATE "C"`;
    const { length } = (await reader.assertSame(text, name)).rows;
    if (length > 0) counts[name] = length;
  }
  return counts;
}

test('CASCADE and RESTART IDENTITY, with rows before and after', async () => {
  const counts = await arrives(
    `INSERT INTO one (v) VALUES ('gone')`,
    'TRUNCATE one, tree RESTART IDENTITY CASCADE',
    `INSERT INTO one (v) VALUES ('first'), ('second')`,
    'INSERT INTO two VALUES (7, 1)',
  );
  assert.equal(counts, { one: 2, two: 1, 'ONLY parent': 2, child: 2 });
  assert.equal(await fleet.sql('b', 'SELECT id FROM one'), [{ id: 1 }, { id: 2 }]);
});

test('one partition, a tree below it, and the whole', async () => {
  const low = await arrives('DELETE FROM leaning', 'TRUNCATE low, leaning');
  assert.equal(Object.keys(low).includes('low'), false);
  assert.equal(Object.keys(low).includes('high_0'), true);
  const high = await arrives(
    `INSERT INTO tree VALUES (1, 'stays'), (101, 'gone')`,
    'TRUNCATE high, leaning',
    `INSERT INTO tree VALUES (102, 'again')`,
    'UPDATE tree SET id = 103 WHERE id = 1',
  );
  assert.is((high['high_0'] ?? 0) + (high['high_1'] ?? 0), 2);
  const whole = await arrives('TRUNCATE leaning, tree', `INSERT INTO tree VALUES (150, 'x')`);
  assert.is((whole['high_0'] ?? 0) + (whole['high_1'] ?? 0) + (whole['low'] ?? 0), 1);
});

test('a subtransaction that rolls back keeps the rows, one that commits does not', async () => {
  const counts = await arrives(
    ...['SAVEPOINT s', 'TRUNCATE tree CASCADE', `INSERT INTO tree VALUES (5, 'gone')`],
    ...['ROLLBACK TO s', `INSERT INTO tree VALUES (7, 'kept')`, 'SAVEPOINT t', 'TRUNCATE three'],
    ...['SAVEPOINT u', 'INSERT INTO three VALUES (1, 1)', 'TRUNCATE three, two', 'ROLLBACK TO u'],
    ...['INSERT INTO three VALUES (2, 2)', 'RELEASE t', 'TRUNCATE ONLY parent'],
    'INSERT INTO child VALUES (3, 3)',
  );
  const kept = { one: 5, two: 5, three: 1, low: 7, high_0: 4, high_1: 2, leaning: 12, child: 3 };
  assert.is(counts['three'], 1);
  assert.is(counts['child'], 3);
  assert.equal(Object.keys(counts).sort(), Object.keys(kept).sort());
});

test('a rolled-back TRUNCATE keeps every row', async () => {
  const before = await arrives('SELECT 1');
  const after = await arrives('TRUNCATE one, two, three, tree, leaning', 'ROLLBACK');
  assert.equal(after, before);
});

test('a parent with its children, several times in one transaction', async () => {
  const counts = await arrives(
    ...['TRUNCATE parent', 'INSERT INTO child VALUES (1, 9)', 'TRUNCATE child'],
    ...['INSERT INTO parent VALUES (8)', 'INSERT INTO child VALUES (1, 10)'],
    ...['TRUNCATE three', 'TRUNCATE three', 'INSERT INTO three VALUES (1, 1)'],
  );
  assert.is(counts['three'], 1);
  assert.is(counts['child'], 1);
  assert.is(counts['ONLY parent'], 1);
});

test.run();
