/**
 * What keeps a table from being replicated, and the glob that chooses tables. That the SQL of the
 * hints works is shown on a real server in test/integration/catalog.test.ts.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { compilePattern } from '../../src/catalog/read-catalog.ts';
import {
  identityIndexOf,
  isAppendOnly,
  problemsOf,
  type TableShape,
  type UniqueIndex,
} from '../../src/catalog/table.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

const primary: UniqueIndex = {
  name: 'orders_pkey',
  attnums: [1],
  primary: true,
  immediate: true,
  valid: true,
  partial: false,
  chosen: false,
  equality: ['integer_ops'],
};
const column = {
  attnum: 1,
  name: 'id',
  type: 'bigint',
  typeOid: 20,
  typeModifier: -1,
  notNull: true,
} as const;

function table(changes: Partial<TableShape>): TableShape {
  const shape: TableShape = {
    oid: 16384,
    schema: 'public',
    name: 'orders',
    kind: 'ordinary',
    persistence: 'permanent',
    isPartition: false,
    parentOid: null,
    columns: [{ ...column, generated: 'no', identity: 'no' }],
    uniqueIndexes: [primary],
    replicaIdentity: 'default',
    identityAttnums: null,
    ...changes,
  };
  const index = identityIndexOf(shape.replicaIdentity, shape.uniqueIndexes);
  return { ...shape, identityAttnums: index?.attnums ?? null };
}

function codes(changes: Partial<TableShape>): string[] {
  return problemsOf(table(changes)).map((problem) => problem.code);
}

test('the identity is the primary key, with FULL too, or the chosen index', () => {
  const chosen = { ...primary, name: 'other', attnums: [3, 2], primary: false, chosen: true };
  assert.is(identityIndexOf('default', [chosen, primary])?.name, 'orders_pkey');
  assert.is(identityIndexOf('full', [chosen, primary])?.name, 'orders_pkey');
  assert.equal(identityIndexOf('index', [primary, chosen])?.attnums, [3, 2]);
  assert.is(identityIndexOf('nothing', [primary]), null);
  assert.is(identityIndexOf('default', [{ ...primary, immediate: false }]), null);
  assert.is(identityIndexOf('index', [primary]), null);
});

test('each problem has its code', () => {
  assert.equal(codes({}), []);
  assert.equal(codes({ uniqueIndexes: [] }), ['NO_IDENTITY']);
  assert.equal(codes({ uniqueIndexes: [], persistence: 'unlogged' }), []);
  assert.equal(codes({ uniqueIndexes: [], replicaIdentity: 'full' }), ['FULL_WITHOUT_PRIMARY_KEY']);
  assert.equal(codes({ replicaIdentity: 'nothing' }), ['IDENTITY_NOTHING']);
  assert.equal(codes({ uniqueIndexes: [{ ...primary, immediate: false }] }), [
    'DEFERRABLE_IDENTITY',
  ]);
  const generated = [{ ...column, generated: 'stored', identity: 'no' }] as const;
  assert.equal(codes({ columns: generated }), ['GENERATED_IDENTITY']);
});

test('a table without identity may be appended to, if it has anything to append', () => {
  const keyless = table({ uniqueIndexes: [] });
  assert.equal(problemsOf(keyless, 'append'), []);
  assert.is(problemsOf(keyless, 'refuse').length, 1);
  const empty = table({ uniqueIndexes: [], columns: [] });
  assert.is(problemsOf(empty, 'append').length, 1);
  const generated = [{ ...column, generated: 'stored', identity: 'no' }] as const;
  assert.is(problemsOf(table({ columns: generated }), 'append').length, 1);
  assert.not(isAppendOnly(table({}), 'append'));
});

test('hints are SQL with quoted names', () => {
  const [problem] = problemsOf(table({ schema: 'My "shop"', uniqueIndexes: [] }));
  assert.is(problem?.hint, 'ALTER TABLE "My ""shop"""."orders" ADD PRIMARY KEY ("id");');
});

function matched(pattern: string, schema: string, name: string): boolean {
  return compilePattern(pattern)({ schema, name });
}

test('globs', () => {
  assert.ok(matched('public.*', 'public', 'orders'));
  assert.not(matched('public.*', 'publication', 'orders'));
  assert.not(matched('public.order', 'public', 'orders'));
  assert.ok(matched('*.ord*s', 'x', 'orders'));
  assert.ok(matched('a.b.c', 'a', 'b.c'));
  assert.ok(matched('a.b[1]', 'a', 'b[1]'));
  assert.not(matched('a.b+', 'a', 'bb'));
  assert.ok(matched('a.*', 'a', 'two\nlines 😀'));
  for (const pattern of ['orders', '.orders', 'public.']) {
    assert.throws(
      () => compilePattern(pattern),
      (error: unknown) => error instanceof UnderstudyError && error.code === 'CONFIG_INVALID',
    );
  }
});

test.run();
