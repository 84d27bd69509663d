/**
 * The rules that keep the log equal to the WAL, left out one at a time: the histories of
 * publish.test.ts have to show the harm of each, or they would prove nothing.
 */
// time-limit: 300s
import { test } from 'uvu';
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
/** What an aligner says of a batch; the second is to replace the first. */
const miscounted = /does not add up|record counts do not match/;
const tooEarly = /was confirmed, the log holds up to/;

async function withLoop(rule: string, instead: string): Promise<PublishRules> {
  const { PublishLoop: Loop } = await leftOut<{ PublishLoop: typeof PublishLoop }>(
    loopFile,
    rule,
    instead,
  );
  return { ...rightRules, Loop };
}

async function withBatches(rule: string, instead: string): Promise<PublishRules> {
  const { Batcher: Batches } = await leftOut<{ Batcher: typeof Batcher }>(
    batcherFile,
    rule,
    instead,
  );
  return { ...rightRules, Batches };
}

async function withRun(rule: string, instead: string): Promise<PublishRules> {
  const { StreamRun: Run } = await leftOut<{ StreamRun: typeof StreamRun }>(
    'src/leader/stream/stream-run.ts',
    rule,
    instead,
  );
  return { ...rightRules, Run };
}

async function found(rules: PublishRules, harm: RegExp): Promise<void> {
  await breaks(publishing(rules), runsMax, harm);
}

test('found when LSN + 1 is confirmed', async () => {
  await found(
    await withLoop('wal.confirm(point.upto)', 'wal.confirm(point.upto + 1n as never)'),
    tooEarly,
  );
});

test('found when WAL is confirmed before the Kafka commit', async () => {
  const commit = 'const offsets = await producer.commit();';
  const early = `this.#parts.wal.confirm(point.upto);\n${commit}`;
  await found(await withLoop(commit, early), tooEarly);
});

test('found when an answered commit is confirmed before it was read back', async () => {
  const waits = 'while (!this.#isSeen(checkpoint.at)) {';
  const rules = await withLoop(waits, `wal.confirm(point.upto);\n${waits}`);
  await found(rules, /ahead of the topic|was confirmed, the log holds up to/);
});

test('found when WAL is confirmed as it is received', async () => {
  const received = 'const { message } = event;';
  const confirm = `if (message.kind === 'commit') this.#parts.wal.confirm(message.commitEndLsn);`;
  await found(await withLoop(received, `${received}\n${confirm}`), tooEarly);
});

test('found when streaming begins past the checkpoint, at a commit record', async () => {
  const rules = await withRun('= checkpoint.at.lsn;', '= (checkpoint.at.lsn + 1n) as never;');
  await found(rules, /the log is not the WAL/);
});

test('found when a restart continues the open batch, from memory', async () => {
  await found({ ...rightRules, ownsEpoch: false }, miscounted);
});

test('found when the end of the log is read without a fence', async () => {
  await found({ ...rightRules, fences: false }, miscounted);
});

test('found when the counts of a batch are added to the next one', async () => {
  const reset = 'this.#counts = new Array(partitions).fill(0);';
  await found(await withBatches(reset, 'this.#counts = [...this.#counts];'), miscounted);
});

test('found when a keepalive inside of a transaction moves its end', async () => {
  const rules = await withBatches('!this.#openTransaction && walEnd', 'walEnd');
  await found(rules, /the log is not the WAL/);
});

test('found when a batch ends inside of a transaction', async () => {
  const whole = '!this.#openTransaction && this.#hasTransactions()';
  await found(await withBatches(whole, 'this.#hasTransactions()'), miscounted);
});

test('found when a named point does not end its batch', async () => {
  const ends = 'if (this.#label !== null && !this.#openTransaction) return false;';
  await found(await withBatches(ends, ''), /labels do not end their batches/);
});

test('found when the leader waits without end for a batch that stays unread', async () => {
  const ends = 'if (this.#emptyFetches >= emptyFetchesMax)';
  await found(
    await withLoop(ends, 'if (this.#emptyFetches < 0)'),
    /waits for a hidden batch without end/,
  );
});

test('found when WAL is confirmed before the label is in the control log', async () => {
  const recorded = 'await recordLabel(point.label, point, checkpoint);';
  const later = 'recordLabel(point.label, point, checkpoint).catch(() => undefined);';
  await found(await withLoop(recorded, later), /the control log does not have every label/);
});

test('found when a point is committed before the previous one is in every partition', async () => {
  const waits = 'if (this.#failure !== null || !this.#isSeen(this.#answeredAt)) return;';
  const rules = await withLoop(`await this.#settled;\n    ${waits}`, '');
  await found(rules, /that another lacks|the control log does not have every label/);
});

test('found when a batch follows a named point whose label could not be recorded', async () => {
  const rules = await withLoop(
    'if (this.#failure !== null || !this.#isSeen(',
    'if (!this.#isSeen(',
  );
  await found(rules, /the control log does not have every label/);
});

test('found when a restart does not record the label of the last point', async () => {
  const rule = 'if (lastPoint?.label != null) ';
  await found(
    await withRun(`${rule}await recordLabel(lastPoint.label, lastPoint, checkpoint);`, ''),
    /the control log does not have every label/,
  );
});

test.run();
