/**
 * Whether a reselect publishes the row as of its position, and whether a topic of which a point
 * says that no row is partial holds whole rows: through commits that become visible late, slow
 * reads, hot rows, key changes, truncates and restarts. Each rule that is left out is found.
 */
// time-limit: 300s
import fc from 'fast-check';
import { test } from 'uvu';
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

async function without(rule: string, instead: string): Promise<BackfillRules> {
  const { Reselect: Reselects } = await leftOut<{ Reselect: typeof Reselect }>(
    reselectFile,
    rule,
    instead,
  );
  return { ...rightRules, Reselects };
}

test('a reselect publishes the row as of its position; in the end no row is partial', async () => {
  await holds(reselects(rightRules), 3_000);
});

test('found when a read counts that does not see the last change', async () => {
  const rules = await without('return seenBy === null || sees(snapshot, seenBy);', 'return true;');
  await breaks(reselects(rules), runsMax, wrongRow);
});

test('found when a change that was streamed since the read began is not laid over it', async () => {
  const rule = 'if (this.#isBeingRead(text, known)) known.overlay';
  await breaks(
    reselects(await without(rule, 'if (text === null) known.overlay')),
    runsMax,
    wrongRow,
  );
});

test('found when keys with unobserved changes are read in any snapshot', async () => {
  const rule = 'if (entry.horizon !== null && snapshot.xmin < entry.horizon) return false;';
  await breaks(reselects(await without(rule, '')), runsMax, wrongRow);
});

test('found when the key of a deleted row is not forgotten', async () => {
  const rule = 'if (this.#wanted.get(text) !== entry || row === undefined) continue;';
  const instead = 'if (row === undefined) continue;';
  await breaks(reselects(await without(rule, instead)), runsMax, wrongRow);
});

test('found when a truncate does not end the reselects of its rows', async () => {
  const rule = 'if (wanted.relationId === relationId) this.#forget(text);';
  await breaks(reselects(await without(rule, '')), runsMax, /is published as|never complete/);
});

test('found when keys beyond the bound are forgotten', async () => {
  const rule = 'this.#searchFrom ??= previous;';
  await breaks(reselects(await without(rule, '')), runsMax, /the topic holds/);
});

test('found when the topic is searched before the records to find can be read', async () => {
  const rule = 'if (this.#searchTo !== null && !isCovered(this.#searchTo, readTo)) return null;';
  await breaks(reselects(await without(rule, '')), runsMax, /the topic holds/);
});

test('found when a restart forgets which rows are partial', async () => {
  const rules = await without('this.#searchFrom = unhealed;', 'this.#searchFrom = null;');
  await breaks(reselects(rules), runsMax, /the topic holds/);
});

test.run();
