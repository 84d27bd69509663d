/**
 * Whether a new node that calls itself exact is: through random logs, cleanings of each replica at
 * any moment, pauses, kills, torn batches and failovers. What happens when a rule is left out is in
 * bootstrap-rules.test.ts.
 */
// time-limit: 300s
import { test } from 'uvu';
import { bootstrapping } from './bootstrap-properties.ts';
import { rightRules } from './bootstrap-world.ts';
import { holds } from './random-runs.ts';

test('a node that calls itself exact is, and what may become exact does', async () => {
  await holds(bootstrapping(rightRules), 3_000);
});

test.run();
