/**
 * The rules that make a new node exact, left out one at a time: the histories of bootstrap.test.ts
 * have to show the harm of each, or they would prove nothing.
 */
// time-limit: 300s
import { test } from 'uvu';
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

async function withLog(rule: string, instead: string): Promise<BootstrapRules> {
  const file = 'src/follower/bootstrap/compacted-log.ts';
  const { CompactedLog: Log } = await leftOut<{ CompactedLog: typeof CompactedLog }>(
    file,
    rule,
    instead,
  );
  return { ...rightRules, Log };
}

async function withHorizon(rule: string, instead: string): Promise<BootstrapRules> {
  const file = 'src/follower/bootstrap/horizon.ts';
  return { ...rightRules, horizon: await leftOut<typeof horizonRules>(file, rule, instead) };
}

async function withExactness(rule: string, instead: string): Promise<BootstrapRules> {
  const file = 'src/follower/state/exactness.ts';
  return { ...rightRules, exactness: await leftOut<typeof exactnessRules>(file, rule, instead) };
}

async function withReader(rule: string, instead: string): Promise<BootstrapRules> {
  const file = 'src/follower/apply/aligner.ts';
  const { Aligner: Reader } = await leftOut<{ Aligner: typeof Aligner }>(file, rule, instead);
  return { ...rightRules, Reader };
}

async function found(rules: BootstrapRules, harm = wrongRows): Promise<void> {
  await breaks(bootstrapping(rules), runsMax, harm);
}

const wrongRows = /the rows are not those of|that this node does not have/;

async function withSurvey(rule: string, instead: string): Promise<BootstrapRules> {
  const file = 'src/follower/bootstrap/topic-survey.ts';
  const { TopicSurvey: Survey } = await leftOut<{ TopicSurvey: typeof TopicSurvey }>(
    file,
    rule,
    instead,
  );
  return { ...rightRules, Survey };
}

test('found when a void reread or truncate empties a table', async () => {
  const rule = ' || isVoid(position, epochs)) continue;';
  await found(await withSurvey(rule, ') continue;'));
});

test('found when what lies behind the checkpoint empties a table', async () => {
  await found(await withSurvey('!isCovered(position, checkpoint)', 'false'));
});

test('found when only the first emptying of a table counts', async () => {
  const rule = 'comparePositions(known, position) > 0';
  await found(await withSurvey(rule, 'comparePositions(known, position) < 0'));
});

test('found when what lies below a reread stays', async () => {
  await found(await withLog('emptied !== undefined && ', 'emptied !== undefined && false && '));
});

test('found when the node is exact where its reading ends', async () => {
  await found(
    await withExactness(
      'horizon.every((offset, partition) =>',
      '[0n].every((offset, partition) =>',
    ),
  );
});

test('found when half a batch behind the last checkpoint does not count', async () => {
  await found(await withHorizon('if (offset >= (horizon[partition] ?? 0n))', 'if (offset < 0n)'));
});

test('found when half a batch is forgotten whose tombstones have expired', async () => {
  await found(await withHorizon('end.checkpointAgeMs < deleteRetentionMs * usableShare', 'true'));
});

test('found when unhealed rows are taken for whole', async () => {
  await found(await withExactness('unhealed === null && unfinished', 'unfinished'));
});

test('found when an epoch begin is taken for whole', async () => {
  await found(await withExactness('begin !== null && begin.base === null', 'begin !== null'));
});

test('found when a reading may take longer than tombstones are kept', async () => {
  await found(await withHorizon('readMs >= deleteRetentionMs * usableShare', 'readMs < 0'));
});

test('found when another replica may be read on', async () => {
  await found(
    await withHorizon('broker !== null && known !== broker ? [partition]', 'broker !== null ? []'),
  );
});

test('found when records behind the reading are not counted', async () => {
  await found(await withReader('count === counted)', 'true)'));
});

test('found when a point behind the reading need not continue the checkpoint', async () => {
  const rule = 'compareEpochLsn(point.previous.at, this.#checkpoint.at) !== 0';
  // The counts are a second net, which takes the gap for damage.
  await found(
    await withReader(rule, 'false'),
    /the rows are not those of|record counts do not match/,
  );
});

test('found when partitions are read one after the other', async () => {
  await found({ ...rightRules, inOrder: false });
});

test.run();
