/**
 * What `verify` answers: the JSON as documented, lines that a person can read and that no value can
 * break, values only where they were asked for, and how far it is.
 */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { jsonLine } from '../../src/commands/answer.ts';
import { ProgressLine } from '../../src/commands/progress-line.ts';
import { verificationOutcome, verifyCommand } from '../../src/commands/verify.ts';
import { progressText, shownText } from '../../src/commands/verify-text.ts';
import type { Verification } from '../../src/fleet/operations/verify.ts';
import type { TableComparison, TableDifferences } from '../../src/verify/compare.ts';
import { Progress, type ProgressState } from '../../src/verify/progress.ts';
import { at } from '../support/builders.ts';

function table(name: string, changes: Partial<TableComparison> = {}): TableComparison {
  const equal = { rows: 3n, leaderRows: 3n, difference: null, rowDifferences: null };
  return { relationId: name, table: name, ...equal, ...changes };
}

function differing(changes: Partial<TableDifferences> = {}): Partial<TableComparison> {
  const rowDifferences: TableDifferences = {
    ...{ rows: 2n, exact: true, kinds: { missing: 1, extra: 0, different: 1 } },
    keys: [
      {
        kind: 'different',
        identity: ['x', '7'],
        key: { tenant: 'x', id: '7' },
        leader: { tenant: 'x', id: '7', note: 'secret', same: 's' },
        follower: { tenant: 'x', id: '7', note: null, same: 's' },
      },
      {
        kind: 'missing',
        identity: ['', '10'],
        key: { tenant: '', id: '10' },
        leader: { id: '10' },
        follower: null,
      },
    ],
    ...changes,
  };
  return { difference: 'rows', rowDifferences };
}

function verified(...tables: readonly TableComparison[]): Verification {
  const equal = tables.every(({ difference }) => difference === null);
  return {
    lsn: at(3, 255),
    leader: 'a',
    equal,
    nodes: [{ name: 'b', equal, tables }],
    leftOut: [],
    notCompared: [],
  };
}

const plainly = { showRows: false, all: false };
const withRows = { showRows: true, all: false };
const text = suite('verify text');

text('the answer is as documented, and a difference has its own exit code', () => {
  const same = verificationOutcome(verified(table('public.t')), plainly);
  assert.is(same.exit, 0);
  assert.is(
    jsonLine(same.answer ?? {}),
    '{"lsn":"3:0/FF","equal":true,"nodes":[{"name":"b","equal":true,' +
      '"tables":[{"table":"public.t","rows":3,"equal":true}]}]}\n',
  );
  const { answer, exit } = verificationOutcome(verified(table('public.t', differing())), plainly);
  assert.is(exit, 8);
  assert.is(
    jsonLine(answer ?? {}),
    '{"lsn":"3:0/FF","equal":false,"nodes":[{"name":"b","equal":false,"tables":[' +
      '{"table":"public.t","rows":3,"leaderRows":3,"equal":false,"difference":"rows",' +
      '"differing":{"rows":2,"exact":true,"missing":1,"extra":0,"different":1},"keys":[' +
      '{"kind":"different","key":{"tenant":"x","id":"7"}},' +
      '{"kind":"missing","key":{"tenant":"","id":"10"}}]}]}]}\n',
  );
});

text('people see tables, keys and what to do next', () => {
  const { lines } = verificationOutcome(
    verified(table('public.one'), table('public.two', differing())),
    plainly,
  );
  assert.equal(lines, [
    'node b: 1 of 2 tables differs',
    'TABLE       ROWS  ON a  DIFFERENCE',
    'public.two     3     3  2 rows: 1 missing, 1 different',
    '1 equal table, 3 rows (--all lists them)',
    '',
    'rows of public.two that differ',
    '           tenant  id',
    'different  x       7',
    'missing    ""      10',
    '',
    'DIFFERENT at 3:0/FF: b',
    'HINT: See both rows: understudy verify b --show-rows. Repair them: understudy verify b ' +
      '--repair. Do not promote b; see "Rows differ" in docs/operations/runbooks.md.',
  ]);
  assert.equal(verificationOutcome(verified(table('public.t')), plainly).lines.slice(-1), [
    'equal at 3:0/FF: every row is that of node a',
  ]);
  const none = verificationOutcome(
    { lsn: at(1, 0), leader: 'a', equal: true, nodes: [], leftOut: [], notCompared: [] },
    plainly,
  );
  assert.equal([none.exit, none.lines], [0, ['there is no follower to compare']]);
});

