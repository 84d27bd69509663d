/**
 * The progress of a backfill as text: the current table, its rate, and the time left if known.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { backfillingText, backfillText } from '../../src/fleet/status/progress-text.ts';

const nowMs = 1_000_000;
const begun = { relation: 'public.t', after: ['9'], rows: 9_000, since: nowMs - 9_000 };
const unread = { relation: 'public.u', after: null, rows: 0, estimate: null, since: null };

test('the current table, its rate and the time left', () => {
  assert.is(backfillText([], nowMs), null);
  assert.is(
    backfillText([{ ...begun, estimate: 100_000 }, unread], nowMs),
    'backfilling public.t: 9,000 of about 100,000 rows, 1,000 a ' +
      'second, 91 s left; tables not yet read: 1',
  );
});

test('no time is given without an estimate, or with one that is too low', () => {
  for (const estimate of [null, 8_000]) {
    assert.is(
      backfillText([{ ...begun, estimate }], nowMs),
      'backfilling public.t: 9,000 rows, 1,000 a second',
    );
  }
  assert.is(backfillText([unread], nowMs), 'backfilling public.u: 0 rows');
});

test('the tables of a follower that are backfilling', () => {
  assert.is(backfillingText([]), null);
  assert.is(backfillingText(['public.t']), 'public.t is backfilling');
  assert.match(
    backfillingText(['public.t', 'a.b', 'c.d']) ?? '',
    /^public.t and 2 more tables are backfilling$/,
  );
});

test.run();
