/**
 * A relation message against the catalog: the differences that Postgres does not report, each with
 * the harm that it would do.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TableColumn, TableShape } from '../../src/catalog/table.ts';
import type { RelationMessage } from '../../src/leader/stream/pgoutput-decoder.ts';
import { messageDifference } from '../../src/leader/tables/table-difference.ts';
import { column, table } from '../support/node-facts.ts';

type SentColumn = RelationMessage['columns'][number];

/** With a key of two columns, the other way round, and a generated column in between. */
const orders: TableShape = table({
  columns: [
    column(1, 'id', { typeOid: 20 }),
    column(2, 'total', { typeOid: 1700, generated: 'stored' }),
    column(4, 'note', { typeOid: 1043, typeModifier: 14 }),
    column(5, 'region', { typeOid: 25 }),
  ],
  identityAttnums: [5, 1],
});

function sent(
  { attnum, name, typeOid, typeModifier }: TableColumn,
  change: Partial<SentColumn> = {},
): SentColumn {
  const partOfKey = orders.identityAttnums?.includes(attnum) === true;
  return { name, typeOid, typeModifier, partOfKey, ...change };
}

function messageOf(change: Partial<SentColumn> & { of?: string }, identity = 'd'): RelationMessage {
  const { of, ...rest } = change;
  const columns = orders.columns
    .filter(({ generated }) => generated === 'no')
    .map((one) => sent(one, of === undefined || one.name === of ? rest : {}));
  const names = { schema: 'public', name: 'orders' };
  return { kind: 'relation', oid: 20_000, ...names, replicaIdentity: identity, columns };
}

test('a message that describes the table as it is has no difference', () => {
  assert.is(messageDifference(messageOf({}), orders), null);
  assert.is(messageDifference(messageOf({}, 'i'), orders), null);
});

for (const [what, change] of [
  ['another name', { of: 'note', name: 'remark' }],
  ['another type', { of: 'note', typeOid: 25 }],
  ['a longer type, whose values a follower would cut off', { of: 'note', typeModifier: 24 }],
] as const) {
  test(`${what} is another table`, () => {
    assert.is(messageDifference(messageOf(change), orders), 'its columns were changed');
  });
}

test('one column more or less is another table', () => {
  const { columns, ...rest } = messageOf({});
  const fewer = { ...rest, columns: columns.slice(1) };
  assert.is(messageDifference(fewer, orders), 'its columns were changed');
  const more = { ...rest, columns: [...columns, ...columns.slice(0, 1)] };
  assert.is(messageDifference(more, orders), 'its columns were changed');
});

test('another identity, more of it, less of it, or none, is a difference', () => {
  for (const change of [
    ...[{ of: 'note', partOfKey: true }, { of: 'id', partOfKey: false }, { partOfKey: false }],
  ]) {
    assert.match(messageDifference(messageOf(change), orders) ?? '', /had another identity/);
  }
});

test('with FULL every column is marked, and the old row has the key', () => {
  assert.is(messageDifference(messageOf({ partOfKey: true }, 'f'), orders), null);
});

test('a table without identity has no column marked', () => {
  const keyless = { ...orders, identityAttnums: null };
  assert.is(messageDifference(messageOf({ partOfKey: false }), keyless), null);
  assert.match(messageDifference(messageOf({}), keyless) ?? '', /had another identity/);
});

test.run();