text('equal tables are counted, and listed last on request', () => {
  const tables = [table('public.a'), table('public.b', differing()), table('public.c')];
  const { lines } = verificationOutcome(verified(...tables), { showRows: false, all: true });
  assert.equal(
    lines.slice(2, 5).map((line) => line.split(' ')[0]),
    ['public.b', 'public.a', 'public.c'],
  );
  assert.not.match(lines.join(), '--all');
  const same = verificationOutcome(verified(table('public.a'), table('public.c')), plainly);
  assert.equal(same.lines, [
    'node b: equal',
    '2 equal tables, 6 rows (--all lists them)',
    '',
    'equal at 3:0/FF: every row is that of node a',
  ]);
});

text('tables that were not compared are named', () => {
  const notCompared = Array.from({ length: 12 }, (_, at) => `public.t${at}`);
  const verification = { ...verified(table('public.a')), notCompared };
  const { answer, lines } = verificationOutcome(verification, plainly);
  const named = lines.filter((line) => line.startsWith('not compared'));
  assert.match(named.join(), /stream: public\.t0, .*public\.t9 and 2 more \(--all lists them\)$/);
  assert.is(lines.at(-1), 'equal at 3:0/FF: every row that was compared is that of node a');
  assert.match(jsonLine(answer ?? {}), '"notCompared":["public.t0",');
  const all = verificationOutcome(verification, { showRows: false, all: true });
  assert.match(all.lines.join(), 'public.t11');
});

text('a repair tells how many rows were published, and is not advised again', () => {
  const done = verificationOutcome(verified(table('public.t')), plainly, 1_234);
  assert.match(jsonLine(done.answer ?? {}), '"equal":true,"repaired":1234,');
  assert.ok(done.lines.includes('node a published 1,234 rows again'));
  const rest = verificationOutcome(verified(table('public.t', differing())), withRows, 2);
  assert.match(rest.lines.at(-1) ?? '', /^HINT: Do not promote b;/);
});

text('values are in the answer only when rows are to be shown', () => {
  const verification = verified(table('public.t', differing()));
  const hidden = verificationOutcome(verification, plainly);
  assert.not.match(jsonLine(hidden.answer ?? {}) + hidden.lines.join('\n'), 'secret');
  const { answer, lines } = verificationOutcome(verification, withRows);
  assert.match(jsonLine(answer ?? {}), '"note":"secret"');
  const from = lines.indexOf('different: tenant = x, id = 7');
  assert.equal(lines.slice(from, from + 6), [
    'different: tenant = x, id = 7',
    '  COLUMN  ON a    ON b',
    '  note    secret  NULL',
    'missing: tenant = "", id = 10',
    '  COLUMN  ON a',
    '  id      10',
  ]);
  assert.match(
    lines.at(-1) ?? '',
    /^HINT: Repair them: understudy verify b --repair. Do not promote b;/,
  );
});

