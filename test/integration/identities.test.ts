/**
 * Rows are identified by every kind of key: keys whose equality an extension or a collation
 * defines, indexes of every kind, partitions, and histories in which keys and unique values change
 * places. Each step is compared on the follower before the next. Tests run in order, on one fleet.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ExactReader } from '../support/exact-rows.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { identityTables } from '../support/identity-tables.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let fleet: Fleet;
let reader: ExactReader;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions: 3, tables: identityTables });
  reader = new ExactReader(fleet);
  await fleet.startAgents();
  // For the application the extension's operators are at hand; our own sessions have to name them.
  await fleet.sql('a', 'SET search_path = public, "Odd.Ext"');
});

test.after(async () => {
  await reader?.close();
  await fleet?.close();
  await stack?.close();
});

/** After each statement the tables are the same; gives the rows of the last one, as text. */
async function arrives(
  tables: readonly string[],
  ...statements: readonly string[]
): Promise<string[]> {
  let rows: string[] = [];
  await fleet.sql('a', 'ROLLBACK');
  for (const statement of statements) {
    await fleet.sql('a', statement);
    await fleet.caughtUp();
    for (const table of tables) {
      const text = `SELECT t::text FROM ONLY ${table} AS t ORDER BY t::text COLLATE "C"`;
      const same = await reader.assertSame(text, `${table} after ${statement.slice(0, 200)}`);
      rows = same.rows.map(([row]) => row ?? '');
    }
  }
  return rows;
}

test('keys whose equality belongs to an extension', async () => {
  const citext = await arrives(
    ['public.by_citext'],
    `INSERT INTO by_citext VALUES ('Anna', 1), ('BERT', 2), ('Carl', 3)`,
    `UPDATE by_citext SET k = 'ANNA' WHERE k = 'anna'`,
    `DELETE FROM by_citext WHERE k = 'bert'`,
    `BEGIN; DELETE FROM by_citext WHERE k = 'carl'; INSERT INTO by_citext VALUES ('CARL', 4);
     UPDATE by_citext SET k = 'cArL', v = 5 WHERE k = 'carl'; COMMIT`,
  );
  assert.equal(citext, ['(ANNA,1)', '(cArL,5)']);
  const nicks = await arrives(
    ['public.by_nick'],
    `INSERT INTO by_nick SELECT 'N' || i, ('Top.a' || i % 3)::"Odd.Ext".ltree, i, 'v'
     FROM generate_series(1, 30) AS i`,
    `UPDATE by_nick SET k = lower(k::text), v = 'w' WHERE n < 10`,
    `UPDATE by_nick SET p = 'Top.b' WHERE n % 4 = 0`,
    `DELETE FROM by_nick WHERE n > 5`,
  );
  assert.is(nicks.length, 5);
  const others = await arrives(
    ['public.by_nicks', 'public.by_tag', 'public.by_hstore', 'public.by_image'],
    `INSERT INTO by_nicks VALUES ('{Anna,NULL}', 1), ('{}', 2), ('{b}', 3);
     INSERT INTO by_tag VALUES ('(Anna,1)', 1), ('(,)', 2);
     INSERT INTO by_hstore VALUES ('a=>1,b=>NULL', 1), ('', 2);
     INSERT INTO by_image VALUES ('{1.0}', '(Anna,1)', 1), ('{1.0}', '(anna,1)', 2)`,
    `UPDATE by_nicks SET k = '{ANNA,NULL}' WHERE v = '1'; UPDATE by_tag SET k = '(anna,1)'
     WHERE v = '1'; UPDATE by_hstore SET k = 'b=>NULL,a=>2' WHERE v = '1';
     UPDATE by_image SET k = '{1.00}' WHERE v = '2'`,
    `DELETE FROM by_nicks WHERE v < '3'; DELETE FROM by_tag WHERE v = '1';
     DELETE FROM by_hstore WHERE v = '2'; DELETE FROM by_image WHERE v = '1'`,
  );
  assert.equal(others, ['({1.00},"(anna,1)",2)']);
});

