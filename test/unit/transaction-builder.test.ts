/**
 * From messages to changes: each gets its position, every row is whole, and a key change is a
 * tombstone and a row. What cannot be made whole stops the stream instead of losing a value.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { RowChange } from '../../src/change/change.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import type {
  PgoutputMessage,
  RelationMessage,
  Tuple,
} from '../../src/leader/stream/pgoutput-decoder.ts';
import type { BuiltEvent } from '../../src/leader/stream/stages.ts';
import { TransactionBuilder } from '../../src/leader/stream/transaction-builder.ts';
import { lsn, place, shapeOf } from '../support/builders.ts';

const orders = shapeOf('public.orders', 'id text', 'note text', 'body text');
const lines = shapeOf('public.lines', 'id text');
const oids = { orders: 7, lines: 8 } as const;

function relationMessage(name: 'orders' | 'lines'): RelationMessage {
  const head = { kind: 'relation', oid: oids[name], schema: 'public', name } as const;
  return { ...head, replicaIdentity: 'd', columns: [] };
}

const begin: PgoutputMessage = { kind: 'begin', commitLsn: lsn(100), commitTimeMicros: 5n, xid: 7 };
const commit: PgoutputMessage = { kind: 'commit', commitLsn: lsn(100), commitEndLsn: lsn(120) };

/** A builder that is inside of a transaction and knows both tables. */
function opened(): (...messages: readonly PgoutputMessage[]) => BuiltEvent[] {
  const builder = new TransactionBuilder('stream', 3, {
    shapeOf: ({ name }) => (name === 'orders' ? orders : lines),
  });
  for (const message of [begin, relationMessage('orders'), relationMessage('lines')]) {
    builder.build(message);
  }
  return (...messages) => messages.flatMap((message) => builder.build(message));
}

function insert(...values: Tuple): PgoutputMessage {
  return { kind: 'insert', oid: 7, values };
}

function update(kind: 'K' | 'O' | null, old: Tuple, values: Tuple): PgoutputMessage {
  return { kind: 'update', oid: 7, old: kind === null ? null : { kind, values: old }, values };
}

/** The rows alone, with their ordinals. */
function rowsOf(events: readonly BuiltEvent[]): (Omit<RowChange, 'kind' | 'relation'> & {
  ordinal: number;
})[] {
  return events.flatMap((event) => {
    if (event.kind !== 'change' || event.change.kind !== 'row') return [];
    const { kind: _kind, relation: _relation, ...row } = event.change;
    return [{ ...row, ordinal: event.position.ordinal }];
  });
}

function refused(code: string, message: RegExp, run: () => unknown): void {
  assert.throws(run, (error: unknown) => {
    assert.instance(error, UnderstudyError);
    assert.is((error as UnderstudyError).code, code);
    assert.match((error as UnderstudyError).message, message);
    return true;
  });
}

test('a relation record comes once, before its first row, and takes an ordinal', () => {
  const build = opened();
  const events = build(
    insert('1', null, ''),
    insert('2', 'n', 'b'),
    commit,
    begin,
    insert('3', '', ''),
  );
  const seen = events.map((event) => {
    if (event.kind !== 'change') return event.kind;
    return `${event.change.kind} ${event.position.ordinal}`;
  });
  const expected = ['relation 0', 'row 1', 'row 2', 'commit', 'begin', 'row 0'];
  assert.equal(seen, expected);
  const positions = events.flatMap((event) => (event.kind === 'change' ? [event.position] : []));
  assert.equal(positions[0], place(3, 100, 0));
});

test('begin and commit are passed on with their LSNs', () => {
  const build = opened();
  assert.equal(build(commit), [{ kind: 'commit', commitEndLsn: 120n }]);
  assert.equal(build(begin), [{ kind: 'begin', commitLsn: 100n, commitTimeMicros: 5n, xid: 7 }]);
});

test('rows without an identity are known by their positions, and cannot be changed', () => {
  const log = { ...lines, identity: [] };
  const builder = new TransactionBuilder('stream', 3, { shapeOf: () => log });
  const build = (...messages: readonly PgoutputMessage[]): BuiltEvent[] =>
    messages.flatMap((message) => builder.build(message));
  const row: PgoutputMessage = { kind: 'insert', oid: 8, values: ['a'] };
  const rows = rowsOf(build(begin, relationMessage('lines'), row, row));
  assert.equal(
    rows.map(({ op, identity, values }) => ({ op, identity, values })),
    [
      { op: 'c', identity: ['3:0/64:1'], values: ['a'] },
      { op: 'c', identity: ['3:0/64:2'], values: ['a'] },
    ],
  );
  const old = { kind: 'O', values: ['a'] } as const;
  refused('TABLE_UNSUPPORTED', /public\.lines was updated: the table has no identity/, () =>
    build({ kind: 'update', oid: 8, old, values: ['b'] }),
  );
  refused('TABLE_UNSUPPORTED', /public\.lines was deleted/, () =>
    build({ kind: 'delete', oid: 8, old }),
  );
});

