/**
 * The rules that keep the log equal to the WAL, left out one at a time: the histories of
 * publish.test.ts have to show the harm of each, or they would prove nothing.
 */
// runs: ci, since only a change of the model or of a rule's place can turn it red
// time-limit: 300s
import { test } from 'uvu';
import type { Strike } from '../../scripts/mutations/struck-rule.ts';
import type { Batcher } from '../../src/leader/stream/batcher.ts';
import type { PublishLoop } from '../../src/leader/stream/publish-loop.ts';
import type { StreamRun } from '../../src/leader/stream/stream-run.ts';
import { leftOut } from './left-out.ts';
import { publishing } from './publish-histories.ts';
import { type PublishRules, rightRules } from './publish-world.ts';
import { breaks } from './random-runs.ts';

const runsMax = 30_000;
const loopFile = 'src/leader/stream/publish-loop.ts';
const batcherFile = 'src/leader/stream/batcher.ts';
const runFile = 'src/leader/stream/stream-run.ts';
/** What an aligner says of a batch; the second is to replace the first. */
const miscounted = /does not add up|record counts do not match/;
const tooEarly = /was confirmed, the log holds up to/;

async function withLoop(...rules: readonly Strike[]): Promise<PublishRules> {
  const { PublishLoop: Loop } = await leftOut<{ PublishLoop: typeof PublishLoop }>(
    loopFile,
    ...rules,
  );
  return { ...rightRules, Loop };
}

async function withBatches(rule: Strike): Promise<PublishRules> {
  const { Batcher: Batches } = await leftOut<{ Batcher: typeof Batcher }>(batcherFile, rule);
  return { ...rightRules, Batches };
}

async function withRun(rule: Strike): Promise<PublishRules> {
  const { StreamRun: Run } = await leftOut<{ StreamRun: typeof StreamRun }>(runFile, rule);
  return { ...rightRules, Run };
}

async function found(rules: PublishRules, harm: RegExp): Promise<void> {
  await breaks(publishing(rules), runsMax, harm);
}

test('found when LSN + 1 is confirmed', async () => {
  const next = { part: 'point.upto', replace: '(point.upto + 1n) as never' };
  await found(await withLoop({ rule: 'confirm-exact-end-lsn', ...next }), tooEarly);
});

test('found when WAL is confirmed before the Kafka commit', async () => {
  const replace = 'this.#parts.wal.confirm(point.upto); $&';
  await found(await withLoop({ rule: 'commit-before-confirm', replace }), tooEarly);
});

test('found when an answered commit is confirmed before it was read back', async () => {
  const replace = 'wal.confirm(point.upto); $&';
  const rules = await withLoop({ rule: 'read-back-before-confirm', replace });
  await found(rules, /ahead of the topic|was confirmed, the log holds up to/);
});

test('found when WAL is confirmed as it is received', async () => {
  const replace = `$&
    if (message.kind === 'commit') this.#parts.wal.confirm(message.commitEndLsn);`;
  await found(await withLoop({ rule: 'receipt-is-not-confirmed', replace }), tooEarly);
});

test('found when streaming begins past the checkpoint, at a commit record', async () => {
  const replace = 'const start = (checkpoint.at.lsn + 1n) as never;';
  const rules = await withRun({ rule: 'start-at-checkpoint', replace });
  await found(rules, /the log is not the WAL/);
});

test('found when a restart continues the open batch, from memory', async () => {
  await found({ ...rightRules, ownsEpoch: false }, miscounted);
});

test('found when the end of the log is read without a fence', async () => {
  await found({ ...rightRules, fences: false }, miscounted);
});

test('found when the counts of a batch are added to the next one', async () => {
  const replace = 'this.#counts = [...this.#counts];';
  await found(await withBatches({ rule: 'counts-start-at-zero', replace }), miscounted);
});

test('found when a keepalive inside of a transaction moves its end', async () => {
  const inside = { part: '!this.#openTransaction && ', replace: '' };
  const rules = await withBatches({ rule: 'keepalive-outside-transaction', ...inside });
  await found(rules, /the log is not the WAL/);
});

test('found when a batch ends inside of a transaction', async () => {
  const inside = { part: '!this.#openTransaction && ', replace: '' };
  await found(await withBatches({ rule: 'batch-of-whole-transactions', ...inside }), miscounted);
});

test('found when a named point does not end its batch', async () => {
  const rules = await withBatches({ rule: 'label-ends-batch', replace: '' });
  await found(rules, /labels do not end their batches/);
});

test('found when the leader waits without end for a batch that stays unread', async () => {
  const rules = await withLoop({ rule: 'unread-commit-ends-run', replace: '' });
  await found(rules, /waits for a hidden batch without end/);
});

test('found when WAL is confirmed before the label is in the control log', async () => {
  const later = {
    part: 'await recordLabel(point.label, point, checkpoint);',
    replace: 'recordLabel(point.label, point, checkpoint).catch(() => undefined);',
  };
  const rules = await withLoop({ rule: 'label-before-confirm', ...later });
  await found(rules, /the control log does not have every label/);
});

test('found when a point is committed before the previous one is in every partition', async () => {
  const rules = await withLoop(
    { rule: 'settle-before-next-commit', replace: '' },
    { rule: 'point-continues-seen-point', replace: '' },
  );
  await found(rules, /that another lacks|the control log does not have every label/);
});

test('found when a batch follows a named point whose label could not be recorded', async () => {
  const ignored = { part: 'this.#failure !== null || ', replace: '' };
  const rules = await withLoop({ rule: 'point-continues-seen-point', ...ignored });
  await found(rules, /the control log does not have every label/);
});

test('found when a restart does not record the label of the last point', async () => {
  const rules = await withRun({ rule: 'restart-records-label', replace: '' });
  await found(rules, /the control log does not have every label/);
});

test.run();
