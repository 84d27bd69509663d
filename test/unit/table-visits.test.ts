/**
 * In which order the write guard visits tables: a busy one delays no other, each is visited again
 * until it is done, and a visit that waits is alone in its transaction.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TableVisits } from '../../src/follower/guard/table-visits.ts';

/** Goes on until all are done, or `rounds` are over; gives what was visited, one line a visit. */
function walk(
  tables: readonly string[],
  busyFor: Record<string, number>,
  rounds: number,
): string[] {
  const visits = new TableVisits(tables);
  const left = { ...busyFor };
  const seen: string[] = [];
  for (;;) {
    const next = visits.next();
    if (next.kind === 'done') return [...seen, 'done'];
    if (next.kind === 'round over') {
      seen.push(`again: ${next.busy.join(' ')}`);
      if (visits.round + 1 === rounds) return seen;
      visits.nextRound();
      continue;
    }
    const visited = next.kind === 'waiting' ? [next.table] : next.tables;
    seen.push(`${next.kind}: ${visited.join(' ')}`);
    const busy = visited.filter((table) => (left[table] ?? 0) > 0);
    for (const table of busy) left[table] = (left[table] ?? 0) - 1;
    visits.visited(visited, busy);
  }
}

test('without tables there is nothing to do', () => {
  assert.equal(walk([], {}, 1), ['done']);
});

test('free tables are done in one transaction', () => {
  assert.equal(walk(['a', 'b', 'c'], {}, 1), ['together: a b c', 'done']);
});

test('a busy table delays no other, and is visited again until it is done', () => {
  assert.equal(walk(['a', 'b', 'c', 'd'], { a: 3, c: 1 }, 9), [
    'together: a b c d',
    'again: a c',
    'waiting: a',
    'waiting: c',
    'again: a',
    'waiting: a',
    'again: a',
    'waiting: a',
    'done',
  ]);
});

test('every table is visited once before a busy one is visited again', () => {
  const many = Array.from({ length: 120 }, (_, at) => `t${at}`);
  const busyFor = { t0: 1, t60: 2, t119: 1 };
  const [first, second, third, again, ...rest] = walk(many, busyFor, 9);
  assert.equal(
    [first, second, third].map((line) => line?.split(' ').length),
    [51, 51, 21],
  );
  assert.is(again, 'again: t0 t60 t119');
  assert.equal(rest, [
    ...['waiting: t0', 'waiting: t60', 'waiting: t119', 'again: t60', 'waiting: t60', 'done'],
  ]);
});

test('what is left when the caller gives up is what was not done', () => {
  const visits = new TableVisits(['a', 'b', 'c']);
  visits.visited(['a', 'b', 'c'], ['a', 'c']);
  assert.equal(visits.left, ['a', 'c']);
  visits.nextRound();
  assert.equal(visits.next(), { kind: 'waiting', table: 'a' });
  visits.visited(['a'], ['a']);
  assert.equal(visits.left, ['c', 'a']);
  visits.visited(['c'], []);
  assert.equal(visits.next(), { kind: 'round over', busy: ['a'] });
});

test.run();
