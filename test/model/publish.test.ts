/**
 * Whether the log holds the WAL, each transaction once and whole, and Postgres keeps what the log
 * does not hold yet: through lost answers, torn batches and begins, crashes of leader and server at
 * every step. What happens when a rule is left out is in publish-rules.test.ts.
 */
// time-limit: 300s
import { test } from 'uvu';
import { publishing } from './publish-histories.ts';
import { rightRules } from './publish-world.ts';
import { holds } from './random-runs.ts';

test('each transaction once, in order, and nothing confirmed before it is in the log', async () => {
  await holds(publishing(rightRules), 600);
});

test.run();
