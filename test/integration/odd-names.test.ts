/**
 * Names that are easily broken or confused: with dots, quotes, backslashes, line ends and
 * wildcards, of 63 bytes, of schemas and tables whose names joined by a dot are alike, and names
 * that are equal as names of Avro. Each table keeps its own rows. Tests run in order, on one fleet.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ExactReader } from '../support/exact-rows.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';

const longSchema = `"${'ß'.repeat(31)}x"`;
const hostile = `"S\\ch'e""m$1"."t\\n\n\t''%s$$;--/*"`;

/** By the table; its key, and another column. */
const oddTables: readonly (readonly [string, string, string])[] = [
  // Both are called a.b.c where names are shown, and a third is called what ids make of that.
  ['"a.b".c', 'id', '"x y"'],
  ['a."b.c"', 'id', 'x_x20_y'],
  ['public."a.b.c#2"', 'id', 'v'],
  // One name in Avro.
  ['public."a b"', '"x y"', 'x_x20_y'],
  ['public.a_x20_b', 'x_x20_y', '"x y"'],
  ['public."Orders"', 'id', '"Id"'],
  ['public.orders', '"Id"', 'id'],
  ['public."Orders#2"', 'id', '"id#2"'],
  [hostile, `"c\\""'\n"`, '"\\"'],
  [`${longSchema}."${'é'.repeat(31)}y"`, `"${'ж'.repeat(31)}z"`, `"${'\u{1F600}'.repeat(15)}abc"`],
  ['public."*"', '"*"', '"$1"'],
  ['public."."', '"."', '".."'],
  ['public." "', '" "', '"  "'],
  ['public."%I"', '"null"', '"select"'],
];

const tables = `
  CREATE SCHEMA "a.b"; CREATE SCHEMA a; CREATE SCHEMA "S\\ch'e""m$1"; CREATE SCHEMA ${longSchema};
  ${oddTables
    .map(
      ([table, key, column]) => `CREATE TABLE ${table} (${key} int PRIMARY KEY, ${column} text);`,
    )
    .join('\n')}`;

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

/** Runs a statement for each table and compares all; gives the rows of each. */
async function arrives(
  statement: (table: string, key: string, column: string, at: number) => string,
): Promise<string[][]> {
  const statements = oddTables.map(([table, key, column], at) => statement(table, key, column, at));
  await fleet.sql('a', `BEGIN; ${statements.join('; ')}; COMMIT`);
  await fleet.caughtUp();
  const found: string[][] = [];
  for (const [table] of oddTables) {
    const text = `SELECT t::text FROM ${table} AS t ORDER BY t::text COLLATE "C"`;
    found.push((await reader.assertSame(text, table)).rows.map(([row]) => row ?? ''));
  }
  return found;
}

test('rows of every table arrive in it, are updated, moved and deleted', async () => {
  const inserted = await arrives((table, _key, _column, at) => {
    return `INSERT INTO ${table} VALUES (1, 'one of ${at}'), (2, 'two of ${at}'), (3, NULL)`;
  });
  for (const [at, rows] of inserted.entries()) assert.is(rows[0], `(1,"one of ${at}")`);
  await arrives((table, key, column, at) => {
    return `UPDATE ${table} SET ${column} = ${column} || '!' WHERE ${key} = ${1 + (at % 3)}`;
  });
  await arrives((table, key) => `UPDATE ${table} SET ${key} = ${key} + 10 WHERE ${key} > 1`);
  const left = await arrives((table, key, _column, at) => {
    return at % 2 === 0 ? `DELETE FROM ${table} WHERE ${key} = 12` : `TRUNCATE ${table}`;
  });
  assert.equal(
    left.map(({ length }) => length),
    oddTables.map((_, at) => (at % 2 === 0 ? 2 : 0)),
  );
});

test('verify compares each of them, and check finds nothing wrong', async () => {
  const { code, json } = await fleet.cli('verify');
  assert.is(code, 0, JSON.stringify(json));
  assert.is(json.nodes[0].tables.length, oddTables.length);
  assert.is((await fleet.cli('check')).code, 0);
});

test.run();
