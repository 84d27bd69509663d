/**
 * What a new node promises, as properties over random logs, cleanings and pauses. Flows in: the
 * rules it follows; flows out: one property for leaders that live, one for logs that end.
 */
import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { type BootstrapRules, BootstrapWorld, type Choice } from './bootstrap-world.ts';

const anyChoices: fc.Arbitrary<readonly Choice[]> = fc.array(
  fc.tuple(fc.nat({ max: 1_000 }), fc.nat({ max: 1_000_000 })),
  { maxLength: 160, size: 'max' },
);
const anyWorld = fc.tuple(
  fc.integer({ min: 1, max: 3 }),
  fc.record({ lagMs: fc.nat({ max: 12 }), retentionMs: fc.integer({ min: 8, max: 100 }) }),
  anyChoices,
  fc.boolean(),
);

/** A node that calls itself exact is; one that the log allows to be exact becomes so. */
export function bootstrapping(rules: BootstrapRules): fc.IProperty<unknown> {
  return fc.property(anyWorld, ([partitions, times, choices, leaderLives]) => {
    const world = new BootstrapWorld(rules, partitions, times);
    for (const choice of choices) world.step(choice);
    const allowed = world.finish(leaderLives);
    if (allowed) assert.ok(world.exact, 'the log allows it and the node never becomes exact');
  });
}