test('keys that are equal for the index of the identity are one row', async () => {
  const sharp = await arrives(
    ['public.sharp'],
    `INSERT INTO sharp VALUES ('Anna', 1), ('anna', 2), ('ANNA', 3)`,
    `DELETE FROM sharp WHERE k COLLATE "C" = 'anna'`,
    `UPDATE sharp SET v = 'x' WHERE k COLLATE "C" = 'ANNA'`,
    `UPDATE sharp SET k = 'aNNA' WHERE k COLLATE "C" = 'Anna'`,
  );
  assert.equal(sharp, ['(ANNA,x)', '(aNNA,1)']);
  const soft = await arrives(
    ['public.soft'],
    `INSERT INTO soft VALUES ('Anna', 1), ('Bert', 2)`,
    `UPDATE soft SET k = 'ANNA' WHERE v = '1'`,
    `BEGIN; DELETE FROM soft WHERE v = '1'; INSERT INTO soft VALUES ('anna', 3); COMMIT`,
    `DELETE FROM soft WHERE v = '2'`,
  );
  assert.equal(soft, ['(anna,3)']);
  const pattern = await arrives(
    ['public.by_pattern'],
    `INSERT INTO by_pattern VALUES ('a', 1), ('a ', 2), ('A', 3)`,
    `UPDATE by_pattern SET v = 'x' WHERE k = 'a '; DELETE FROM by_pattern WHERE k = 'a'`,
  );
  assert.equal(pattern, ['("a ",x)', '(A,3)']);
});

test('an identity beside a deferrable key over the same column', async () => {
  const rows = await arrives(
    ['public.twin'],
    `INSERT INTO twin VALUES (1, 'a'), (2, 'b'), (3, 'c')`,
    `UPDATE twin SET v = v || '!' WHERE id < 3`,
    `UPDATE twin SET id = id + 10; DELETE FROM twin WHERE id = 13`,
  );
  assert.equal(rows, ['(11,a!)', '(12,b!)']);
});

test('a type to which a function casts text keeps its values', async () => {
  const rows = await arrives(
    ['public.cast_text'],
    `INSERT INTO cast_text VALUES
       ('light', 'DARK', 'pg_class', 'x', '<a/>', 'n'), ('DARK', 'light', 0, '\\303', '', ''),
       ('dark', NULL, '4000000001', '', '<b>&amp;</b>', 'select')`,
    `UPDATE cast_text SET k = CASE k WHEN 'light' THEN 'dark' WHEN 'dark' THEN 'light' END::shade
     WHERE k <> 'DARK' AND false`,
    `DELETE FROM cast_text WHERE k = 'dark'`,
    `UPDATE cast_text SET k = 'dark' WHERE k = 'light'`,
  );
  assert.equal(rows, ['(DARK,light,-,"\\\\303","","")', '(dark,DARK,pg_class,x,<a/>,n)']);
});

test('foreign keys in a circle, and references that cascade', async () => {
  await arrives(
    ['public.head', 'public.tail', 'public.chain'],
    `BEGIN; INSERT INTO head SELECT i, i FROM generate_series(1, 50) AS i;
     INSERT INTO tail SELECT i, 51 - i FROM generate_series(1, 50) AS i; COMMIT`,
    `BEGIN; UPDATE head SET id = id + 100, best = best + 100; UPDATE tail SET id = id + 100,
     head = head + 100; COMMIT`,
    `BEGIN; DELETE FROM tail WHERE id % 2 = 0; UPDATE head SET best = NULL
     WHERE best % 2 = 0; COMMIT`,
    `INSERT INTO chain VALUES (1, NULL), (2, 1), (3, 2); UPDATE chain SET next = 3 WHERE id = 1`,
    `UPDATE chain SET id = id + 10 WHERE id = 2`,
    `TRUNCATE head RESTART IDENTITY CASCADE`,
  );
  assert.equal(await arrives(['public.tail'], 'SELECT 1'), []);
});

