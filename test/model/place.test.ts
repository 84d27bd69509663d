/**
 * Whether a new node that is built at a chosen place has the rows of that place: through random
 * logs, cleanings of each replica while it reads, torn batches and failovers; and, with each rule
 * left out, that some history shows the harm.
 */
// time-limit: 300s
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Strike } from '../../scripts/mutations/struck-rule.ts';
import * as placeRules from '../../src/follower/bootstrap/checkpoint-search.ts';
import type { Choice } from './bootstrap-world.ts';
import { leftOut } from './left-out.ts';
import { type PlaceRules, PlaceWorld } from './place-world.ts';
import { breaks, holds } from './random-runs.ts';

const runs = 3_000;
const breakRunsMax = 60_000;

const anyChoices: fc.Arbitrary<readonly Choice[]> = fc.array(
  fc.tuple(fc.nat({ max: 1_000 }), fc.nat({ max: 1_000_000 })),
  { maxLength: 160, size: 'max' },
);
const anyWorld = fc.tuple(
  fc.integer({ min: 1, max: 3 }),
  fc.record({ lagMs: fc.integer({ min: 1, max: 40 }), retentionMs: fc.constant(1_000) }),
  anyChoices,
);

let arrived = 0;

function placing(rules: PlaceRules): fc.IProperty<unknown> {
  return fc.property(anyWorld, ([partitions, times, choices]) => {
    const world = new PlaceWorld(rules, partitions, times);
    for (const choice of choices) world.step(choice);
    arrived += world.arrived;
  });
}

test('a node that arrives at its place has the rows of it', async () => {
  await holds(placing(placeRules), runs);
  assert.ok(arrived > runs / 10, `only ${arrived} arrived`);
});

const wrongRows = /the rows are not those of/;

async function without(rule: Strike): Promise<PlaceRules> {
  return leftOut<PlaceRules>('src/follower/bootstrap/checkpoint-search.ts', rule);
}

test('found when records behind the checkpoint may be old enough to be cleaned by', async () => {
  const rules = await without({ rule: 'place-while-all-is-kept', replace: 'return true;' });
  await breaks(placing(rules), breakRunsMax, wrongRows);
});

test('found when the age is not checked once more on arrival', async () => {
  await breaks(placing({ ...placeRules, isKept: () => true }), breakRunsMax, wrongRows);
});

test('found when partial rows are taken for whole', async () => {
  const rules = await without({
    rule: 'place-at-whole-point',
    part: 'isWholePoint(point)',
    replace: 'point !== null',
  });
  await breaks(placing(rules), breakRunsMax, wrongRows);
});

test.run();
