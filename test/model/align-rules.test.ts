/**
 * The rules that keep a follower's rows equal to its position, left out one at a time: the
 * histories of align.test.ts have to show the harm of each, or they would prove nothing.
 */
// time-limit: 300s
import type fc from 'fast-check';
import { test } from 'uvu';
import type { Aligner } from '../../src/follower/apply/aligner.ts';
import { compacted, following, stopping } from './align-properties.ts';
import { type AlignRules, rightRules } from './align-world.ts';
import { leftOut } from './left-out.ts';
import { breaks } from './random-runs.ts';

type Limits = Pick<AlignRules, 'mayBegin' | 'nextPortion' | 'positionAfter'>;
type Property = (rules: AlignRules) => fc.IProperty<unknown>;

const runsMax = 20_000;
const alignerFile = 'src/follower/apply/aligner.ts';
const limitFile = 'src/follower/apply/apply-portion.ts';
const foldingFile = 'src/follower/apply/coalesce.ts';

async function withReader(rule: string, instead: string): Promise<AlignRules> {
  const { Aligner: Reader } = await leftOut<{ Aligner: typeof Aligner }>(
    alignerFile,
    rule,
    instead,
  );
  return { ...rightRules, Reader };
}

async function withLimits(rule: string, instead: string): Promise<AlignRules> {
  const { mayBegin, nextPortion, positionAfter } = await leftOut<Limits>(limitFile, rule, instead);
  return { ...rightRules, mayBegin, nextPortion, positionAfter };
}

async function withFolding(rule: string, instead: string): Promise<AlignRules> {
  const { coalesce } = await leftOut<Pick<AlignRules, 'coalesce'>>(foldingFile, rule, instead);
  return { ...rightRules, coalesce };
}

async function found(property: Property, rules: AlignRules, harm: RegExp): Promise<void> {
  await breaks(property(rules), runsMax, harm);
}

const wrongRows = /the rows are not those of/;
const stopped = /record counts do not match/;

test('found when records are not counted', async () => {
  const rules = await withReader('count === counted)', 'true)');
  await found(stopping, rules, /nothing stopped the follower/);
});

test('found when compacted batches are not detected by their counts', async () => {
  const rules = await withReader('count === counted)', 'true)');
  await found(compacted, rules, wrongRows);
});

test('found when a surplus is taken for a gap', async () => {
  const rules = await withReader('stranger != null || isSurplus', 'false');
  await found(stopping, rules, /a gap is taken for a surplus/);
});

test('found when points of torn batches are not voided', async () => {
  await found(following, await withReader('this.#dropVoided(boundaries)', 'false'), stopped);
});

test('found when the content of torn batches is not dropped', async () => {
  const drop = 'for (const held of this.#held) forget(held);';
  const keep = `for (const held of this.#held) {
    if (first.kind === 'point') forget(held);
    held.boundary = null;
  }`;
  await found(following, await withReader(drop, keep), stopped);
});

test('found when a point need not continue the checkpoint', async () => {
  const rules = await withReader(
    'compareEpochLsn(point.previous.at, this.#checkpoint.at) !== 0',
    'false',
  );
  // Or it counts what the point before has counted already, and takes age for damage.
  await found(compacted, rules, /the rows are not those of|record counts do not match/);
});

test('found when a batch is handed out before all partitions hold its point', async () => {
  const all = 'if (!boundaries.every((boundary) => boundary !== null)) return null;';
  const some = 'if (!boundaries.some((boundary) => boundary !== null)) return null;';
  const rules = await withReader(
    all,
    `${some} boundaries.forEach((b, i) => {
    boundaries[i] = b ?? boundaries.find((other) => other !== null) ?? null; });`,
  );
  // The counts are a second net: what they stop here is a log that is whole.
  await found(following, rules, stopped);
});

test('found when records at the place of an exact stop are skipped after it', async () => {
  const rule = 'return !isCovered(position, from)';
  await found(
    following,
    await withFolding(rule, 'return position.commitLsn > from.lsn'),
    wrongRows,
  );
});

test('found when records at the place of an exact stop are applied before it', async () => {
  const rules = await withFolding(
    `(to === null || isCovered(position, to));\n  });`,
    `(to === null || position.commitLsn <= to.lsn);\n  });`,
  );
  await found(following, rules, wrongRows);
});

test('found when an exact stop applies its whole batch', async () => {
  const rule = 'const { from, to } = window;';
  await found(following, await withFolding(rule, 'const { from } = window, to = null;'), wrongRows);
});

test('found when an exact stop keeps the offsets behind its batch', async () => {
  const rules = await withLimits('stopAt === null ? all : all.slice(0, -1)', 'all');
  await found(following, rules, /does not reach the end/);
});

test('found when a limit lets the next epoch begin', async () => {
  const rules = await withLimits('compareEpochLsn(epoch.checkpoint.at, limit.at) <= 0', 'true');
  await found(following, rules, /is past the limit/);
});

test('found when folding ignores a truncate between two writes', async () => {
  const rule = 'flush();\n      pushBarrier(steps, barrier);';
  await found(following, await withFolding(rule, 'pushBarrier(steps, barrier);'), wrongRows);
});

test('found when upserts go before deletes', async () => {
  await found(following, { ...rightRules, deletesLast: true }, wrongRows);
});

test.run();
