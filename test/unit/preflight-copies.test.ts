/**
 * What a preflight makes of a follower's tables beside the leader's, without servers: each cause is
 * one finding with the SQL that mends it.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TableShape } from '../../src/catalog/table.ts';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import { judgeFollowerTables } from '../../src/fleet/preflight/judge-copies.ts';
import { column, node, only, table } from '../support/node-facts.ts';

const copies: readonly [string, Partial<TableShape>, string, RegExp][] = [
  ['another type', { columns: [column(1, 'id')] }, 'SCHEMA_DIFFERS', /id is text instead of bigi/],
  ['no identity', { identityAttnums: null }, 'SCHEMA_DIFFERS', /its identity is none/],
  ['no crash safety', { persistence: 'unlogged' }, 'SCHEMA_DIFFERS', /a crash there empties it/],
  ['partitions', { kind: 'partitioned' }, 'SCHEMA_DIFFERS', /is partitioned on node b/],
  [
    'a NOT NULL of its own',
    {
      columns: [
        column(1, 'id', { type: 'bigint', notNull: true }),
        column(2, 'body', { notNull: true }),
      ],
    },
    'NOT_NULL_DIFFERS',
    /NOT NULL on node b only: body/,
  ],
];

for (const [name, change, code, message] of copies) {
  test(`a follower's table with ${name} is named once`, () => {
    const leader = node({ tables: [table()] });
    const follower = node({ name: 'b', tables: [table(change)] });
    const finding = only(judgeFollowerTables(leader, follower));
    assert.is(finding.code, code);
    assert.match(finding.message, message);
    assert.is(finding.object, 'node b: public.orders');
  });
}

test('an identity that takes other values for equal is named', () => {
  const indexed = (...equality: readonly string[]): TableShape => {
    const primary = { name: 'k', attnums: [2, 1], primary: true, immediate: true, valid: true };
    const index = { ...primary, partial: false, chosen: false, equality };
    return table({ uniqueIndexes: [index], identityAttnums: [2, 1] });
  };
  const leader = node({ tables: [indexed('text_ops', 'integer_ops')] });
  const judged = (copy: TableShape): Finding[] =>
    judgeFollowerTables(leader, node({ name: 'b', tables: [copy] }));
  assert.equal(judged(indexed('text_ops', 'integer_ops')), []);
  const finding = only(judged(indexed('text_ops COLLATE und-u-ks-level2', 'integer_ops')));
  assert.is(finding.code, 'SCHEMA_DIFFERS');
  assert.match(
    finding.message,
    /body \(text_ops COLLATE und-u-ks-level2\), id \(integer_ops\) on n/,
  );
});

test('a generated column that is computed otherwise is warned of', () => {
  const generated = (tableOid: number, expression: string) => {
    return { generated: [{ tableOid, column: 'total', expression }] };
  };
  const leader = node({ tables: [table()], database: generated(20_000, 'n * 2') });
  const judged = (expression: string): Finding[] => {
    const copy = table({ oid: 30_000 });
    const database = generated(30_000, expression);
    return judgeFollowerTables(leader, node({ name: 'b', tables: [copy], database }));
  };
  assert.equal(judged('n * 2'), []);
  const finding = only(judged('n * 3'));
  assert.is(finding.code, 'GENERATED_DIFFERS');
  assert.match(finding.message, /by n \* 3 on node b and by n \* 2 on the leader/);
  const lacking = only(judgeFollowerTables(leader, node({ name: 'b', tables: [table()] })));
  assert.match(lacking.message, /by nothing on node b/);
});

test('two tables of one display name are not taken for each other', () => {
  const dotted = [
    table({ schema: 'a', name: 'b.c' }),
    table({ oid: 2, schema: 'a.b', name: 'c', columns: [column(1, 'id', { notNull: true })] }),
  ];
  const follower = node({ name: 'b', tables: [...dotted].reverse() });
  assert.equal(judgeFollowerTables(node({ tables: dotted }), follower), []);
});

test('equal tables are equal whatever the order of their columns', () => {
  const turned = table({
    columns: [column(1, 'body'), column(2, 'id', { type: 'bigint', notNull: true })],
    identityAttnums: [2],
  });
  const leader = node({ tables: [table()] });
  assert.equal(judgeFollowerTables(leader, node({ name: 'b', tables: [turned] })), []);
});

test('triggers and rules that fire on replicated rows are warned of on their tables only', () => {
  const leader = node({ tables: [table()] });
  for (const kind of ['trigger', 'rule'] as const) {
    const firingTriggers = [
      { kind, table: 'public.orders', trigger: 'stamp' },
      { kind, table: 'public.other', trigger: 'stamp' },
    ];
    const follower = node({ name: 'b', tables: [table()], database: { firingTriggers } });
    const finding = only(judgeFollowerTables(leader, follower));
    assert.is(finding.code, 'TRIGGER_HELD');
    assert.match(finding.message, new RegExp(`the ${kind} stamp on public.orders would fire`));
    assert.match(
      finding.hint,
      new RegExp(`ALTER TABLE "public"."orders" ENABLE ${kind.toUpperCase()} "stamp";`),
    );
  }
});

test.run();
