/**
 * Whether a backfill publishes rows as they are, and whether a table that counts as complete is:
 * for the topic, and for a follower. Through commits that become visible late, chunks of which one
 * is read while another waits, large values that updates leave out, key changes, truncates, more
 * changes than a leader remembers, and restarts. And whether a resnapshot makes a table the
 * leader's, whatever was not streamed and whatever was done to the follower. Each rule that is left
 * out is found.
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
const lacksRow = /that this node does not have|a follower holds|that is deleted/;

function backfill(rules: BackfillRules, resnapshots = false): fc.IProperty<unknown> {
  const choices = fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 20, maxLength: 150 });
  const bounds = fc.record({
    wantedMax: fc.integer({ min: 1, max: 3 }),
    changedMax: fc.integer({ min: 1, max: 3 }),
    rowsBefore: fc.integer({ min: resnapshots ? 0 : 1, max: 3 }),
    resnapshots: fc.constant(resnapshots),
    pointsEvery: fc.integer({ min: 1, max: resnapshots ? 8 : 1 }),
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

test('a backfill publishes rows as they are, and forgets none', async () => {
  await holds(backfill(rightRules), 3_000);
});

test('a resnapshot makes a table the leader’s, and deletes no row that it published', async () => {
  await holds(backfill(rightRules, true), 3_000);
});

test('found when a row that was read replaces one that was streamed', async () => {
  const rule = 'chunk.rows.filter((row) => !isChanged(row))';
  await breaks(backfill(await without(rule, 'chunk.rows')), runsMax, wrongRow);
});

test('found when a change that a snapshot does not see is forgotten', async () => {
  const rule = 'isSeen = sees(snapshot, xid);';
  const rules = await without(rule, 'isSeen = xid < 0 || snapshot.xmax >= 0n;');
  await breaks(backfill(rules), runsMax, wrongRow);
});

test('found when a later change of a key is not remembered', async () => {
  await breaks(backfill(await without('known.xid = xid;', '')), runsMax, wrongRow);
});

test('found when earlier transactions need not be seen', async () => {
  const rule = 'if (this.#horizon !== null && chunk.snapshot.xmin < this.#horizon) return false;';
  await breaks(backfill(await without(rule, '')), runsMax, wrongRow);
});

test('found when changes beyond the bound are forgotten', async () => {
  const rule = "    this.#horizon = 'unknown';\n    this.#open = [];";
  await breaks(backfill(await without(rule, '')), runsMax, wrongRow);
});

test('found when what was read before they were forgotten still counts', async () => {
  const rule = "    this.#horizon = 'unknown';\n    this.#open = [];";
  await breaks(backfill(await without(rule, "    this.#horizon = 'unknown';")), runsMax, wrongRow);
});

test('found when a table is complete while rows are partial', async () => {
  const rule = 'if (unhealed !== null && compareEpochLsn(unhealed.at, readTo.at) <= 0) continue;';
  const rules = await without(rule, '');
  await breaks(backfill(rules), runsMax, lacksRow);
});

test('found when a chunk begins past the end of the previous one', async () => {
  const rule = 'relationId: relation, after: end.identity';
  const rules = await without(rule, "relationId: relation, after: ['k1']");
  await breaks(backfill(rules), runsMax, /the topic holds|never/);
});

test('found when a partial row whose key changed is not reselected in time', async () => {
  const rule = 'if (was !== null && unchanged.length > 0) table.readTo = previous;';
  const rules = await without(rule, '');
  await breaks(backfill(rules), runsMax * 10, lacksRow);
});

test('found when a restart takes all tables for complete', async () => {
  const rules = { ...rightRules, unfinishedAgain: () => [] };
  await breaks(backfill(rules), runsMax, /the topic holds|a follower/);
});

test('found when a restart continues after another key than the log says', async () => {
  const rules: BackfillRules = {
    ...rightRules,
    unfinishedAgain: (tables) => tables.map((table) => ({ ...table, after: ['k1'] })),
  };
  await breaks(backfill(rules), runsMax, /the topic holds|a follower/);
});

/** Rules that a resnapshot needs, in the leader. */
async function withoutInResnapshot(rule: string, instead: string): Promise<fc.IProperty<unknown>> {
  return backfill(await without(rule, instead), true);
}

