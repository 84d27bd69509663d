/**
 * The wait of the tests: it gives the value that was waited for, and every way in which it can fail
 * names what was waited for and what was seen last.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../support/until.ts';

const pollMs = 1;

async function failure(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'the wait succeeded',
    (error: Error) => error.message,
  );
}

test('a wait gives the first value that is the wanted one', async () => {
  let n = 0;
  const reached = (value: number): boolean => value >= 3;
  assert.is(await until('3', () => ++n, { reached, pollMs }), 3);
  assert.is(await until('true', () => n === 3), true);
});

test('without a predicate only true ends a wait', async () => {
  const values: unknown[] = [1, 'yes', null, true];
  assert.is(await until('true', () => values.shift(), { pollMs }), true);
  assert.equal(values, []);
});

test('a wait that times out names the last value and the evidence', async () => {
  const options = { timeoutMs: 20, pollMs, evidence: () => 'log of a' };
  const message = await failure(until('5 rows on b', async () => ({ rows: 4 }), options));
  assert.is(
    message,
    '5 rows on b: not within 0.02 s; the last value seen is { rows: 4 }\nlog of a',
  );
});

test('a probe that does not answer ends the wait too', async () => {
  const hangs = (): Promise<boolean> => new Promise(() => undefined);
  assert.match(await failure(until('an answer', hangs, { timeoutMs: 20 })), /the probe hangs/);
});

test('what cannot come any more is not waited for, and is checked once more', async () => {
  let ended = false;
  const hopeless = (): string | null => (ended ? 'the agent has ended' : null);
  const waits = until('rows', () => false, { pollMs, hopeless });
  ended = true;
  assert.match(await failure(waits), 'rows: the agent has ended; the last value seen is false');
  assert.is(await until('rows', () => true, { hopeless }), true);
});

test('an error of the probe is the error of the wait', async () => {
  const broken = async (): Promise<boolean> => {
    throw new Error('no such table');
  };
  assert.is(await failure(until('rows', broken)), 'no such table');
});

test.run();
