/**
 * Whether what healing publishes is the row at its place, and whether a topic that is said to lack
 * nothing lacks nothing: through commits that are seen late, reads that take long, hot rows, key
 * changes, truncates and restarts. Each rule left out is found.
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

function healing(rules: BackfillRules): fc.IProperty<unknown> {
  const choices = fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 20, maxLength: 150 });
  return fc.property(choices, fc.integer({ min: 1, max: 3 }), (chosen, wantedMax) => {
    const others = { changedMax: 1, rowsBefore: 0, rereads: false, pointsEvery: 1 };
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

test('what is published is the row as of its place, and in the end none is lacking', async () => {
  await holds(healing(rightRules), 3_000);
});

test('found when a read counts that does not see the last change', async () => {
  const rules = await without('return seenBy === null || sees(snapshot, seenBy);', 'return true;');
  await breaks(healing(rules), runsMax, wrongRow);
});

test('found when a change that was streamed since the read began is not laid over it', async () => {
  const rule = 'if (this.#isBeingRead(text, known)) known.overlay';
  await breaks(healing(await without(rule, 'if (text === null) known.overlay')), runsMax, wrongRow);
});

test('found when keys of before are read in any snapshot', async () => {
  const rule = 'if (entry.horizon !== null && snapshot.xmin < entry.horizon) return false;';
  await breaks(healing(await without(rule, '')), runsMax, wrongRow);
});

test('found when a key of a row that is gone is not forgotten', async () => {
  const rule = 'if (this.#wanted.get(text) !== entry || row === undefined) continue;';
  const instead = 'if (row === undefined) continue;';
  await breaks(healing(await without(rule, instead)), runsMax, wrongRow);
});

test('found when a truncate does not end what its rows need', async () => {
  const rule = 'if (wanted.relationId === relationId) this.#forget(text);';
  await breaks(healing(await without(rule, '')), runsMax, /is published as|never healed/);
});

test('found when keys beyond the bound are forgotten', async () => {
  const rule = 'this.#searchFrom ??= previous;';
  await breaks(healing(await without(rule, '')), runsMax, /the topic holds/);
});

test('found when the topic is searched before what it has to bring can be read', async () => {
  const rule = 'if (this.#searchTo !== null && !isCovered(this.#searchTo, readTo)) return null;';
  await breaks(healing(await without(rule, '')), runsMax, /the topic holds/);
});

test('found when a restart forgets which keys lack values', async () => {
  const rules = await without('this.#searchFrom = unhealed;', 'this.#searchFrom = null;');
  await breaks(healing(rules), runsMax, /the topic holds/);
});

test.run();