const resnapshotHarm = /is published as|the topic holds|a follower/;

test('found when a resnapshot continues where the last one was', async () => {
  const rule = '{ ...unreadTable(relation), readTo: null, isNamed: false }';
  const kept =
    '{ ...unreadTable(relation), ...this.#tables.get(relation), readTo: null, isNamed: false }';
  await breaks(await withoutInResnapshot(rule, kept), runsMax, resnapshotHarm);
});

const forgets = 'readTo: null, isNamed: false });\n    this.#forgetChanges();';

test('found when what was streamed before a resnapshot still counts', async () => {
  const kept =
    "readTo: null, isNamed: false });\n    this.#horizon = 'unknown';\n    this.#open = [];";
  await breaks(await withoutInResnapshot(forgets, kept), runsMax, resnapshotHarm);
});

test('found when a resnapshot need not see what was streamed before', async () => {
  const kept = 'readTo: null, isNamed: false });\n    this.#changed.clear();\n    this.#open = [];';
  await breaks(await withoutInResnapshot(forgets, kept), runsMax, wrongRow);
});

test('found when what was read before a resnapshot still counts', async () => {
  const kept =
    "readTo: null, isNamed: false });\n    this.#changed.clear();\n    this.#horizon = 'unknown';";
  await breaks(await withoutInResnapshot(forgets, kept), runsMax, resnapshotHarm);
});

test('found when a horizon from before a resnapshot is accepted', async () => {
  const rule = "this.#horizon === 'unknown' && forgotten === this.#forgotten";
  const property = await withoutInResnapshot(rule, "this.#horizon === 'unknown' && forgotten >= 0");
  await breaks(property, runsMax, wrongRow);
});

test('found when no point names a table at its resnapshot', async () => {
  const rule = '...unreadTable(relation), readTo: null, isNamed: false';
  const property = await withoutInResnapshot(
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
  const rule = '() => true : yield* removedBases(table, rows);';
  const left = await leftOut<{ rowActions: typeof rowActions }>(
    file,
    rule,
    '() => true : () => false;',
  );
  const rules = { ...rightRules, rowActions: left.rowActions };
  await breaks(backfill(rules), runsMax, /that this node does not have/);
});

test('found when such a resnapshot also ends inside of a batch', async () => {
  const file = 'src/leader/backfill/backfill-merge.ts';
  const rule = '...unreadTable(relation), readTo: null, isNamed: false';
  const { BackfillMerge: Backfills } = await leftOut<{ BackfillMerge: typeof BackfillMerge }>(
    file,
    rule,
    '...unreadTable(relation), readTo: null, isNamed: true',
  );
  const inside = 'if (compareEpochLsn(at, checkpoint.at) !== 0) return [];';
  const { finishedAt } = await readingOf(inside, '');
  const property = backfill({ ...rightRules, Backfills, finishedAt }, true);
  await breaks(property, runsMax, /a follower removes/);
});

test('found when a resnapshot ends while points name the table', async () => {
  const { finishedAt } = await readingOf('!unfinished.includes(id)', 'unfinished.includes(id)');
  await breaks(backfill({ ...rightRules, finishedAt }, true), runsMax, /a follower/);
});

test('found when rows of one resnapshot count in the next', async () => {
  await breaks(backfill({ ...rightRules, keepsSeen: true }, true), runsMax, /a follower holds/);
});

test('found when a partial row counts as not published', async () => {
  const rule = '[...upserts, ...partials.map(({ layers }) => layers[0])]';
  const { rowsSeen } = await readingOf(rule, '[...upserts]');
  await breaks(backfill({ ...rightRules, rowsSeen }, true), runsMax, /a follower (removes|holds)/);
});

test('found when a reselect during a resnapshot may use an older snapshot', async () => {
  const rule = "if (wanted.relationId === relationId) wanted.horizon = 'unknown';";
  const file = 'src/leader/backfill/reselect.ts';
  const { Reselect: Reselects } = await leftOut<{ Reselect: typeof Reselect }>(file, rule, '');
  await breaks(
    backfill({ ...rightRules, Reselects }, true),
    runsMax,
    /is published as|never complete/,
  );
});

test.run();
