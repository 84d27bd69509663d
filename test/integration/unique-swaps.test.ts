/**
 * Unique values that change places within one transaction, in cycles of two and more, whatever
 * makes them unique: NULLs that are equal, constraints that are checked late, parts of a table,
 * expressions, exclusion, keys that move between partitions. A follower never checks a state in
 * between. Tests run in order, on one fleet.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ExactReader } from '../support/exact-rows.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TABLE chain (id int PRIMARY KEY, place text NOT NULL UNIQUE);
  CREATE TABLE nulls (id int PRIMARY KEY, place int, UNIQUE NULLS NOT DISTINCT (place));
  CREATE TABLE late (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED);
  CREATE TABLE span (id int PRIMARY KEY, at int4range,
    EXCLUDE USING gist (at WITH &&) DEFERRABLE INITIALLY DEFERRED);
  CREATE TABLE halves (id int PRIMARY KEY, place int, live boolean);
  CREATE UNIQUE INDEX ON halves (place) WHERE live;
  CREATE UNIQUE INDEX ON halves ((place % 100)) WHERE NOT live;
  CREATE TABLE doubled (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, k int NOT NULL UNIQUE);
  ALTER TABLE doubled REPLICA IDENTITY USING INDEX doubled_k_key;
  CREATE TABLE leafy (id int, day int, code int, PRIMARY KEY (id, day), UNIQUE (code, day))
    PARTITION BY LIST (day);
  CREATE TABLE leafy_1 PARTITION OF leafy FOR VALUES IN (1);
  CREATE TABLE leafy_2 PARTITION OF leafy FOR VALUES IN (2);
  CREATE TABLE large (id int PRIMARY KEY, place int UNIQUE, body text);
  ALTER TABLE large ALTER body SET STORAGE EXTERNAL`;

const rows = `
  INSERT INTO chain VALUES (1, 'a'), (2, 'b'), (3, 'c');
  INSERT INTO nulls VALUES (1, NULL), (2, 2), (3, 3);
  INSERT INTO late SELECT i, i FROM generate_series(1, 6) AS i;
  INSERT INTO span VALUES (1, '[1,5)'), (2, '[5,9)'), (3, '[9,12)');
  INSERT INTO halves SELECT i, i, i % 2 = 0 FROM generate_series(1, 8) AS i;
  INSERT INTO doubled VALUES (1, 1), (2, 2), (3, 3);
  INSERT INTO leafy VALUES (1, 1, 1), (2, 1, 2), (1, 2, 1), (2, 2, 2);
  INSERT INTO large SELECT i, i, repeat(i || ' ', 2000) FROM generate_series(1, 4) AS i`;

let stack: Stack;
let fleet: Fleet;
let reader: ExactReader;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions: 4, tables });
  reader = new ExactReader(fleet);
  await fleet.startAgents();
  await fleet.sql('a', rows);
  await fleet.caughtUp();
});

test.after(async () => {
  await reader?.close();
  await fleet?.close();
  await stack?.close();
});

/** The statements are one transaction; gives the rows of the last table, as text. */
async function arrives(names: readonly string[], ...statements: string[]): Promise<string[]> {
  await fleet.sql('a', `BEGIN; ${statements.join('; ')}; COMMIT`);
  await fleet.caughtUp();
  let last: string[] = [];
  for (const name of names) {
    const text = `SELECT t::text FROM public.${name} AS t ORDER BY t::text COLLATE "C"`;
    last = (await reader.assertSame(text, name)).rows.map(([row]) => row ?? '');
  }
  return last;
}

test('a cycle of three, and one in which rows are deleted and inserted again', async () => {
  const cycle = await arrives(
    ['chain'],
    `UPDATE chain SET place = 'x' WHERE id = 3`,
    `UPDATE chain SET place = 'c' WHERE id = 2`,
    `UPDATE chain SET place = 'b' WHERE id = 1`,
    `UPDATE chain SET place = 'a' WHERE id = 3`,
  );
  assert.equal(cycle, ['(1,b)', '(2,c)', '(3,a)']);
  const again = await arrives(
    ['chain'],
    'DELETE FROM chain WHERE id = 1',
    `INSERT INTO chain VALUES (4, 'b')`,
    `UPDATE chain SET id = 1, place = 'z' WHERE id = 2`,
    `INSERT INTO chain VALUES (2, 'c')`,
    `UPDATE chain SET place = 'y' WHERE id = 2`,
    'DELETE FROM chain WHERE id = 2',
    `INSERT INTO chain VALUES (2, 'c')`,
  );
  assert.equal(again, ['(1,z)', '(2,c)', '(3,a)', '(4,b)']);
});

test('a NULL that is unique moves to another row', async () => {
  const found = await arrives(
    ['nulls'],
    'UPDATE nulls SET place = 9 WHERE id = 1',
    'UPDATE nulls SET place = NULL WHERE id = 2',
    'UPDATE nulls SET place = 2 WHERE id = 3',
    'UPDATE nulls SET place = 3 WHERE id = 1',
  );
  assert.equal(found, ['(1,3)', '(2,)', '(3,2)']);
});

test('values that are checked at the commit only rotate in one statement', async () => {
  const rotated = await arrives(['late'], 'UPDATE late SET place = place % 6 + 1');
  assert.equal(rotated, ['(1,2)', '(2,3)', '(3,4)', '(4,5)', '(5,6)', '(6,1)']);
  const spans = await arrives(
    ['span'],
    `UPDATE span SET at = '[5,9)' WHERE id = 1`,
    `UPDATE span SET at = '[9,12)' WHERE id = 2`,
    `UPDATE span SET at = '[1,5)' WHERE id = 3`,
  );
  assert.equal(spans, ['(1,"[5,9)")', '(2,"[9,12)")', '(3,"[1,5)")']);
});

test('a row leaves one partial index for another, while others take its place', async () => {
  await arrives(
    ['halves'],
    'UPDATE halves SET live = NOT live',
    'UPDATE halves SET place = -place WHERE live',
    'UPDATE halves SET place = 8 + place WHERE live',
  );
});

test('both keys of a table rotate, the identity and the one that is not', async () => {
  const found = await arrives(
    ['doubled'],
    'UPDATE doubled SET id = id % 3 + 1',
    'UPDATE doubled SET k = -k',
    'UPDATE doubled SET k = 4 + k',
  );
  assert.equal(found, ['(1,1)', '(2,3)', '(3,2)']);
});

test('keys and codes change places across partitions', async () => {
  const found = await arrives(
    ['leafy_1', 'leafy_2', 'leafy'],
    'UPDATE leafy SET day = 2, id = 3, code = 3 WHERE (id, day) = (1, 1)',
    'UPDATE leafy SET day = 1 WHERE (id, day) = (1, 2)',
    'UPDATE leafy SET day = 2, id = 1, code = 1 WHERE (id, day) = (2, 1)',
  );
  assert.equal(found, ['(1,1,1)', '(1,2,1)', '(2,2,2)', '(3,2,3)']);
});

test('rows that swap a unique value keep the large values that were not sent', async () => {
  await arrives(
    ['large'],
    'UPDATE large SET place = -place',
    'UPDATE large SET place = 5 + place',
    'UPDATE large SET id = id + 10 WHERE id < 3',
    'UPDATE large SET id = id - 2 WHERE id > 2 AND id < 10',
  );
});

test.run();