text('each kind of difference has its words', () => {
  const words = (changes: Partial<TableComparison>): string => {
    const { lines } = verificationOutcome(verified(table('t', changes)), plainly);
    return lines[2]?.replace(/^t +\S+ +\S+ +/, '') ?? '';
  };
  const kinds = { missing: 0, extra: 0, different: 1 };
  assert.is(words({ difference: 'missing', rows: null }), 'node b does not have the table');
  assert.is(words({ difference: 'extra', leaderRows: null }), 'only node b has the table');
  assert.is(words({ difference: 'columns' }), 'other columns, or another identity');
  assert.is(words({ difference: 'rows' }), 'other rows');
  assert.is(words(differing({ rows: 1n, kinds })), '1 row different');
  assert.is(words(differing({ rows: 2_905n, exact: false })), 'at least 2,905 rows');
  const { lines } = verificationOutcome(verified(table('t', differing({ rows: 7n }))), plainly);
  assert.ok(
    lines.includes('rows of t that differ, 2 of 7 (--keys N shows more)'),
    lines.join('\n'),
  );
});

text('what could be mistaken or would move the cursor is written as JSON', () => {
  for (const plain of ['a', '10', '-3.5', 'Ünïted Kingdom', 'a"b', '{1,2}', '🦆', 'a-b']) {
    assert.is(shownText(plain), plain);
  }
  const odd: readonly (readonly [string, string])[] = [
    ['', '""'],
    [' a', '" a"'],
    ['a  b', '"a  b"'],
    ['NULL', '"NULL"'],
    ['-', '"-"'],
    ['"a"', '"\\"a\\""'],
    ['a\nb', '"a\\nb"'],
    ['\u001b[2J', '"\\u001b[2J"'],
    ['a\u202eb', '"a\\u202eb"'],
    ['a\u00a0b', '"a\u00a0b"'],
  ];
  for (const [value, shown] of odd) assert.is(shownText(value), shown);
  const property = fc.property(fc.string({ unit: 'binary' }), (value) => {
    const shown = shownText(value);
    assert.not.match(shown, /[\p{C}\p{Zl}\p{Zp}]/u);
    if (shown !== value) assert.is(JSON.parse(shown), value);
  });
  fc.assert(property);
});

text('--keys is a number within reason', () => {
  const read = (keys: string) => verifyCommand.read(['b', 'b'], { keys });
  assert.equal(read('7'), { nodes: ['b'], keysMax: 7, showRows: false, repair: false, all: false });
  for (const keys of ['-1', '1.5', 'x', '10001', '99999999999']) {
    assert.throws(() => read(keys), /is not a number from 0 to 10000/);
  }
});

text('progress counts pages on every node, and is that of the slowest', () => {
  const states: ProgressState[] = [];
  let nowMs = 0;
  const progress = new Progress(
    'comparing',
    (state) => states.push(state),
    () => nowMs,
  );
  const a = progress.node('a', [{ pages: 30 }, { pages: 0 }, { pages: 9 }]);
  const b = progress.node('b', [{ pages: 20 }]);
  nowMs = 6_000;
  a.onRead({ rows: 1_234n, pages: 30 });
  a.onTable();
  b.onRead({ rows: 7n, pages: 5 });
  const last = states.at(-1);
  assert.is(last?.done, 0.25);
  assert.is(
    last && progressText(last),
    'comparing: 25 %, about 18 s left (a 1/3 tables, 1,234 rows; b 7 rows)',
  );
  assert.is(states[0] && progressText(states[0]).startsWith('comparing: 0 % (a 0/3'), true);
});

text('a log gets a line every few seconds, a terminal one that changes in place', () => {
  const show = (columns: number | null): readonly string[] => {
    let nowMs = 0;
    const written: string[] = [];
    const write = (part: string) => written.push(part);
    const line = new ProgressLine({ write, columns: () => columns, nowMs: () => nowMs });
    for (nowMs = 0; nowMs <= 12_000; nowMs += 1_000) line.show(`after ${nowMs} ms`);
    line.clear();
    line.clear();
    return written;
  };
  assert.equal(show(null), ['after 5000 ms\n', 'after 10000 ms\n']);
  const onTerminal = show(11);
  assert.is(onTerminal.length, 13);
  assert.is(onTerminal[0], 'after 1000\u001b[K\r', 'no wider than the terminal');
  assert.is(onTerminal.at(-1), '\u001b[K', 'nothing is left of it');
});

text.run();
