/**
 * Whether a reselect publishes the row as of its position, and whether a topic of which a point
 * says that no row is partial holds whole rows: through commits that become visible late, slow
 * reads, hot rows, key changes, truncates and restarts. Each rule that is left out is found.
 */
// time-limit: 300s
import fc from 'fast-check';
import { test } from 'uvu';
import type { Strike } from '../../scripts/mutations/struck-rule.ts';
import type { Reselect } from '../../src/leader/backfill/reselect.ts';
import { type BackfillRules, rightRules } from './backfill-rules.ts';
import { BackfillWorld } from './backfill-world.ts';
import { leftOut } from './left-out.ts';
import { breaks, holds } from './random-runs.ts';

const reselectFile = 'src/leader/backfill/reselect.ts';
const runsMax = 20_000;
const wrongRow = /is published as/;

function reselects(rules: BackfillRules): fc.IProperty<unknown> {
  const choices = fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 20, maxLength: 150 });
  return fc.property(choices, fc.integer({ min: 1, max: 3 }), (chosen, wantedMax) => {
    const others = { changedMax: 1, rowsBefore: 0, resnapshots: false, pointsEvery: 1 };
    const world = new BackfillWorld(rules, { wantedMax, ...others });
    for (const choice of chosen) world.step(choice);
    world.finish();
  });
}

async function without(rule: Strike): Promise<BackfillRules> {
  const { Reselect: Reselects } = await leftOut<{ Reselect: typeof Reselect }>(reselectFile, rule);
  return { ...rightRules, Reselects };
}

test('a reselect publishes the row as of its position; in the end no row is partial', async () => {
  await holds(reselects(rightRules), 3_000);
});

test('found when a read counts that does not see the last change', async () => {
  const rules = await without({ rule: 'read-sees-last-change', replace: 'return true;' });
  await breaks(reselects(rules), runsMax, wrongRow);
});

test('found when a change that was streamed since the read began is not laid over it', async () => {
  const rules = await without({ rule: 'overlay-since-read-began', replace: '' });
  await breaks(reselects(rules), runsMax, wrongRow);
});

test('found when keys with unobserved changes are read in any snapshot', async () => {
  const rules = await without({ rule: 'read-sees-unobserved-changes', replace: '' });
  await breaks(reselects(rules), runsMax, wrongRow);
});

test('found when the key of a deleted row is not forgotten', async () => {
  const replace = 'if (row === undefined) continue;';
  const rules = await without({ rule: 'forgotten-key-is-not-published', replace });
  await breaks(reselects(rules), runsMax, wrongRow);
});

test('found when a truncate does not end the reselects of its rows', async () => {
  const rules = await without({ rule: 'truncate-ends-reselect', replace: '' });
  await breaks(reselects(rules), runsMax, /is published as|never complete/);
});

test('found when keys beyond the bound are forgotten', async () => {
  const rules = await without({ rule: 'search-beyond-bound', replace: '' });
  await breaks(reselects(rules), runsMax, /the topic holds/);
});

test('found when the topic is searched before the records to find can be read', async () => {
  const rules = await without({ rule: 'search-what-was-read-back', replace: '' });
  await breaks(reselects(rules), runsMax, /the topic holds/);
});

test('found when a restart forgets which rows are partial', async () => {
  const replace = 'this.#searchFrom = null;';
  const rules = await without({ rule: 'restart-searches-partial-rows', replace });
  await breaks(reselects(rules), runsMax, /the topic holds/);
});

test.run();
