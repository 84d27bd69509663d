/**
 * The pure parts of `verify`: what counts as equal, how a table is read piece by piece, and what is
 * answered.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { bytesText } from '../../src/change/byte-size.ts';
import { jsonLine } from '../../src/commands/answer.ts';
import { isoMicros } from '../../src/commands/points.ts';
import { durationText } from '../../src/commands/status.ts';
import { verificationOutcome } from '../../src/commands/verify.ts';
import { compareNode } from '../../src/verify/compare.ts';
import { digestQuery, pageRanges, type TableDigest } from '../../src/verify/table-digest.ts';
import { at } from '../support/builders.ts';

function digest(table: string, changes: Partial<TableDigest> = {}): TableDigest {
  return {
    relationId: table,
    table,
    columnIds: ['id', 'v'],
    rows: 3n,
    sums: [5n, -7n],
    ...changes,
  };
}

const compare = suite('verify');

compare('rows, both sums and the columns must be the same', () => {
  const leader = [digest('public.t')];
  assert.is(compareNode('b', leader, [digest('public.t')]).equal, true);
  const differences: readonly Partial<TableDigest>[] = [
    { rows: 4n },
    { sums: [6n, -7n] },
    { sums: [5n, 7n] },
    { columnIds: ['id'] },
    { columnIds: ['id', 'w'] },
  ];
  for (const changes of differences) {
    assert.is(compareNode('b', leader, [digest('public.t', changes)]).equal, false);
  }
});

compare('tables are matched by relation id, and one that is missing is a difference', () => {
  const renamed = digest('public.t', { relationId: 'r1', table: 'public.renamed' });
  const leader = [digest('public.t', { relationId: 'r1' }), digest('public.gone')];
  const { equal, tables } = compareNode('b', leader, [renamed, digest('public.more')]);
  assert.is(equal, false);
  assert.equal(tables, [
    { table: 'public.gone', rows: null, leaderRows: 3n, equal: false },
    { table: 'public.more', rows: 3n, leaderRows: null, equal: false },
    { table: 'public.t', rows: 3n, leaderRows: 3n, equal: true },
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

compare('names are quoted, and nothing but the table itself is read', () => {
  const columns = [{ id: 'x', name: 'a"b' }];
  const table = { relationId: 'r', oid: 1, schema: 's', name: 'T"', columns, pages: 0 };
  const sql = digestQuery(table, { from: 8, to: 16 });
  assert.match(sql, 'ROW(t."a""b")');
  assert.match(sql, 'FROM ONLY "s"."T""" AS t');
  assert.match(sql, `t.ctid >= '(8,0)'::tid AND t.ctid < '(16,0)'::tid`);
  assert.not.match(digestQuery(table, { from: 0, to: null }), 'WHERE');
});

compare('the answer is as documented, and a difference has its own exit code', () => {
  const node = compareNode('b', [digest('public.t')], [digest('public.t', { rows: 2n })]);
  const { answer, lines, exit } = verificationOutcome({
    lsn: at(3, 255),
    equal: false,
    nodes: [node],
  });
  assert.is(exit, 8);
  assert.is(
    jsonLine(answer ?? {}),
    '{"lsn":"3:0/FF","equal":false,"nodes":[{"name":"b","equal":false,' +
      '"tables":[{"table":"public.t","rows":2,"equal":false}]}]}\n',
  );
  assert.ok(lines.includes('node b at 3:0/FF: DIFFERENT'));
  assert.is(verificationOutcome({ lsn: at(1, 0), equal: true, nodes: [] }).exit, 0);
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
