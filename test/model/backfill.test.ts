/**
 * Whether rows from before the stream come into it as they are, and whether a table that is said to
 * be finished is: for the topic, and for a follower. Through commits that are seen late, chunks of
 * which one is read while another waits, large values that updates leave out, key changes,
 * truncates, more changes than a leader remembers, and restarts. And whether a table that is read
 * anew becomes the leader's, whatever was not told of it and whatever was done to the follower.
 * Each rule left out is found.
 */
// time-limit: 300s
import fc from 'fast-check';
import { test } from 'uvu';
import type * as rereadRules from '../../src/follower/apply/resnapshots.ts';
import type { rowActions } from '../../src/follower/apply/row-actions.ts';
import type { BackfillMerge } from '../../src/leader/backfill/backfill-merge.ts';
import type { Reselect } from '../../src/leader/backfill/reselect.ts';
import { type BackfillRules, rightRules } from './backfill-rules.ts';
import { BackfillWorld } from './backfill-world.ts';
import { leftOut } from './left-out.ts';
import { breaks, holds } from './random-runs.ts';

const runsMax = 20_000;
const wrongRow = /is published as|the topic holds/;
const lacksRow = /that this node does not have|a follower holds|that is not there/;

function chunks(rules: BackfillRules, rereads = false): fc.IProperty<unknown> {
  const choices = fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 20, maxLength: 150 });
  const bounds = fc.record({
    wantedMax: fc.integer({ min: 1, max: 3 }),
    changedMax: fc.integer({ min: 1, max: 3 }),
    rowsBefore: fc.integer({ min: rereads ? 0 : 1, max: 3 }),
    rereads: fc.constant(rereads),
    pointsEvery: fc.integer({ min: 1, max: rereads ? 8 : 1 }),
  });
  return fc.property(choices, bounds, (chosen, bound) => {
    const world = new BackfillWorld(rules, bound);
    for (const choice of chosen) world.step(choice);
    world.finish();
  });
}

async function without(rule: string, instead: string): Promise<BackfillRules> {
  const file = 'src/leader/backfill/backfill-merge.ts';
  const left = await leftOut<{ BackfillMerge: typeof BackfillMerge }>(file, rule, instead);
  return { ...rightRules, Backfills: left.BackfillMerge };
}

test('rows that were there come into the stream as they are, and none is forgotten', async () => {
  await holds(chunks(rightRules), 3_000);
});

test('a table that is read anew is the leader’s, and no row goes that has come', async () => {
  await holds(chunks(rightRules, true), 3_000);
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
  await breaks(chunks(rules), runsMax, lacksRow);
});

test('found when a chunk begins past the end of the one before', async () => {
  const rule = 'relationId: relation, after: end.identity';
  const rules = await without(rule, "relationId: relation, after: ['k1']");
  await breaks(chunks(rules), runsMax, /the topic holds|never/);
});

test('found when a key that moves leaves behind what its row lacks', async () => {
  const rule = 'if (was !== null && unchanged.length > 0) table.readTo = previous;';
  const rules = await without(rule, '');
  await breaks(chunks(rules), runsMax * 10, lacksRow);
});

test('found when a restart takes all tables for finished', async () => {
  const rules = { ...rightRules, unfinishedAgain: () => [] };
  await breaks(chunks(rules), runsMax, /the topic holds|a follower/);
});

test('found when a restart goes on where the log does not stand', async () => {
  const rules: BackfillRules = {
    ...rightRules,
    unfinishedAgain: (tables) => tables.map((table) => ({ ...table, after: ['k1'] })),
  };
  await breaks(chunks(rules), runsMax, /the topic holds|a follower/);
});

/** Of what a reading anew needs, in the leader. */
async function withoutInReading(rule: string, instead: string): Promise<fc.IProperty<unknown>> {
  return chunks(await without(rule, instead), true);
}

const rereadHarm = /is published as|the topic holds|a follower/;

test('found when a reading anew goes on where the last one stood', async () => {
  const rule = '{ ...unreadTable(relation), readTo: null, isNamed: false }';
  const kept =
    '{ ...unreadTable(relation), ...this.#tables.get(relation), readTo: null, isNamed: false }';
  await breaks(await withoutInReading(rule, kept), runsMax, rereadHarm);
});

