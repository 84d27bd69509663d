/**
 * The control log against a real broker: races for an epoch have one winner on whom all agree, a
 * verified state holds what others wrote before, compaction changes nothing, and a wait ends with
 * the error when the log cannot be read.
 */
// time-limit: 180s
import { randomUUID } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { toLsn } from '../../src/change/lsn.ts';
import { isMine, nextClaim, ownerOf } from '../../src/control/claim.ts';
import { type ControlLog, openControlLog } from '../../src/control/control-log.ts';
import type { ControlRecord } from '../../src/control/control-records.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import type { Logger } from '../../src/logger.ts';
import { createPlainProducer } from '../../src/topic/kafka/plain-producer.ts';
import type { CommittedReader } from '../../src/topic/log.ts';
import { controlTopicSettings } from '../../src/topic/records/layout.ts';
import { sleep } from '../../src/waiting.ts';
import { rejection, type TopicStack, useTopics } from '../support/topic-stack.ts';
import { until, untilMs } from '../support/until.ts';

/** What is logged here is caused on purpose. */
const nothing = () => undefined;
const quiet: Logger = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => quiet,
};
const time = '2026-03-01T10:00:00.000Z';
/** Nothing here takes longer on a busy machine. */
const patienceMs = untilMs;

let topics: TopicStack;
const logs: ControlLog[] = [];

test.before(async () => {
  topics = await useTopics();
});

test.after.each(async () => {
  await Promise.all(logs.splice(0).map((log) => log.close()));
});

test.after(async () => {
  await topics.close();
});

async function controlTopic(settings: Readonly<Record<string, string>> = {}): Promise<string> {
  return topics.topic(1, { ...controlTopicSettings(1), ...settings });
}

async function open(
  topic: string,
  node: string | null,
  wrap: (reader: CommittedReader) => CommittedReader = (reader) => reader,
): Promise<ControlLog> {
  const log = await openControlLog({
    reader: wrap(topics.reader(topic, 1)),
    producer: createPlainProducer(topics.client, topic),
    node,
    log: quiet,
    randomId: randomUUID,
    random: Math.random,
    sleep,
  });
  logs.push(log);
  return log;
}

/** Claims the epoch after the current one, as owning.ts has it done: append once, then verify. */
async function claim(log: ControlLog, node: string): Promise<boolean> {
  const next = nextClaim(log.state, node);
  await log.append({ kind: 'claim', ...next, id: randomUUID(), time });
  return isMine(await log.verify(patienceMs), node, next.epoch);
}

function point(label: string, lsn: bigint): ControlRecord {
  const at = { epoch: 1, lsn: toLsn(lsn) };
  return { kind: 'point', label, at, commitTimeMicros: 1n, offsets: [lsn] };
}

function codeOf(error: Error): string {
  return error instanceof UnderstudyError ? error.code : error.message;
}

test('in 50 races for an epoch exactly one node wins, and both read the same winner', async () => {
  const topic = await controlTopic();
  const [a, b] = await Promise.all([open(topic, 'a'), open(topic, 'b')]);
  for (let epoch = 1; epoch <= 50; epoch += 1) {
    const [wonByA, wonByB] = await Promise.all([claim(a, 'a'), claim(b, 'b')]);
    assert.is.not(wonByA, wonByB, `epoch ${epoch} has ${wonByA ? 'two winners' : 'no winner'}`);
    for (const log of [a, b]) {
      const owner = ownerOf(log.state);
      assert.equal([owner?.epoch, owner?.node], [epoch, wonByA ? 'a' : 'b']);
    }
  }
  const late = await open(topic, null);
  assert.equal(late.state.claims, a.state.claims);
  assert.is(late.state.claims.length, 50);
});

test('a verified state holds what other nodes wrote before', async () => {
  const topic = await controlTopic();
  const [a, b] = await Promise.all([open(topic, 'a'), open(topic, 'b')]);
  for (let number = 1; number <= 20; number += 1) {
    await b.append({ kind: 'start', node: 'b', number, time });
    const verified = await a.verify(patienceMs);
    assert.is(verified.startNumbers.get('b'), number);
  }
  // The nonce of the one may be gone by the time that of the other is read.
  await b.append({ kind: 'start', node: 'b', number: 21, time });
  const both = await Promise.all([a.verify(patienceMs), a.verify(patienceMs)]);
  for (const { startNumbers } of both) assert.is(startNumbers.get('b'), 21);
});

test('of two points of one label the first is kept, by later readers too', async () => {
  const topic = await controlTopic();
  const a = await open(topic, 'a');
  await a.append(point('x', 10n));
  await a.append(point('x', 20n));
  for (const { state } of [await verified(a), await open(topic, null)]) {
    assert.is(state.labels.get('x')?.at.lsn, 10n);
  }
});

async function verified(log: ControlLog): Promise<ControlLog> {
  await log.verify(patienceMs);
  return log;
}