test('unique and excluded values change places, together with keys', async () => {
  await arrives(
    ['public.booking', 'public.counter'],
    `INSERT INTO booking SELECT i, i % 2, tsrange('2024-01-01'::date + i, '2024-01-02'::date + i),
     'note ' || i FROM generate_series(1, 10) AS i`,
    `BEGIN; UPDATE booking SET span = '[2025-01-01,2025-01-02)', note = NULL WHERE id = 2;
     UPDATE booking SET span = '[2024-01-03,2024-01-04)', note = 'note 2' WHERE id = 4;
     UPDATE booking SET id = 20, note = 'note 4' WHERE id = 2; COMMIT`,
    `BEGIN; DELETE FROM booking WHERE id = 1; UPDATE booking SET id = 1, note = 'note 1'
     WHERE id = 3; INSERT INTO booking VALUES (3, 1, '[2024-01-02,2024-01-03)', 'note 3'); COMMIT`,
    `INSERT INTO counter SELECT i, i FROM generate_series(1, 200) AS i`,
    `BEGIN; UPDATE counter SET n = -n; UPDATE counter SET n = 201 + n; COMMIT`,
    `BEGIN; UPDATE counter SET id = -id; UPDATE counter SET id = 201 + id; COMMIT`,
  );
});

test('ten thousand changes of one row, and rows that last one transaction', async () => {
  const rows = await arrives(
    ['public.counter'],
    'TRUNCATE counter',
    `DO $$ BEGIN
       INSERT INTO counter VALUES (1, 0), (2, -1);
       FOR i IN 1..10000 LOOP
         UPDATE counter SET n = i WHERE id = 1;
         IF i % 1000 = 0 THEN
           DELETE FROM counter WHERE id = 2; INSERT INTO counter VALUES (2, -i);
         END IF;
       END LOOP;
       INSERT INTO counter VALUES (3, 7000001); UPDATE counter SET n = n + 1 WHERE id = 3;
       DELETE FROM counter WHERE id = 3;
     END $$`,
    `DO $$ BEGIN
       FOR i IN 1..300 LOOP UPDATE counter SET n = n + 1 WHERE id = 1; COMMIT; END LOOP;
     END $$`,
  );
  assert.equal(rows, ['(1,10300)', '(2,-10000)']);
});

test('1,600 columns, odd names, dropped columns', async () => {
  await arrives(
    ['public.wide'],
    `INSERT INTO wide (id, c0, c799, c1598)
     SELECT i, i, -i, NULLIF(i, 2) FROM generate_series(1, 5) i`,
    `UPDATE wide SET ${Array.from({ length: 1_599 }, (_, i) => `c${i} = ${i}`).join(', ')}
     WHERE id < 3; UPDATE wide SET id = 9 WHERE id = 5; DELETE FROM wide WHERE id = 4`,
  );
  const odd = '"__proto__"';
  await arrives(
    [`public.${odd}`, 'public.gaps'],
    `INSERT INTO ${odd} VALUES (1, 'x', 2, 'y', 'z', 3, 4), (2, '', NULL, '', NULL, NULL, NULL);
     INSERT INTO gaps VALUES (1, 'b', 2), (2, NULL, NULL)`,
    `UPDATE ${odd} SET " " = 9, "null" = 8 WHERE "__proto__" = 'x'; UPDATE gaps SET k = k + 5`,
    `UPDATE ${odd} SET "__proto__" = 'n', "constructor" = 5 WHERE "constructor" = 2;
     DELETE FROM gaps WHERE b IS NULL`,
  );
});

