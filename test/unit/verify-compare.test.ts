/**
 * The pure parts of `verify`: what counts as equal, and how a table is read piece by piece.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { bytesText } from '../../src/change/amounts.ts';
import { isoMicros } from '../../src/commands/points.ts';
import { durationText } from '../../src/commands/status.ts';
import { bucketQuery } from '../../src/verify/bucket-digest.ts';
import { compareNode } from '../../src/verify/compare.ts';
import { rowsQuery } from '../../src/verify/different-rows.ts';
import {
  digestQuery,
  hashOf,
  pageRanges,
  type TableDigest,
} from '../../src/verify/table-digest.ts';

function digest(table: string, changes: Partial<TableDigest> = {}): TableDigest {
  return {
    relationId: table,
    table,
    columnIds: ['id', 'v'],
    identity: ['id'],
    rows: 3n,
    sums: [5n, -7n],
    ...changes,
  };
}

const compare = suite('verify');

compare('rows, both sums, the columns and the identity must be the same', () => {
  const leader = [digest('public.t')];
  assert.is(compareNode('b', leader, [digest('public.t')]).equal, true);
  const differences: readonly (readonly [string, Partial<TableDigest>])[] = [
    ['rows', { rows: 4n }],
    ['rows', { sums: [6n, -7n] }],
    ['rows', { sums: [5n, 7n] }],
    ['columns', { columnIds: ['id'] }],
    ['columns', { columnIds: ['id', 'w'] }],
    ['columns', { identity: ['v'] }],
  ];
  for (const [difference, changes] of differences) {
    const node = compareNode('b', leader, [digest('public.t', changes)]);
    assert.is(node.equal, false);
    assert.is(node.tables[0]?.difference, difference);
  }
});

compare('tables are matched by relation id, and one that is missing is a difference', () => {
  const renamed = digest('public.t', { relationId: 'r1', table: 'public.renamed' });
  const leader = [digest('public.t', { relationId: 'r1' }), digest('public.dropped')];
  const { equal, tables } = compareNode('b', leader, [renamed, digest('public.more')]);
  assert.is(equal, false);
  const compared = tables.map(({ table, rows, leaderRows, difference }) => {
    return [table, rows, leaderRows, difference];
  });
  assert.equal(compared, [
    ['public.dropped', null, 3n, 'missing'],
    ['public.more', 3n, null, 'extra'],
    ['public.t', 3n, 3n, null],
  ]);
  assert.is(compareNode('b', [], []).equal, true);
});

compare('page ranges hold every page once', () => {
  for (const pages of [0, 1, 8191, 8192, 8193, 16384, 100_000]) {
    const ranges = pageRanges(pages);
    assert.is(ranges[0]?.from, 0);
    assert.is(ranges.at(-1)?.to, null, 'rows behind the last known page are read too');
    ranges.slice(1).forEach((range, i) => {
      assert.is(range.from, ranges[i]?.to);
    });
    assert.is(ranges.length, Math.max(1, Math.ceil(pages / 8192)));
  }
});

const odd = {
  ...{ relationId: 'r', oid: 1, schema: 's', name: 'T"', pages: 0, identity: ['y', 'x'] },
  columns: [
    { id: 'x', name: '"b' },
    { id: 'y', name: '%L' },
  ],
};

compare('names are quoted, and nothing but the table itself is read', () => {
  const sql = digestQuery(odd, { from: 8, to: 16 });
  assert.match(sql, `format('%L,%L', t."""b", t."%L")`);
  assert.match(sql, 'FROM ONLY "s"."T""" AS t');
  assert.match(sql, `t.ctid >= '(8,0)'::tid AND t.ctid < '(16,0)'::tid`);
  assert.not.match(digestQuery(odd, { from: 0, to: null }), 'WHERE');
});

compare('a bucket goes by the identity, in the order of its index', () => {
  const sql = bucketQuery(odd, { from: 0, to: null }, { digits: 5, within: ['abc', 'def'] });
  assert.match(sql, `format('%L,%L', t."%L", t."""b")`);
  assert.match(sql, 'SELECT left(key, 5) AS digits');
  assert.match(sql, 'WHERE left(key, 3) = ANY($1::text[])');
});

compare('values are read only where rows are to be shown', () => {
  const keys = rowsQuery(odd, false);
  assert.match(keys, `SELECT t.ctid::text, format('%s', t."%L"), format('%s', t."""b")\n`);
  const rows = rowsQuery(odd, true);
  assert.match(rows, `CASE num_nulls(t."""b") WHEN 0`);
});

compare('as many columns as a table can have are hashed', () => {
  const names = Array.from({ length: 1_600 }, (_, at) => `c${at}`);
  const calls = [...hashOf(names).matchAll(/format\('([^']*)', ([^)]*)\)/g)];
  const hashed = calls.flatMap(([, format = '', columns = '']) => {
    const [some, places] = [columns.split(', '), format.split(',')];
    assert.is(some.length, places.length);
    assert.ok(some.length <= 99, 'a function takes 100 arguments');
    return some;
  });
  assert.equal(
    hashed,
    names.map((name) => `t."${name}"`),
  );
});

compare('times keep their microseconds, sizes and durations are short', () => {
  assert.is(isoMicros(1_763_700_000_000_007n), '2025-11-21T04:40:00.000007Z');
  assert.is(isoMicros(1_763_700_000_123_456n), '2025-11-21T04:40:00.123456Z');
  assert.equal([0, 1023, 1024, 15_000, 1024 ** 3 * 2.5].map(bytesText), [
    '0 B',
    '1023 B',
    '1.0 kB',
    '15 kB',
    '2.5 GB',
  ]);
  assert.equal([5, 1_234, 67_217, 600_000, 86_400_000].map(durationText), [
    '5 ms',
    '1.2 s',
    '67 s',
    '10 min',
    '24 h',
  ]);
});

compare.run();
