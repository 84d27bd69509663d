/**
 * The steps of a long command: each is shown as it begins, and while it lasts how long it has.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withSteps } from '../../src/commands/long-steps.ts';

test('a step that lasts is shown with its time, and nothing after the end', async () => {
  const people: string[] = [];
  const progress: string[] = [];
  let nowMs = 0;
  const shown = {
    now: () => nowMs,
    people: (line: string) => void people.push(line),
    progress: (line: string) => void progress.push(line),
  };
  const lasts = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  const result = await withSteps(shown, async (onStep) => {
    onStep('creating the slot');
    nowMs = 12_000;
    while (progress.length === 0) await lasts(50);
    onStep('preparing node b');
    return 7;
  });
  assert.is(result, 7);
  assert.equal(people, ['creating the slot', 'preparing node b']);
  assert.equal(progress, ['creating the slot, for 12 s']);
  const failed = withSteps(shown, () => Promise.reject(new Error('refused')));
  assert.is(await failed.catch((error: Error) => error.message), 'refused');
  await lasts(1_500);
  assert.is(progress.length, 1);
});

test.run();
