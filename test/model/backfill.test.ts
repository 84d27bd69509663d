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
import type { Strike } from '../../scripts/mutations/struck-rule.ts';
import type * as resnapshotRules from '../../src/follower/apply/resnapshots.ts';
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

async function without(...rules: readonly Strike[]): Promise<BackfillRules> {
  const file = 'src/leader/backfill/backfill-merge.ts';
  const left = await leftOut<{ BackfillMerge: typeof BackfillMerge }>(file, ...rules);
  return { ...rightRules, Backfills: left.BackfillMerge };
}

test('a backfill publishes rows as they are, and forgets none', async () => {
  await holds(backfill(rightRules), 3_000);
});

test('a resnapshot makes a table the leader’s, and deletes no row that it published', async () => {
  await holds(backfill(rightRules, true), 3_000);
});

test('found when a row that was read replaces one that was streamed', async () => {
  const part = '.filter((row) => !isChanged(row))';
  const rules = await without({ rule: 'streamed-row-beats-read-row', part, replace: '' });
  await breaks(backfill(rules), runsMax, wrongRow);
});

test('found when a change that a snapshot does not see is forgotten', async () => {
  const replace = 'isSeen = xid < 0 || snapshot.xmax >= 0n;';
  const rules = await without({ rule: 'change-kept-until-seen', replace });
  await breaks(backfill(rules), runsMax, wrongRow);
});

test('found when a later change of a key is not remembered', async () => {
  const rules = await without({ rule: 'last-change-of-key-counts', replace: '' });
  await breaks(backfill(rules), runsMax, wrongRow);
});

test('found when earlier transactions need not be seen', async () => {
  const rules = await without({ rule: 'chunk-sees-earlier-transactions', replace: '' });
  await breaks(backfill(rules), runsMax, wrongRow);
});

test('found when changes beyond the bound are forgotten', async () => {
  const rules = await without(
    { rule: 'forgotten-changes-set-horizon', replace: '' },
    { rule: 'forgotten-changes-drop-chunks', replace: '' },
  );
  await breaks(backfill(rules), runsMax, wrongRow);
});

test('found when what was read before they were forgotten still counts', async () => {
  const rules = await without({ rule: 'forgotten-changes-drop-chunks', replace: '' });
  await breaks(backfill(rules), runsMax, wrongRow);
});

test('found when a table is complete while rows are partial', async () => {
  const rules = await without({ rule: 'complete-without-partial-rows', replace: '' });
  await breaks(backfill(rules), runsMax, lacksRow);
});

test('found when a chunk begins past the end of the previous one', async () => {
  const skips = { part: 'end.identity', replace: "['k1']" };
  const rules = await without({ rule: 'chunk-follows-last-key', ...skips });
  await breaks(backfill(rules), runsMax, /the topic holds|never/);
});

test('found when a partial row whose key changed is not reselected in time', async () => {
  const rules = await without({ rule: 'moved-partial-row-delays-completion', replace: '' });
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
async function withoutInResnapshot(rule: Strike): Promise<fc.IProperty<unknown>> {
  return backfill(await without(rule), true);
}

const resnapshotHarm = /is published as|the topic holds|a follower/;

test('found when a resnapshot continues where the last one was', async () => {
  const kept = { part: 'readTo: null', replace: '...this.#tables.get(relation), $&' };
  const property = await withoutInResnapshot({ rule: 'resnapshot-starts-over', ...kept });
  await breaks(property, runsMax, resnapshotHarm);
});

test('found when what was streamed before a resnapshot still counts', async () => {
  const replace = "this.#horizon = 'unknown'; this.#open = [];";
  const property = await withoutInResnapshot({ rule: 'resnapshot-forgets-changes', replace });
  await breaks(property, runsMax, resnapshotHarm);
});

test('found when a resnapshot need not see what was streamed before', async () => {
  const replace = 'this.#changed.clear(); this.#open = [];';
  const property = await withoutInResnapshot({ rule: 'resnapshot-forgets-changes', replace });
  await breaks(property, runsMax, wrongRow);
});

test('found when what was read before a resnapshot still counts', async () => {
  const replace = "this.#changed.clear(); this.#horizon = 'unknown';";
  const property = await withoutInResnapshot({ rule: 'resnapshot-forgets-changes', replace });
  await breaks(property, runsMax, resnapshotHarm);
});

test('found when a horizon from before a resnapshot is accepted', async () => {
  const any = { part: 'forgotten === this.#forgotten', replace: 'forgotten >= 0' };
  const property = await withoutInResnapshot({ rule: 'horizon-since-last-forgotten', ...any });
  await breaks(property, runsMax, wrongRow);
});

/** No point has to name the table. */
const unnamed: Strike = {
  rule: 'resnapshot-starts-over',
  part: 'isNamed: false',
  replace: 'isNamed: true',
};

test('found when no point names a table at its resnapshot', async () => {
  const property = await withoutInResnapshot(unnamed);
  await breaks(property, runsMax, /a follower holds/);
});

async function resnapshotting(rule: Strike): Promise<typeof resnapshotRules> {
  return leftOut<typeof resnapshotRules>('src/follower/apply/resnapshots.ts', rule);
}

test('found when the base that a key change removes is read after the deletes', async () => {
  const file = 'src/follower/apply/row-actions.ts';
  const late = { part: 'yield* removedBases(table, rows)', replace: '() => false' };
  const rule = { rule: 'moved-base-before-deletes', ...late };
  const left = await leftOut<{ rowActions: typeof rowActions }>(file, rule);
  const rules = { ...rightRules, rowActions: left.rowActions };
  await breaks(backfill(rules), runsMax, /that this node does not have/);
});

test('found when such a resnapshot also ends inside of a batch', async () => {
  const { finishedAt } = await resnapshotting({ rule: 'resnapshot-ends-at-point', replace: '' });
  const property = backfill({ ...(await without(unnamed)), finishedAt }, true);
  await breaks(property, runsMax, /a follower removes/);
});

test('found when a resnapshot ends while points name the table', async () => {
  const { finishedAt } = await resnapshotting({
    rule: 'resnapshot-ends-when-unnamed',
    part: '!unfinished',
    replace: 'unfinished',
  });
  await breaks(backfill({ ...rightRules, finishedAt }, true), runsMax, /a follower/);
});

test('found when rows of one resnapshot count in the next', async () => {
  await breaks(backfill({ ...rightRules, keepsSeen: true }, true), runsMax, /a follower holds/);
});

test('found when a partial row counts as not published', async () => {
  const replace = 'return [...upserts];';
  const { rowsSeen } = await resnapshotting({ rule: 'partial-row-counts-as-seen', replace });
  await breaks(backfill({ ...rightRules, rowsSeen }, true), runsMax, /a follower (removes|holds)/);
});

test('found when a reselect during a resnapshot may use an older snapshot', async () => {
  const { Reselect: Reselects } = await leftOut<{ Reselect: typeof Reselect }>(
    'src/leader/backfill/reselect.ts',
    { rule: 'resnapshot-outdates-reads', replace: '' },
  );
  await breaks(
    backfill({ ...rightRules, Reselects }, true),
    runsMax,
    /is published as|never complete/,
  );
});

test.run();
