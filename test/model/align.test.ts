/**
 * Whether a follower's rows are at every moment those of its position: through any order of
 * arrival, torn batches, half epoch begins, exact stops inside of batches, restarts, lost and
 * doubled records, and compaction. What happens when a rule is left out is in align-rules.test.ts.
 */
// time-limit: 300s
import { test } from 'uvu';
import { compacted, following, stopping } from './align-properties.ts';
import { rightRules } from './align-world.ts';
import { holds } from './random-runs.ts';

test('the rows are those of the position after every apply, and every stop is exact', async () => {
  await holds(following(rightRules), 3_000);
});

test('a record too few is a gap, one too many is damage, and neither is applied', async () => {
  await holds(stopping(rightRules), 2_000);
});

test('a follower that comes after compaction stops, or is right', async () => {
  await holds(compacted(rightRules), 2_000);
});

test.run();
