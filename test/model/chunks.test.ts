/**
 * Whether rows from before the stream come into it as they are, and whether a table that is said to
 * be finished is: for the topic, and for a follower that applies it point by point. Through commits
 * that are seen late, chunks of which one is read while another waits, large values that updates
 * leave out, key changes, truncates, more changes than a leader remembers, and restarts. Each rule
 * left out is found.
 */
// time-limit: 300s
import fc from 'fast-check';
import { test } from 'uvu';
import { ChunkMerge } from '../../src/leader/chunk-merge.ts';
import { Healing } from '../../src/leader/healing.ts';
import { FoundKeys } from '../../src/leader/row-search.ts';
import { type HealingRules, HealingWorld } from './healing-world.ts';
import { leftOut } from './left-out.ts';
import { breaks, holds } from './random-runs.ts';

const rightRules: HealingRules = {
  ...{ Heal: Healing, Found: FoundKeys, Chunks: ChunkMerge },
  unfinishedAgain: (unfinished) => unfinished,
};
const runsMax = 20_000;
const wrongRow = /is published as|the topic holds/;

function chunks(rules: HealingRules): fc.IProperty<unknown> {
  const choices = fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 20, maxLength: 150 });
  const bounds = fc.record({
    wantedMax: fc.integer({ min: 1, max: 3 }),
    changedMax: fc.integer({ min: 1, max: 3 }),
    rowsBefore: fc.integer({ min: 1, max: 3 }),
  });
  return fc.property(choices, bounds, (chosen, bound) => {
    const world = new HealingWorld(rules, bound);
    for (const choice of chosen) world.step(choice);
    world.finish();
  });
}

async function without(rule: string, instead: string): Promise<HealingRules> {
  const file = 'src/leader/chunk-merge.ts';
  const left = await leftOut<{ ChunkMerge: typeof ChunkMerge }>(file, rule, instead);
  return { ...rightRules, Chunks: left.ChunkMerge };
}

test('rows that were there come into the stream as they are, and none is forgotten', async () => {
  await holds(chunks(rightRules), 3_000);
});

test('found when what was read wins over what was streamed', async () => {
  const rule = 'chunk.rows.filter((row) => !isChanged(row))';
  await breaks(chunks(await without(rule, 'chunk.rows')), runsMax, wrongRow);
});

test('found when a change that a snapshot does not see is forgotten', async () => {
  const rule = 'isSeen = sees(snapshot, xid);';
  const rules = await without(rule, 'isSeen = xid < 0 || snapshot.xmax >= 0n;');
  await breaks(chunks(rules), runsMax, wrongRow);
});

test('found when a later change of a key is taken for the first one', async () => {
  await breaks(chunks(await without('known.xid = xid;', '')), runsMax, wrongRow);
});

test('found when transactions of before need not be seen', async () => {
  const rule = 'if (this.#horizon !== null && chunk.snapshot.xmin < this.#horizon) return false;';
  await breaks(chunks(await without(rule, '')), runsMax, wrongRow);
});

test('found when changes beyond the bound are forgotten', async () => {
  const rule = "    this.#horizon = 'unknown';\n    this.#open = [];";
  await breaks(chunks(await without(rule, '')), runsMax, wrongRow);
});

test('found when what was read before they were forgotten still counts', async () => {
  const rule = "    this.#horizon = 'unknown';\n    this.#open = [];";
  await breaks(chunks(await without(rule, "    this.#horizon = 'unknown';")), runsMax, wrongRow);
});

test('found when a table is finished while rows lack values that nobody has', async () => {
  const rule = 'if (unhealed !== null && compareEpochLsn(unhealed.at, readTo.at) <= 0) continue;';
  const rules = await without(rule, '');
  await breaks(chunks(rules), runsMax, /has no row to complete/);
});

test('found when a chunk begins past the end of the one before', async () => {
  const rule = 'relationId: relation, after: end.identity';
  const rules = await without(rule, "relationId: relation, after: ['k1']");
  await breaks(chunks(rules), runsMax, /the topic holds|never/);
});

test('found when a key that moves leaves behind what its row lacks', async () => {
  const rule = 'if (was !== null && unchanged.length > 0) table.readTo = previous;';
  const rules = await without(rule, '');
  await breaks(chunks(rules), runsMax * 10, /has no row to complete/);
});

test('found when a restart takes all tables for finished', async () => {
  const rules = { ...rightRules, unfinishedAgain: () => [] };
  await breaks(chunks(rules), runsMax, /the topic holds|a follower/);
});

test('found when a restart goes on where the log does not stand', async () => {
  const rules: HealingRules = {
    ...rightRules,
    unfinishedAgain: (tables) => tables.map((table) => ({ ...table, after: ['k1'] })),
  };
  await breaks(chunks(rules), runsMax, /the topic holds|a follower/);
});

test.run();
