/**
 * The SQL by which rows are walked in the order of their keys: one range of the identity's index,
 * as that index compares. That servers understand it is tried in test/integration/backfill.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { KeyOperators } from '../../src/catalog/column-access.ts';
import type { KeyedTable } from '../../src/catalog/key-lookup.ts';
import { rowsInOrderSql } from '../../src/catalog/key-order.ts';

function operatorsOf(schema: string, suffix = ''): KeyOperators {
  const [equal = '', less = '', greater = ''] = ['=', '<', '>'].map((name) => {
    return `OPERATOR(${schema}.${name}${suffix})`;
  });
  return { equal, less, greater, collation: null };
}

const one: KeyedTable = {
  relationId: 'public.t',
  schema: 'public',
  name: 't',
  columns: [
    { id: 'n', name: 'n', type: 'integer', input: 'cast' },
    { id: 'id', name: 'i"d', type: 'bigint', input: 'cast' },
  ],
  identity: [1],
  keys: [operatorsOf('pg_catalog')],
};

const less = 'USING OPERATOR(pg_catalog.<)';

test('from the first row', () => {
  assert.is(
    rowsInOrderSql(one, false, 7),
    `SELECT t."n", t."i""d" FROM ONLY "public"."t" AS t ORDER BY t."i""d" ${less} LIMIT 7`,
  );
});

test('past a key', () => {
  assert.match(
    rowsInOrderSql(one, true, 7),
    ' WHERE t."i""d" OPERATOR(pg_catalog.>) $1::pg_catalog.text::bigint ORDER BY ',
  );
});

test('past a key of several columns, in one comparison, as the index collates', () => {
  const collation = '"pg_catalog"."C"';
  const keys = [operatorsOf('pg_catalog'), { ...operatorsOf('pg_catalog'), collation }];
  const columns = [
    { id: 'id', name: 'id', type: 'bigint', input: 'cast' },
    { id: 'k', name: 'k', type: 'public.special', input: 'array element' },
  ] as const;
  const sql = rowsInOrderSql({ ...one, columns, identity: [0, 1], keys }, true, 7);
  assert.match(
    sql,
    ` WHERE ROW(t."id", t."k" COLLATE ${collation}) OPERATOR(pg_catalog.>) ` +
      'ROW($1::pg_catalog.text::bigint, $2::public.special) ',
  );
  assert.match(sql, `ORDER BY t."id" ${less}, t."k" COLLATE ${collation} ${less} LIMIT 7`);
});

test('past a key whose columns have operators of several kinds, one after the other', () => {
  const keys = [operatorsOf('pg_catalog'), operatorsOf('public', '~')];
  const sql = rowsInOrderSql({ ...one, identity: [1, 0], keys }, true, 7);
  const [id, n] = ['$1::pg_catalog.text::bigint', '$2::pg_catalog.text::integer'];
  assert.match(
    sql,
    ` WHERE ((t."i""d" OPERATOR(pg_catalog.>) ${id}) OR ` +
      `(t."i""d" OPERATOR(pg_catalog.=) ${id} AND t."n" OPERATOR(public.>~) ${n})) `,
  );
});

test.run();
