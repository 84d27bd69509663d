/**
 * Answers that get lost between the broker and us: what was asked for has happened, and we do not
 * know it. The producer must never use a sequence number again, and the log must be what the
 * transactions say.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors.ts';
import { connectKafka, type KafkaClient } from '../../src/topic/kafka-client.ts';
import { createPlainProducer } from '../../src/topic/plain-producer.ts';
import { apiKeys, type LossyProxy, startLossyProxy } from '../support/lossy-proxy.ts';
import {
  readUpTo,
  record,
  rejection,
  stableOffsets,
  type TopicStack,
  testLog,
  texts,
  useTopics,
} from '../support/topic-stack.ts';

let topics: TopicStack;
let proxy: LossyProxy;
let lossy: KafkaClient;

test.before(async () => {
  topics = await useTopics();
  proxy = await startLossyProxy(topics.stack.brokers[0] ?? '');
  lossy = connectKafka({ brokers: [proxy.address], clientId: 'lossy' }, testLog);
});

test.after(async () => {
  await topics.close();
  await proxy.close();
});

test('a lost answer to a write kills; the next producer writes other records once', async () => {
  const topic = await topics.topic(1);
  const first = topics.producer(topic, 1, lossy);
  await first.open();
  await first.send([record(0, 'a', '1')]);
  await first.commit();
  proxy.loseNext(apiKeys.produce);
  const failure = await rejection(first.send([record(0, 'a', 'never seen')]));
  assert.is(failure.code, 'KAFKA_UNREACHABLE');
  assert.is(await rejection(first.send([record(0, 'a', '2')])), failure);
  assert.is(await rejection(first.commit()), failure);
  const second = topics.producer(topic, 1, lossy);
  await second.open();
  await second.send([record(0, 'b', '1'), record(0, 'b', '2')]);
  const [last] = await second.commit();
  const { records } = await readUpTo(topics.reader(topic, 1), 0, (last ?? 0n) + 2n);
  assert.equal(texts(records), ['a=1', 'b=1', 'b=2']);
});

test('a lost answer to a commit rejects, and the log says that it happened', async () => {
  const topic = await topics.topic(1);
  const first = topics.producer(topic, 1, lossy);
  await first.open();
  await first.send([record(0, 'a', '1'), record(0, 'a', '2')]);
  proxy.loseNext(apiKeys.endTransaction);
  assert.is((await rejection(first.commit())).code, 'KAFKA_UNREACHABLE');
  const second = topics.producer(topic, 1, lossy);
  await second.open();
  const reader = topics.reader(topic, 1);
  assert.equal(await stableOffsets(reader, 2n), [3n]);
  assert.equal(texts((await readUpTo(reader, 0, 3n)).records), ['a=1', 'a=2']);
});

test('a reader goes on after a lost answer at the same offset', async () => {
  const topic = await topics.topic(1);
  const producer = topics.producer(topic, 1);
  await producer.open();
  await producer.send([record(0, 'a', '1'), record(0, 'b', '1')]);
  await producer.commit();
  const reader = topics.reader(topic, 1, lossy);
  await stableOffsets(reader, 2n);
  proxy.loseNext(apiKeys.fetch);
  const [fetched] = await reader.fetch(new Map([[0, 1n]]), { maxWaitMs: 5_000 });
  assert.equal(texts(fetched?.records ?? []), ['b=1']);
  assert.is(fetched?.nextOffset, 3n);
});

test('the plain producer rejects after a lost answer, and lays nothing down twice', async () => {
  const topic = await topics.topic(1);
  const producer = createPlainProducer(lossy, topic);
  assert.is((await producer.append('claim', '1')).offset, 0n);
  proxy.loseNext(apiKeys.produce);
  const lost = await rejection(producer.append('claim', '2'));
  assert.instance(lost, UnderstudyError);
  assert.is((lost as UnderstudyError).code, 'KAFKA_UNREACHABLE');
  const both = [producer.append('x', null), producer.append('y', '1')];
  assert.equal(
    (await Promise.all(both)).map((one) => one.offset),
    [2n, 3n],
  );
  const { records } = await readUpTo(topics.reader(topic, 1), 0, 4n);
  assert.equal(texts(records), ['claim=1', 'claim=2', 'x=', 'y=1']);
  await producer.close();
  assert.is((await rejection(producer.append('z', '1'))).name, 'AbortError');
});

test.run();
