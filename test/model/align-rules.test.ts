/**
 * The rules that keep a follower's rows equal to its position, left out one at a time: the
 * histories of align.test.ts have to show the harm of each, or they would prove nothing.
 */
// runs: ci, since only a change of the model or of a rule's place can turn it red
// time-limit: 300s
import type fc from 'fast-check';
import { test } from 'uvu';
import type { Strike } from '../../scripts/mutations/struck-rule.ts';
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

async function withReader(rule: Strike): Promise<AlignRules> {
  const { Aligner: Reader } = await leftOut<{ Aligner: typeof Aligner }>(alignerFile, rule);
  return { ...rightRules, Reader };
}

async function withLimits(rule: Strike): Promise<AlignRules> {
  const { mayBegin, nextPortion, positionAfter } = await leftOut<Limits>(limitFile, rule);
  return { ...rightRules, mayBegin, nextPortion, positionAfter };
}

async function withFolding(rule: Strike): Promise<AlignRules> {
  const { coalesce } = await leftOut<Pick<AlignRules, 'coalesce'>>(foldingFile, rule);
  return { ...rightRules, coalesce };
}

async function found(property: Property, rules: AlignRules, harm: RegExp): Promise<void> {
  await breaks(property(rules), runsMax, harm);
}

const wrongRows = /the rows are not those of/;
const stopped = /record counts do not match/;

const uncounted: Strike = {
  rule: 'counts-compared',
  part: 'count === counted',
  replace: 'true',
};

test('found when records are not counted', async () => {
  const rules = await withReader(uncounted);
  await found(stopping, rules, /nothing stopped the follower/);
});

test('found when compacted batches are not detected by their counts', async () => {
  const rules = await withReader(uncounted);
  await found(compacted, rules, wrongRows);
});

test('found when a surplus is taken for a gap', async () => {
  const rules = await withReader({ rule: 'surplus-is-damage', replace: '' });
  await found(stopping, rules, /a gap is taken for a surplus/);
});

test('found when points of torn batches are not voided', async () => {
  const rules = await withReader({ rule: 'void-boundaries-dropped', replace: '' });
  await found(following, rules, stopped);
});

test('found when the content of torn batches is not dropped', async () => {
  const replace = `for (const held of this.#held) {
    if (first.kind === 'point') forget(held);
    held.boundary = null;
  }`;
  const rules = await withReader({ rule: 'void-content-dropped', replace });
  await found(following, rules, stopped);
});

test('found when a point need not continue the checkpoint', async () => {
  const rules = await withReader({ rule: 'point-continues-checkpoint', replace: '' });
  // Or it counts what the point before has counted already, and takes age for damage.
  await found(compacted, rules, /the rows are not those of|record counts do not match/);
});

test('found when a batch is handed out before all partitions hold its point', async () => {
  const replace = `if (!boundaries.some((boundary) => boundary !== null)) return null;
    boundaries.forEach((b, i) => {
      boundaries[i] = b ?? boundaries.find((other) => other !== null) ?? null;
    });`;
  const rules = await withReader({ rule: 'batch-in-every-partition', replace });
  // The counts are a second net: what they stop here is a log that is whole.
  await found(following, rules, stopped);
});

test('found when records at the place of an exact stop are skipped after it', async () => {
  const later = { part: '!isCovered(position, from)', replace: 'position.commitLsn > from.lsn' };
  const rules = await withFolding({ rule: 'window-by-end-lsn', ...later });
  await found(following, rules, wrongRows);
});

test('found when records at the place of an exact stop are applied before it', async () => {
  const inclusive = { part: 'isCovered(position, to)', replace: 'position.commitLsn <= to.lsn' };
  const rules = await withFolding({ rule: 'window-by-end-lsn', ...inclusive });
  await found(following, rules, wrongRows);
});

test('found when an exact stop applies its whole batch', async () => {
  const replace = 'const { from } = window, to = null;';
  const rules = await withFolding({ rule: 'exact-stop-inside-batch', replace });
  await found(following, rules, wrongRows);
});

test('found when an exact stop keeps the offsets behind its batch', async () => {
  const rules = await withLimits({ rule: 'exact-stop-keeps-offsets', replace: 'return all;' });
  await found(following, rules, /does not reach the end/);
});

test('found when a limit lets the next epoch begin', async () => {
  const rules = await withLimits({ rule: 'epoch-begin-within-limit', replace: 'return true;' });
  await found(following, rules, /is past the limit/);
});

test('found when folding ignores a truncate between two writes', async () => {
  const rules = await withFolding({ rule: 'barrier-after-earlier-rows', replace: '' });
  await found(following, rules, wrongRows);
});

test('found when upserts go before deletes', async () => {
  await found(following, { ...rightRules, deletesLast: true }, wrongRows);
});

test.run();
