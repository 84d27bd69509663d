/**
 * When a walsender that sends nothing is asked, and when it counts as dead: by the number of
 * statuses that it left unanswered, never by the time that this process slept.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { WalsenderSilence } from '../../src/leader/stream/walsender-silence.ts';

function untilDead(silence: WalsenderSilence): number {
  for (let statuses = 1; statuses < 1_000; statuses += 1) {
    if (silence.next() === 'dead') return statuses;
  }
  return Number.POSITIVE_INFINITY;
}

test('a reply is requested where nothing came since the last status', () => {
  const silence = new WalsenderSilence(60_000);
  assert.is(silence.statusEveryMs, 20_000);
  assert.equal([silence.next(), silence.next()], ['status', 'request']);
  silence.heard();
  assert.equal([silence.next(), silence.next()], ['status', 'request']);
});

test('it is dead after the timeout of the server, and not before', () => {
  assert.is(untilDead(new WalsenderSilence(60_000)), 5, 'one that was heard, three, and the last');
  assert.is(untilDead(new WalsenderSilence(0)), 5, 'as with the default of Postgres');
});

test('a short timeout of the server does not make a busy server a dead one', () => {
  const silence = new WalsenderSilence(1_500);
  assert.is(silence.statusEveryMs, 500);
  assert.ok(untilDead(silence) * silence.statusEveryMs >= 30_000);
});

test('one byte starts the count again', () => {
  const silence = new WalsenderSilence(60_000);
  for (let round = 0; round < 20; round += 1) {
    assert.not.equal(silence.next(), 'dead');
    if (round % 3 === 2) silence.heard();
  }
});

test.run();
