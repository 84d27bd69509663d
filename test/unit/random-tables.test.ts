/**
 * The random tables and histories truly differ: whatever a property over them is to find, they hold
 * often enough, and a history of the same choices is the same SQL.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { anyTables, anyTransactions, createSql, transactionSql } from '../support/random-tables.ts';
import { matrixTypes } from '../support/type-values.ts';

const types = matrixTypes.map((type) => ({ ...type, values: type.values.map(({ text }) => text) }));
const matrix = { types, extensions: [], missing: [] };
const options = { seed: 1, numRuns: 40 };
const tables = fc.sample(anyTables(matrix, 8), options).flat();

/** Of one group a table has one at most. */
const traits: readonly [string, RegExp, string][] = [
  ['a composite key', /(PRIMARY KEY|_key ON table_\d+) \(part,c0,c1/, 'key'],
  ['an index for its identity', /REPLICA IDENTITY USING INDEX/, 'identity'],
  ['whole old rows', /REPLICA IDENTITY FULL/, 'identity'],
  ['a nullable unique column', /place int, UNIQUE \(part, place\)(?! DEF)/, 'unique'],
  ['nulls that are equal', /UNIQUE NULLS NOT DISTINCT/, 'unique'],
  ['a deferrable unique column', /UNIQUE \(part, place\) DEFERRABLE/, 'unique'],
  ['a key under a nondeterministic collation', /c\d text COLLATE public.folded NOT NULL/, 'key'],
  ['large values', /SET STORAGE EXTERNAL/, 'values'],
  ['partitions', /PARTITION BY RANGE/, 'shape'],
  ['generated columns', /GENERATED ALWAYS AS \(place/, 'generated'],
  // Not in a partitioned table before version 17.
  ['numbered rows', /AS IDENTITY/, 'shape'],
];

test('tables have every kind of key, of uniqueness and of identity, in combination', () => {
  const texts = tables.map(createSql);
  for (const [what, trait, group] of traits) {
    const those = texts.filter((text) => trait.test(text));
    assert.ok(those.length > 10, what);
    for (const [other, second, otherGroup] of traits) {
      if (group === otherGroup) continue;
      assert.ok(
        those.some((text) => second.test(text)),
        `${what} and ${other}`,
      );
    }
  }
  assert.ok(new Set(tables.flatMap(({ columns }) => columns.map(({ type }) => type))).size > 90);
});

test('histories hold every statement, savepoints that are gone back to, and rollbacks', () => {
  const transactions = fc
    .sample(anyTransactions, options)
    .flat()
    .map((transaction) => transactionSql(transaction, tables.slice(0, 8)));
  for (const part of [
    ...[/SET part = /, /SET c0 = /, /place = -1 - place/, /\(place \+ 1\) % 9/, /WITH gone AS/],
    ...[/TRUNCATE/, /SET body = repeat/, /SET body = NULL/, /\nROLLBACK$/m, /\nCOMMIT$/m],
    ...[/SAVEPOINT s;\nDO .*;\nROLLBACK TO s/s, /, NULL/],
  ]) {
    assert.ok(
      transactions.some((text) => part.test(text)),
      String(part),
    );
  }
});

test.run();
