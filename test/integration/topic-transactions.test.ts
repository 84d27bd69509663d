/**
 * The transactional producer against a real broker: what is committed is read whole, what is not is
 * never read, another opening of the same transactional id fences the first, and nothing of a
 * failed producer is used again.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { createTransactionalProducer } from '../../src/topic/kafka/transactional-producer.ts';
import type { OutgoingRecord } from '../../src/topic/log.ts';
import {
  readUpTo,
  record,
  rejection,
  stableOffsets,
  type TopicStack,
  texts,
  useTopics,
} from '../support/topic-stack.ts';

let topics: TopicStack;

test.before(async () => {
  topics = await useTopics();
});

test.after(async () => {
  await topics.close();
});

test('a transaction is not read before the commit, and whole after it', async () => {
  const topic = await topics.topic(2);
  const producer = topics.producer(topic, 2);
  const reader = topics.reader(topic, 2);
  await producer.open();
  await producer.send([record(0, 'a', '1'), record(1, 'b', '1'), record(0, 'c', null)]);
  await producer.send([record(0, 'a', '2')]);
  const start = new Map([
    [0, 0n],
    [1, 0n],
  ]);
  const before = await reader.fetch(start, { maxWaitMs: 300 });
  assert.equal(
    before.map(({ records, nextOffset }) => [records.length, nextOffset]),
    [
      [0, 0n],
      [0, 0n],
    ],
  );
  assert.equal(await producer.commit(), [2n, 0n]);
  const first = await readUpTo(reader, 0, 4n);
  assert.equal(texts(first.records), ['a=1', 'c=', 'a=2']);
  assert.is(first.records[1]?.value, null);
  assert.is(first.records[0]?.headers['position']?.toString(), 'test');
  const second = await readUpTo(reader, 1, 2n);
  assert.equal(texts(second.records), ['b=1']);
});

test('transactions follow one another, and an empty one sends no request', async () => {
  const topic = await topics.topic(2);
  const producer = topics.producer(topic, 2);
  await producer.open();
  assert.equal(await producer.commit(), [null, null]);
  for (let turn = 0; turn < 20; turn += 1) {
    await producer.send([record(1, 'k', String(turn))]);
    // One record and one commit marker each.
    assert.equal(await producer.commit(), [null, BigInt(turn * 2)]);
  }
  const { records } = await readUpTo(topics.reader(topic, 2), 1, 40n);
  assert.equal(
    texts(records),
    Array.from({ length: 20 }, (_, turn) => `k=${turn}`),
  );
});

test('what a closed producer left open is aborted by the next open', async () => {
  const topic = await topics.topic(1);
  const reader = topics.reader(topic, 1);
  const left = topics.producer(topic, 1);
  await left.open();
  await left.send([record(0, 'lost', '1'), record(0, 'lost', '2')]);
  await left.close();
  assert.equal(await stableOffsets(reader, -1n), [0n]);
  const next = topics.producer(topic, 1);
  await next.open();
  // Two records and the abort marker are decided when open() returns.
  assert.equal(await stableOffsets(reader, -1n), [3n]);
  await next.send([record(0, 'kept', '1')]);
  assert.equal(await next.commit(), [3n]);
  const { records, nextOffset } = await readUpTo(reader, 0, 5n);
  assert.equal(texts(records), ['kept=1']);
  assert.is(nextOffset, 5n);
});

test('a second open fences the first, whatever it does next', async () => {
  const topic = await topics.topic(1);
  const [committing, sending, second] = [1, 2, 3].map(() => topics.producer(topic, 1));
  assert.ok(committing && sending && second);
  await sending.open();
  await sending.send([record(0, 'first', '1')]);
  await sending.commit();
  await committing.open();
  await committing.send([record(0, 'fenced', '1')]);
  await second.open();
  const failures = [
    await rejection(committing.commit()),
    await rejection(sending.send([record(0, 'late', '1')])),
  ];
  for (const failure of failures) {
    assert.is(failure.code, 'LOST_LEADERSHIP');
    assert.match(failure.message, /another publisher took over/);
  }
  await second.send([record(0, 'second', '1')]);
  const [last] = await second.commit();
  const { records } = await readUpTo(topics.reader(topic, 1), 0, (last ?? 0n) + 2n);
  assert.equal(texts(records), ['first=1', 'second=1']);
});

test('a transaction of 20,000 records is cut into batches and stays one transaction', async () => {
  const topic = await topics.topic(3);
  const producer = topics.producer(topic, 3);
  const reader = topics.reader(topic, 3);
  await producer.open();
  const value = 'v'.repeat(150);
  const records: OutgoingRecord[] = Array.from({ length: 20_000 }, (_, index) =>
    record(index % 7 === 0 ? 1 : 0, `key-${index}`, value),
  );
  await producer.send(records);
  assert.equal(await stableOffsets(reader, -1n), [0n, 0n, 0n]);
  const inOne = records.filter(({ partition }) => partition === 1);
  const inZero = records.filter(({ partition }) => partition === 0);
  const committed = await producer.commit();
  assert.equal(committed, [BigInt(inZero.length - 1), BigInt(inOne.length - 1), null]);
  for (const [partition, sent] of [inZero, inOne].entries()) {
    const read = await readUpTo(reader, partition, BigInt(sent.length + 1));
    assert.equal(
      read.records.map(({ key }) => key.toString()),
      sent.map(({ key }) => key.toString()),
    );
  }
});

test('a record the topic does not take is named, and its transaction is never read', async () => {
  const topic = await topics.topic(1, {
    'max.message.bytes': '2000000',
    'segment.bytes': '16777216',
  });
  const producer = topics.producer(topic, 1);
  await producer.open();
  await producer.send([record(0, 'large', 'x'.repeat(1_500_000)), record(0, 'small', '1')]);
  await producer.commit();
  await producer.send([record(0, 'before', '1')]);
  const tooLarge = record(0, 'huge', 'x'.repeat(2_100_000));
  const failure = await rejection(producer.send([record(0, 'same', '1'), tooLarge]));
  assert.is(failure.code, 'RECORD_TOO_LARGE');
  assert.match(
    failure.message,
    new RegExp(`^huge takes 2100\\d{3} bytes, .* partition 0 of ${topic}`),
  );
  // Dead for ever, by the same error.
  assert.is(await rejection(producer.commit()), failure);
  assert.is(await rejection(producer.send([record(0, 'after', '1')])), failure);
  assert.is(await rejection(producer.open()), failure);
  const next = topics.producer(topic, 1);
  await next.open();
  const reader = topics.reader(topic, 1);
  const [stable] = await stableOffsets(reader, 2n);
  assert.equal(
    texts((await readUpTo(reader, 0, stable ?? 0n)).records).map((text) => text.slice(0, 6)),
    ['large=', 'small='],
  );
});

test('a transaction that outlives its timeout is no lost leadership', async () => {
  const topic = await topics.topic(1);
  const options = { topic, partitions: 1, transactionalId: topic, transactionTimeoutMs: 1_000 };
  const producer = createTransactionalProducer(topics.client, options);
  await producer.open();
  await producer.send([record(0, 'slow', '1')]);
  // Brokers look for expired transactions every 10 s.
  await stableOffsets(topics.reader(topic, 1), 1n);
  const failure = await rejection(producer.send([record(0, 'slow', '2')]));
  assert.is(failure.code, 'PREREQUISITE');
  assert.match(failure.message, /open for \d+ ms, its limit is 1000/);
  await producer.close();
});

test('wrong use is a bug, and ends the producer', async () => {
  const topic = await topics.topic(1);
  const unopened = topics.producer(topic, 1);
  assert.is((await rejection(unopened.send([]))).code, 'BUG');
  const producer = topics.producer(topic, 1);
  await producer.open();
  const overlapping = [
    producer.send([record(0, 'a', '1')]).catch((error: unknown) => error),
    rejection(producer.commit()),
  ];
  const [, failure] = await Promise.all(overlapping);
  assert.is((failure as UnderstudyError).code, 'BUG');
  assert.is(await rejection(producer.commit()), failure);
  const misdirected = topics.producer(topic, 1);
  await misdirected.open();
  assert.is((await rejection(misdirected.send([record(1, 'a', '1')]))).code, 'BUG');
});

test('another number of partitions, and a missing topic, are refused', async () => {
  const topic = await topics.topic(2);
  assert.is((await rejection(topics.producer(topic, 1).open())).code, 'TOPIC_MISMATCH');
  const missing = topics.producer(topics.stack.uniqueName('missing-'), 1);
  assert.is((await rejection(missing.open())).code, 'TOPIC_MISMATCH');
});

test('a topic that is re-created under a producer gets no record of it', async () => {
  const topic = await topics.topic(1);
  const producer = topics.producer(topic, 1);
  await producer.open();
  for (const value of ['1', '2', '3']) {
    await producer.send([record(0, 'a', value)]);
    await producer.commit();
  }
  await topics.recreate(topic, 1);
  // No answer shows that it is another topic now; only its offsets restart.
  const other = topics.producer(topic, 1, topics.client, `${topic}-other`);
  await other.open();
  await other.send([record(0, 'a', 'of another')]);
  await other.commit();
  const failure = await rejection(producer.send([record(0, 'a', '4')]));
  assert.is(failure.code, 'TOPIC_MISMATCH');
  assert.match(failure.message, /wrote at offset 2 of partition 0, where 5 is next/);
  await topics.producer(topic, 1).open();
  const [end = 0n] = await stableOffsets(topics.reader(topic, 1), 3n);
  const { records } = await readUpTo(topics.reader(topic, 1), 0, end);
  assert.equal(texts(records), ['a=of another']);
});

test.run();