const forgets = 'readTo: null, isNamed: false });\n    this.#forgetChanges();';

test('found when what was streamed before a reading anew still counts', async () => {
  const kept =
    "readTo: null, isNamed: false });\n    this.#horizon = 'unknown';\n    this.#open = [];";
  await breaks(await withoutInReading(forgets, kept), runsMax, rereadHarm);
});

test('found when whoever reads anew need not see what was streamed before', async () => {
  const kept = 'readTo: null, isNamed: false });\n    this.#changed.clear();\n    this.#open = [];';
  await breaks(await withoutInReading(forgets, kept), runsMax, wrongRow);
});

test('found when what was read before a reading anew still counts', async () => {
  const kept =
    "readTo: null, isNamed: false });\n    this.#changed.clear();\n    this.#horizon = 'unknown';";
  await breaks(await withoutInReading(forgets, kept), runsMax, rereadHarm);
});

test('found when a transaction id of before is told after a reading anew', async () => {
  const rule = "this.#horizon === 'unknown' && forgotten === this.#forgotten";
  const property = await withoutInReading(rule, "this.#horizon === 'unknown' && forgotten >= 0");
  await breaks(property, runsMax, wrongRow);
});

test('found when no point names a table that is read anew', async () => {
  const rule = '...unreadTable(relation), readTo: null, isNamed: false';
  const property = await withoutInReading(
    rule,
    '...unreadTable(relation), readTo: null, isNamed: true',
  );
  await breaks(property, runsMax, /a follower holds/);
});

async function readingOf(rule: string, instead: string): Promise<typeof rereadRules> {
  return leftOut<typeof rereadRules>('src/follower/apply/resnapshots.ts', rule, instead);
}

test('found when the base that a key change removes is read after the deletes', async () => {
  const file = 'src/follower/apply/row-actions.ts';
  const rule = '() => true : movesKey;';
  const left = await leftOut<{ rowActions: typeof rowActions }>(
    file,
    rule,
    '() => true : () => false;',
  );
  const rules = { ...rightRules, rowActions: left.rowActions };
  await breaks(chunks(rules), runsMax, /that this node does not have/);
});

test('found when such a reading also ends inside of a batch', async () => {
  const file = 'src/leader/backfill/backfill-merge.ts';
  const rule = '...unreadTable(relation), readTo: null, isNamed: false';
  const { BackfillMerge: Backfills } = await leftOut<{ BackfillMerge: typeof BackfillMerge }>(
    file,
    rule,
    '...unreadTable(relation), readTo: null, isNamed: true',
  );
  const inside = 'if (compareEpochLsn(at, checkpoint.at) !== 0) return [];';
  const { finishedAt } = await readingOf(inside, '');
  const property = chunks({ ...rightRules, Backfills, finishedAt }, true);
  await breaks(property, runsMax, /a follower removes/);
});

test('found when a reading ends while points name the table', async () => {
  const { finishedAt } = await readingOf('!unfinished.includes(id)', 'unfinished.includes(id)');
  await breaks(chunks({ ...rightRules, finishedAt }, true), runsMax, /a follower/);
});

test('found when what came in one reading counts in the next', async () => {
  await breaks(chunks({ ...rightRules, keepsSeen: true }, true), runsMax, /a follower holds/);
});

test('found when a row that lacks values is taken for one that has not come', async () => {
  const rule = '[...upserts, ...partials.map(({ layers }) => layers[0])]';
  const { rowsSeen } = await readingOf(rule, '[...upserts]');
  await breaks(chunks({ ...rightRules, rowsSeen }, true), runsMax, /a follower (removes|holds)/);
});

test('found when a single row is read by who does not see what a reading anew sees', async () => {
  const rule = "if (wanted.relationId === relationId) wanted.horizon = 'unknown';";
  const file = 'src/leader/backfill/reselect.ts';
  const { Reselect: Reselects } = await leftOut<{ Reselect: typeof Reselect }>(file, rule, '');
  await breaks(chunks({ ...rightRules, Reselects }, true), runsMax, /is published as|never healed/);
});

test.run();
