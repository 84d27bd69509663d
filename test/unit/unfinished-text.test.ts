/**
 * What people read of rows from before the stream: the table under way, its rate, and what is left,
 * as far as it is known.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { lacksText, unfinishedText } from '../../src/fleet/status/unfinished-text.ts';

const nowMs = 1_000_000;
const begun = { relation: 'public.t', after: ['9'], rows: 9_000, since: nowMs - 9_000 };
const unread = { relation: 'public.u', after: null, rows: 0, estimate: null, since: null };

test('the table under way, its rate and what is left', () => {
  assert.is(unfinishedText([], nowMs), null);
  assert.is(
    unfinishedText([{ ...begun, estimate: 100_000 }, unread], nowMs),
    'rows from before the stream are being read: public.t, 9,000 of about 100,000 rows, 1,000 a ' +
      'second, 91 s left; tables to come: 1',
  );
});

test('nothing is guessed without an estimate, or with one that is too low', () => {
  for (const estimate of [null, 8_000]) {
    assert.is(
      unfinishedText([{ ...begun, estimate }], nowMs),
      'rows from before the stream are being read: public.t, 9,000 rows, 1,000 a second',
    );
  }
  assert.is(
    unfinishedText([unread], nowMs),
    'rows from before the stream are being read: public.u, 0 rows',
  );
});

test('what a follower lacks', () => {
  assert.is(lacksText([]), null);
  assert.is(lacksText(['public.t']), 'it lacks rows from before the stream, of public.t');
  assert.match(lacksText(['public.t', 'a.b', 'c.d']) ?? '', /of public.t and 2 more tables$/);
});

test.run();