test('a request reaches the agent, and its answer the command', async () => {
  const topic = await controlTopic();
  const [agent, command] = await Promise.all([open(topic, 'b'), open(topic, null)]);
  const received = agent.waitFor(({ requests }) => requests.size > 0, patienceMs);
  const [id, args] = ['request-1', { drainTimeoutMs: 5 }];
  await command.append({
    kind: 'request',
    id,
    step: 'start',
    verb: 'switchover',
    node: 'b',
    args,
    time,
  });
  const request = (await received).requests.get(id)?.[0];
  assert.equal([request?.verb, request?.node, request?.args], ['switchover', 'b', args]);
  const answer = { kind: 'answer', request: id, node: 'b', error: null, time } as const;
  await agent.append({ ...answer, step: 'guard', result: null });
  await agent.append({ ...answer, step: 'done', result: { epoch: 2 } });
  await command.waitFor(() => command.answers(id).length === 2, patienceMs);
  assert.equal(
    command.answers(id).map(({ step }) => step),
    ['guard', 'done'],
  );
});

test('a log that Kafka compacted gives the same state', async () => {
  const topic = await controlTopic({
    'min.compaction.lag.ms': '0',
    'max.compaction.lag.ms': '100',
    'min.cleanable.dirty.ratio': '0.01',
    'segment.ms': '100',
  });
  const [a, b] = await Promise.all([open(topic, 'a'), open(topic, 'b')]);
  for (let epoch = 1; epoch <= 3; epoch += 1) {
    await Promise.all([claim(a, 'a'), claim(b, 'b')]);
    await a.append(point('same', BigInt(epoch)));
    await a.append({ kind: 'start', node: 'a', number: epoch, time });
  }
  const before = (await verified(a)).state;
  const reader = topics.reader(topic, 1);
  const starts = async (): Promise<number> => {
    // The segment that is written to is not compacted: each record begins another.
    await a.verify(patienceMs);
    const [fetched] = await reader.fetch(new Map([[0, 0n]]), { maxWaitMs: 0 });
    const keys = fetched?.records.map(({ key }) => key.toString()) ?? [];
    return keys.filter((key) => key === 'start/a').length;
  };
  await until('one start record of a is left', starts, {
    ...{ pollMs: 200, reached: (left) => left === 1 },
  });
  const late = await open(topic, 'c');
  assert.equal(late.state, before);
  assert.equal(a.state, before);
});

test('an unknown record ends the log, for present and later readers', async () => {
  const topic = await controlTopic();
  const a = await open(topic, 'a');
  const waiting = rejection(a.waitFor(() => false, patienceMs));
  const producer = createPlainProducer(topics.client, topic);
  await producer.append('council/1', '{"format":1,"kind":"council"}');
  await a.append({ kind: 'start', node: 'a', number: 1, time });
  await producer.close();
  assert.is(codeOf(await waiting), 'MESSAGE_UNKNOWN');
  assert.is(codeOf(await rejection(a.verify(patienceMs))), 'MESSAGE_UNKNOWN');
  assert.is((await a.ended)?.code, 'MESSAGE_UNKNOWN');
  assert.is(a.state.startNumbers.size, 0, 'a record after the unknown one was applied');
  assert.is(codeOf(await rejection(open(topic, 'b'))), 'MESSAGE_UNKNOWN');
});

test('every wait ends: by the time limit, by its signal, by closing', async () => {
  const topic = await controlTopic();
  const a = await open(topic, 'a');
  assert.is(codeOf(await rejection(a.waitFor(() => false, 50))), 'TIMED_OUT');
  const signal = AbortSignal.abort(new Error('enough'));
  assert.is(codeOf(await rejection(a.waitFor(() => false, patienceMs, signal))), 'enough');
  const abort = new AbortController();
  const aborted = rejection(a.waitFor(() => false, patienceMs, abort.signal));
  abort.abort(new Error('enough'));
  assert.is(codeOf(await aborted), 'enough');
  const closed = rejection(a.waitFor(() => false, patienceMs));
  await a.close();
  assert.is(codeOf(await closed), 'TIMED_OUT');
  assert.is(await a.ended, null);
});

test('a listener is called for every change until it is removed', async () => {
  const topic = await controlTopic();
  const a = await open(topic, 'a');
  const calls: number[] = [];
  const off = a.onChange(({ startNumbers }) => calls.push(startNumbers.get('a') ?? 0));
  await a.append({ kind: 'start', node: 'a', number: 1, time });
  await a.verify(patienceMs);
  off();
  await a.append({ kind: 'start', node: 'a', number: 2, time });
  assert.is((await a.verify(patienceMs)).startNumbers.get('a'), 2);
  assert.is(calls.at(-1), 1);
});

test('a reader that fails is retried, and a wait fails when that lasts', async () => {
  const topic = await controlTopic();
  let failuresLeft = 0;
  const failing = (reader: CommittedReader): CommittedReader => ({
    watermarks: () => reader.watermarks(),
    close: () => reader.close(),
    fetch: async (from, options) => {
      const fetched = await reader.fetch(from, options);
      if (failuresLeft === 0) return fetched;
      failuresLeft -= 1;
      throw new UnderstudyError('KAFKA_UNREACHABLE', 'out of reach', 'Wait.');
    },
  });
  const a = await open(topic, 'a', failing);
  failuresLeft = 1;
  await a.append({ kind: 'start', node: 'a', number: 1, time });
  await a.waitFor(({ startNumbers }) => startNumbers.get('a') === 1, patienceMs);
  failuresLeft = 2;
  const waiting = rejection(a.waitFor(() => false, patienceMs));
  assert.is(codeOf(await waiting), 'KAFKA_UNREACHABLE');
  await a.append({ kind: 'start', node: 'a', number: 2, time });
  await a.waitFor(({ startNumbers }) => startNumbers.get('a') === 2, patienceMs);
});

test.run();
