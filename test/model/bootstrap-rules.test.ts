/**
 * The rules that make a new node exact, left out one at a time: the histories of bootstrap.test.ts
 * have to show the harm of each, or they would prove nothing.
 */
// runs: ci, since only a change of the model or of a rule's place can turn it red
// time-limit: 300s
import { test } from 'uvu';
import type { Strike } from '../../scripts/mutations/struck-rule.ts';
import type { Aligner } from '../../src/follower/apply/aligner.ts';
import type { CompactedLog } from '../../src/follower/bootstrap/compacted-log.ts';
import type * as horizonRules from '../../src/follower/bootstrap/horizon.ts';
import type { TopicSurvey } from '../../src/follower/bootstrap/topic-survey.ts';
import type * as exactnessRules from '../../src/follower/state/exactness.ts';
import { bootstrapping } from './bootstrap-properties.ts';
import { type BootstrapRules, rightRules } from './bootstrap-world.ts';
import { leftOut } from './left-out.ts';
import { breaks } from './random-runs.ts';

const runsMax = 40_000;

async function withLog(rule: Strike): Promise<BootstrapRules> {
  const file = 'src/follower/bootstrap/compacted-log.ts';
  const { CompactedLog: Log } = await leftOut<{ CompactedLog: typeof CompactedLog }>(file, rule);
  return { ...rightRules, Log };
}

async function withHorizon(rule: Strike): Promise<BootstrapRules> {
  const file = 'src/follower/bootstrap/horizon.ts';
  return { ...rightRules, horizon: await leftOut<typeof horizonRules>(file, rule) };
}

async function withExactness(rule: Strike): Promise<BootstrapRules> {
  const file = 'src/follower/state/exactness.ts';
  return { ...rightRules, exactness: await leftOut<typeof exactnessRules>(file, rule) };
}

async function withReader(rule: Strike): Promise<BootstrapRules> {
  const file = 'src/follower/apply/aligner.ts';
  const { Aligner: Reader } = await leftOut<{ Aligner: typeof Aligner }>(file, rule);
  return { ...rightRules, Reader };
}

async function found(rules: BootstrapRules, harm = wrongRows): Promise<void> {
  await breaks(bootstrapping(rules), runsMax, harm);
}

const wrongRows = /the rows are not those of|that this node does not have/;

async function withSurvey(rule: Strike): Promise<BootstrapRules> {
  const file = 'src/follower/bootstrap/topic-survey.ts';
  const { TopicSurvey: Survey } = await leftOut<{ TopicSurvey: typeof TopicSurvey }>(file, rule);
  return { ...rightRules, Survey };
}

test('found when a void resnapshot or truncate empties a table', async () => {
  const taken = { part: ' || isVoid(position, epochs)', replace: '' };
  await found(await withSurvey({ rule: 'emptied-below-checkpoint', ...taken }));
});

test('found when what lies behind the checkpoint empties a table', async () => {
  const taken = { part: '!isCovered(position, checkpoint) || ', replace: '' };
  await found(await withSurvey({ rule: 'emptied-below-checkpoint', ...taken }));
});

test('found when only the first emptying of a table counts', async () => {
  const first = { part: ' > ', replace: ' < ' };
  await found(await withSurvey({ rule: 'last-emptying-counts', ...first }));
});

test('found when what lies below a resnapshot stays', async () => {
  await found(await withLog({ rule: 'emptied-rows-left-out', replace: '' }));
});

test('found when the node is exact where its reading ends', async () => {
  const any = { part: 'horizon.every', replace: '[0n].every' };
  await found(await withExactness({ rule: 'exact-at-horizon', ...any }));
});

test('found when half a batch behind the last checkpoint does not count', async () => {
  await found(await withHorizon({ rule: 'horizon-past-torn-batch', replace: '' }));
});

test('found when half a batch is forgotten whose tombstones have expired', async () => {
  const replace = 'return horizon;';
  await found(await withHorizon({ rule: 'horizon-past-expired-tombstones', replace }));
});

test('found when unhealed rows are taken for whole', async () => {
  const ignored = { part: 'unhealed === null && ', replace: '' };
  await found(await withExactness({ rule: 'whole-without-partial-rows', ...ignored }));
});

test('found when an epoch begin is taken for whole', async () => {
  const any = { part: ' && begin.base === null', replace: '' };
  await found(await withExactness({ rule: 'only-first-begin-is-whole', ...any }));
});

test('found when a reading may take longer than tombstones are kept', async () => {
  const replace = 'return readMs < 0;';
  await found(await withHorizon({ rule: 'read-within-tombstone-retention', replace }));
});

test('found when another replica may be read on', async () => {
  await found(await withHorizon({ rule: 'one-replica-is-read', replace: 'return [];' }));
});

test('found when records behind the reading are not counted', async () => {
  const uncounted = { part: 'count === counted', replace: 'true' };
  await found(await withReader({ rule: 'counts-compared', ...uncounted }));
});

test('found when a point behind the reading need not continue the checkpoint', async () => {
  const rules = await withReader({ rule: 'point-continues-checkpoint', replace: '' });
  // The counts are a second net, which takes the gap for damage.
  await found(rules, /the rows are not those of|record counts do not match/);
});

test('found when partitions are read one after the other', async () => {
  await found({ ...rightRules, inOrder: false });
});

test.run();
