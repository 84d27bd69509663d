/**
 * Names that outlive names: ids are given once, shapes leave out what each node computes, and the
 * difference to a table is one line.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  assignColumnIds,
  assignRelationId,
  compareWithTable,
  shapeOf,
} from '../../src/catalog/relation-ids.ts';
import type { TableColumn, TableShape } from '../../src/catalog/table.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { column } from '../support/node-facts.ts';

function table(columns: readonly TableColumn[], identityAttnums: number[] | null): TableShape {
  return {
    oid: 16384,
    schema: 'public',
    name: 'orders',
    kind: 'ordinary',
    persistence: 'permanent',
    isPartition: false,
    parentOid: null,
    columns,
    uniqueIndexes: [],
    replicaIdentity: 'default',
    identityAttnums,
  };
}

const orders = table(
  [
    column(1, 'region', { notNull: true }),
    column(3, 'id', { notNull: true, type: 'bigint' }),
    column(4, 'total', { generated: 'stored' }),
    column(5, 'note'),
  ],
  [3, 1],
);
const ids = new Map([
  [1, 'region'],
  [3, 'id#2'],
  [4, 'total'],
  [5, 'note'],
]);
const shape = shapeOf(orders, { relation: 'public.orders', columns: ids });

test('a name that was used before gets a number', () => {
  const used = new Set<string>();
  assert.is(assignRelationId('public.orders', used), 'public.orders');
  assert.is(assignRelationId('public.orders', used), 'public.orders#2');
  assert.is(assignRelationId('public.orders', used), 'public.orders#3');
  assert.is(assignRelationId('public.orders#2', used), 'public.orders#2#2');
});

test('no id is assigned twice', () => {
  const names = fc.array(fc.constantFrom('a', 'a#2', 'a#2#2', 'b', 'a#3'), { maxLength: 30 });
  fc.assert(
    fc.property(names, (given) => {
      const used = new Set(['a']);
      const all = given.map((name) => assignRelationId(name, used));
      assert.is(new Set(all).size, all.length);
      assert.not(all.includes('a'));
    }),
  );
});

test('column ids are assigned by attnum', () => {
  const given = assignColumnIds([{ attnum: 7, name: 'price' }], new Set(['price']));
  assert.equal([...given], [[7, 'price#2']]);
});

test('a shape has the columns in order without generated ones, the identity in index order', () => {
  assert.equal(
    shape.columns.map(({ id, name, nullable }) => ({ id, name, nullable })),
    [
      { id: 'region', name: 'region', nullable: false },
      { id: 'id#2', name: 'id', nullable: false },
      { id: 'note', name: 'note', nullable: true },
    ],
  );
  assert.equal(shape.identity, ['id#2', 'region']);
});

test('a table without identity has a shape only where it is appended to', () => {
  const keyless = { ...orders, identityAttnums: null };
  const given = { relation: 'public.orders', columns: ids };
  assert.throws(
    () => shapeOf(keyless, given),
    (error: unknown) => error instanceof UnderstudyError && error.code === 'TABLE_UNSUPPORTED',
  );
  const appended = shapeOf(keyless, given, 'append');
  assert.equal(appended.identity, []);
  assert.is(compareWithTable(appended, keyless), null);
  assert.match(compareWithTable(appended, orders) ?? '', /its identity is \(id, region\)/);
});

test('a table in another column order with other generated columns fits', () => {
  const other = [
    column(2, 'note'),
    column(7, 'id', { type: 'bigint' }),
    column(9, 'region'),
    column(10, 'extra', { generated: 'virtual' }),
  ];
  assert.is(compareWithTable(shape, orders), null);
  assert.is(compareWithTable(shape, table(other, [9, 7])), null);
});

test('each difference is named', () => {
  const other = table([column(1, 'region'), column(3, 'id'), column(6, 'new')], [3]);
  assert.is(
    compareWithTable(shape, other),
    'public.orders: column id is text instead of bigint; column note is missing; ' +
      'column new is not in the stream; its identity is (id) instead of (id, region)',
  );
  const without = compareWithTable(shape, { ...orders, identityAttnums: null });
  assert.is(without, 'public.orders: its identity is none instead of (id, region)');
});

test.run();