test('rows move between partitions of several levels, by keys that change and swap', async () => {
  const leaves = ['public.tree_old_0', 'public.tree_old_1', 'public."Tree.New"'];
  await arrives(
    leaves,
    `INSERT INTO tree SELECT '2023-12-20'::date + i, i, 'v' || i, i FROM generate_series(1, 30) i`,
    `UPDATE tree SET day = day + 15 WHERE id % 3 = 0`,
    `UPDATE tree SET id = id + 1000, w = NULL WHERE id % 5 = 0`,
    `BEGIN; UPDATE tree SET day = '2030-01-01' WHERE id = 1; UPDATE tree SET day = '2020-01-01',
     id = 1 WHERE id = 29; UPDATE tree SET day = '2024-01-18', id = 29 WHERE day = '2030-01-01';
     COMMIT`,
    `BEGIN; DELETE FROM tree WHERE id = 29; INSERT INTO tree VALUES ('2020-02-02', 29, 'back');
     UPDATE tree SET day = '2024-02-02' WHERE id = 29; COMMIT`,
    `BEGIN; TRUNCATE tree_old; INSERT INTO tree VALUES ('2020-01-01', 7, 'after'); COMMIT`,
    'TRUNCATE tree',
  );
});

test('an empty table that is attached is replicated, its columns in any order', async () => {
  const attach = `ALTER TABLE tree ATTACH PARTITION tree_more
    FOR VALUES FROM ('2040-01-01') TO (MAXVALUE)`;
  const make = (columns: string): string => `CREATE TABLE tree_more (${columns}); ${attach}`;
  await fleet.tamper('b', make('id int, day date, v text, w int, PRIMARY KEY (day, id)'));
  await fleet.sql('a', make('w int, v text, day date, id int, PRIMARY KEY (day, id)'));
  const columns = '(SELECT day, id, v, w FROM tree_more)';
  await fleet.sql(
    'a',
    `INSERT INTO tree SELECT '2039-12-30'::date + i, i FROM generate_series(1, 4) i`,
  );
  await fleet.sql('a', `UPDATE tree SET day = day + 2 WHERE id < 3; DELETE FROM tree WHERE id = 4`);
  await fleet.caughtUp();
  assert.match(await fleet.assertSame(columns), /^3 rows/);
});

test('parents, numbered and generated columns, and tables that are not replicated', async () => {
  await arrives(
    ['public.parent', 'public.son', 'public.number_a', 'public.number_b'],
    `INSERT INTO parent VALUES (1, 'p'), (2, 'p'); 
     INSERT INTO son VALUES (1, 's', 1.50), (3, 's', 2);
     INSERT INTO number_a (v) SELECT 'v' || i FROM generate_series(1, 5) AS i;
     INSERT INTO number_b (a_id) SELECT id FROM number_a;
     INSERT INTO scratch VALUES (1, 'here'); CREATE TEMP TABLE passing (id int);
     INSERT INTO passing VALUES (1); UPDATE passing SET id = 2`,
    `UPDATE parent SET v = v || '!'; DELETE FROM ONLY parent WHERE id = 1; UPDATE son SET id = 1
     WHERE id = 3 AND false; UPDATE number_a SET v = 'x' WHERE id = 2`,
    'TRUNCATE number_a RESTART IDENTITY CASCADE',
    `INSERT INTO number_a (v) VALUES ('again'); INSERT INTO number_b (a_id) VALUES (1)`,
    'TRUNCATE parent',
  );
  assert.equal(await fleet.sql('b', 'SELECT * FROM scratch'), []);
  assert.equal(await fleet.sql('b', 'SELECT up FROM number_a'), [{ up: 'AGAIN' }]);
});

test('verify finds all of it equal', async () => {
  const { code, json } = await fleet.cli('verify');
  assert.is(code, 0, JSON.stringify(json));
});

test('a partition that is detached stops the leader', async () => {
  await fleet.sql('a', 'ALTER TABLE tree DETACH PARTITION "Tree.New"');
  assert.is(await fleet.agent('a').exitCode(), 4, fleet.logs());
  assert.match(fleet.agent('a').log, /SCHEMA_CHANGED.*Tree\.New/);
});

test.run();
