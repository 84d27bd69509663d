/**
 * Who does what a command asks of a node: its agent, or the command in its place; also where an
 * agent starts or ends between the question and the answer.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { nodeLocked } from '../../src/errors/ownership.ts';
import { byAgentOrHere } from '../../src/fleet/operations/stand-in.ts';

type Step = 'asked' | 'ended' | 'here' | 'locked' | 'failed';

/** What each look at the lock, each question and each stand-in meets, in turn. */
async function course(served: boolean[], answers: Step[], stands: Step[]): Promise<Step[]> {
  const steps: Step[] = [];
  const next = (list: Step[]): Step => {
    const step = list.shift() ?? 'failed';
    steps.push(step);
    return step;
  };
  await byAgentOrHere({
    isServed: async () => served.shift() ?? false,
    ask: async () => (next(answers) === 'ended' ? null : 'answer'),
    here: async () => {
      const step = next(stands);
      if (step === 'locked') throw nodeLocked('b', 'another agent');
      if (step === 'failed') throw new Error('it failed');
      return 'answer';
    },
  }).catch((error: Error) => steps.push(error.message as Step));
  return steps;
}

test('an agent is asked, and without one the work is done here', async () => {
  assert.equal(await course([true], ['asked'], []), ['asked']);
  assert.equal(await course([false], [], ['here']), ['here']);
});

test('an agent that took the lock first gets the request', async () => {
  assert.equal(await course([false, true], ['asked'], ['locked']), ['locked', 'asked']);
  assert.equal(await course([false, false], [], ['locked', 'here']), ['locked', 'here']);
});

test('an agent that ended is replaced, also where another one starts then', async () => {
  assert.equal(await course([true], ['ended'], ['here']), ['ended', 'here']);
  assert.equal(await course([true, true], ['ended', 'asked'], ['locked']), [
    ...['ended', 'locked', 'asked'],
  ]);
});

test('another failure is the command’s, and agents that come and go are not followed', async () => {
  assert.equal(await course([false], [], ['failed']), ['failed', 'it failed']);
  const steps = await course([], [], ['locked', 'locked', 'locked']);
  assert.equal(steps.slice(0, 3), ['locked', 'locked', 'locked']);
  assert.match(steps[3] ?? '', /another agent serves|node b/);
});

test.run();