test('an update without an old row keeps its key', () => {
  const rows = rowsOf(opened()(update(null, [], ['1', null, 'b'])));
  const row = {
    op: 'u',
    identity: ['1'],
    values: ['1', null, 'b'],
    unchanged: [],
    was: null,
    ordinal: 1,
  };
  assert.equal(rows, [row]);
});

test('a key change is a tombstone of the old key and the row under the new one', () => {
  const deleted = { op: 'd', identity: ['1'], values: null, unchanged: [], was: null, ordinal: 1 };
  const moved = {
    op: 'u',
    identity: ['2'],
    values: ['2', 'n', 'b'],
    unchanged: [],
    was: ['1'],
    ordinal: 2,
  };
  for (const [kind, old] of [
    ['K', ['1', null, null]],
    ['O', ['1', 'before', 'b']],
  ] as const) {
    assert.equal(rowsOf(opened()(update(kind, old, ['2', 'n', 'b']))), [deleted, moved]);
  }
});

test('an old key with equal texts is no key change', () => {
  const rows = rowsOf(opened()(update('K', ['1', null, null], ['1', 'n', 'b'])));
  const row = {
    op: 'u',
    identity: ['1'],
    values: ['1', 'n', 'b'],
    unchanged: [],
    was: null,
    ordinal: 1,
  };
  assert.equal(rows, [row]);
});

test('a large key that was not sent is taken from the old key', () => {
  const rows = rowsOf(opened()(update('K', ['1', null, null], [undefined, 'n', 'b'])));
  const row = {
    op: 'u',
    identity: ['1'],
    values: ['1', 'n', 'b'],
    unchanged: [],
    was: null,
    ordinal: 1,
  };
  assert.equal(rows, [row]);
});

test('a large value that was not sent is taken from the old row, or named', () => {
  const values = ['1', undefined, 'b'];
  const [whole] = rowsOf(opened()(update('O', ['1', 'before', 'x'], values)));
  assert.equal([whole?.values, whole?.unchanged], [['1', 'before', 'b'], []]);
  // In an old key the other columns are NULL because they were not sent.
  for (const kind of ['K', null] as const) {
    const [partial] = rowsOf(opened()(update(kind, ['1', null, null], values)));
    assert.equal([partial?.values, partial?.unchanged], [['1', null, 'b'], ['note']]);
  }
});

test('a delete gives the old identity and no values', () => {
  const build = opened();
  for (const kind of ['K', 'O'] as const) {
    const old = { kind, values: ['1', null, null] };
    const [row] = rowsOf(build({ kind: 'delete', oid: 7, old }));
    assert.equal([row?.op, row?.identity, row?.values], ['d', ['1'], null]);
  }
});

test('the tables of one truncate follow each other, after their relation records', () => {
  const events = opened()({ kind: 'truncate', oids: [7, 8] });
  const seen = events.map((event) =>
    event.kind === 'change'
      ? [event.change.kind, event.change.relation.id, event.position.ordinal]
      : [],
  );
  const expected = [
    ['relation', 'public.orders', 0],
    ['relation', 'public.lines', 1],
    ['truncate', 'public.orders', 2],
    ['truncate', 'public.lines', 3],
  ];
  assert.equal(seen, expected);
});

test('a label is a transactional message of our stream, and takes no ordinal', () => {
  const build = opened();
  const ours = { kind: 'message', transactional: true, prefix: 'understudy.point' } as const;
  assert.equal(build({ ...ours, content: 'stream noon' }), [{ kind: 'label', label: 'noon' }]);
  assert.equal(build({ ...ours, transactional: false, content: 'stream x' }), []);
  assert.equal(build({ ...ours, prefix: 'understudy.points', content: 'stream x' }), []);
  for (const forged of ['noon', 'other noon', 'streamnoon', 'stream No label', 'stream ']) {
    assert.equal(build({ ...ours, content: forged }), [], forged);
  }
  assert.is(rowsOf(build(insert('1', null, null)))[0]?.ordinal, 1);
});

test('what does not fit the description of the table is refused', () => {
  refused('MESSAGE_UNKNOWN', /2 values for the 3 columns/, () => opened()(insert('1', null)));
  refused('MESSAGE_UNKNOWN', /without its identity/, () => opened()(insert(null, 'n', 'b')));
  refused('MESSAGE_UNKNOWN', /relation 9 without describing/, () =>
    opened()({ kind: 'insert', oid: 9, values: [] }),
  );
});

test('a row outside of a transaction is refused', () => {
  refused('MESSAGE_UNKNOWN', /outside of a transaction/, () =>
    opened()(commit, insert('1', null, null)),
  );
});

test.run();
