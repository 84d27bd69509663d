/**
 * The statements of the applier, as texts: every name quoted, every value a parameter, and ONLY at
 * each table, so that a table's children are left alone.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { KeyOperators } from '../../src/catalog/column-access.ts';
import {
  type ApplyTarget,
  deleteAllSql,
  deleteSql,
  insertSql,
  truncateSql,
  upsertSql,
} from '../../src/follower/apply/row-writer.ts';

function operatorsOf(schema: string): KeyOperators {
  const [equal, less, greater] = ['=', '<', '>'].map((name) => `OPERATOR(${schema}.${name})`);
  return { equal: `${equal}`, less: `${less}`, greater: `${greater}`, collation: null };
}

const plain: ApplyTarget = {
  relationId: 'public.orders',
  schema: 'public',
  name: 'orders',
  partitioned: false,
  owner: null,
  columns: [
    { id: 'id', name: 'id', type: 'bigint', input: 'cast' },
    { id: 'note', name: 'note', type: 'text', input: 'cast' },
  ],
  identity: [0],
  keys: [operatorsOf('pg_catalog')],
  replaceOnly: false,
  oneSpelling: true,
};

/** The identity is not in the order of the columns. */
const odd: ApplyTarget = {
  relationId: 'odd',
  schema: 'Ünïcode',
  name: 'a"b',
  partitioned: true,
  owner: null,
  columns: [
    { id: 'c1', name: 'select', type: 'numeric(10,2)', input: 'cast' },
    { id: 'c2', name: '; --', type: 'public."my type"', input: 'cast' },
    { id: 'c3', name: 'k0', type: 'timestamp(3) with time zone', input: 'cast' },
  ],
  identity: [2, 0],
  keys: [
    { ...operatorsOf('"my ops"'), equal: 'OPERATOR("my ops".===)', collation: '"pg_catalog"."C"' },
    operatorsOf('pg_catalog'),
  ],
  replaceOnly: false,
  oneSpelling: false,
};

test('rows are upserted by their key', () => {
  assert.is(
    upsertSql(plain),
    'INSERT INTO "public"."orders" ("id", "note") OVERRIDING SYSTEM VALUE ' +
      'SELECT v.v0::bigint, v.v1::text FROM ROWS FROM (' +
      'pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])' +
      ') AS v(v0, v1) ON CONFLICT ("id") DO UPDATE SET "note" = EXCLUDED."note"',
  );
});

test('rows are deleted by their key', () => {
  assert.is(
    deleteSql(plain),
    'DELETE FROM ONLY "public"."orders" AS t USING ' +
      'ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[])) AS k(k0) ' +
      'WHERE t."id" OPERATOR(pg_catalog.=) k.k0::bigint',
  );
});

test('odd names are quoted, and the key is matched in the order of the identity', () => {
  assert.is(
    upsertSql(odd),
    'INSERT INTO "Ünïcode"."a""b" ("select", "; --", "k0") OVERRIDING SYSTEM VALUE ' +
      'SELECT v.v0::numeric(10,2), v.v1::public."my type", v.v2::timestamp(3) with time zone ' +
      'FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), ' +
      'pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])' +
      ') AS v(v0, v1, v2) ON CONFLICT ("k0", "select") ' +
      'DO UPDATE SET "; --" = EXCLUDED."; --"',
  );
  assert.is(
    deleteSql(odd),
    'DELETE FROM ONLY "Ünïcode"."a""b" AS t USING ROWS FROM (' +
      'pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])' +
      ') AS k(k0, k1) WHERE t."k0" OPERATOR("my ops".===) ' +
      '(k.k0::timestamp(3) with time zone COLLATE "pg_catalog"."C") ' +
      'AND t."select" OPERATOR(pg_catalog.=) k.k1::numeric(10,2)',
  );
});

test('a table of nothing but its key has nothing to update', () => {
  const keys = { ...plain, columns: plain.columns.slice(0, 1) };
  assert.match(upsertSql(keys), / ON CONFLICT \("id"\) DO NOTHING$/);
});

test('an insert is an upsert without its conflict', () => {
  assert.is(upsertSql(plain).startsWith(`${insertSql(plain)} ON CONFLICT`), true);
  assert.not.match(insertSql(plain), /CONFLICT/);
});

test('tables are emptied together; only a partitioned one is named without ONLY', () => {
  assert.is(truncateSql([plain, odd]), 'TRUNCATE ONLY "public"."orders", "Ünïcode"."a""b"');
  assert.is(deleteAllSql(plain), 'DELETE FROM ONLY "public"."orders"');
  assert.is(deleteAllSql(odd), 'DELETE FROM "Ünïcode"."a""b"');
});

test('a value that a function would cast goes through its type’s input', () => {
  const cast = { id: 'c', name: 'c', type: 'xml', input: 'array element' } as const;
  assert.match(
    insertSql({ ...plain, columns: [...plain.columns.slice(0, 1), cast] }),
    / SELECT v\.v0::bigint, v\.v1::xml FROM .*unnest\(\$1::pg_catalog\.text\[\]\), .*\$2::xml\[\]/,
  );
});

test('an identity outside of the columns is an error', () => {
  assert.throws(() => deleteSql({ ...plain, identity: [2] }), /public\.orders has no column 2/);
});

test.run();
