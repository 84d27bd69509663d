/**
 * Answers of the broker that are lost, and requests that arrive late: the request has been served
 * or will be, and the client does not know it. The producer must never use a sequence number or an
 * identity again, and the log must hold what the transactions committed.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { connectKafka, type KafkaClient } from '../../src/topic/kafka/client.ts';
import { createPlainProducer } from '../../src/topic/kafka/plain-producer.ts';
import { CarelessProducer } from '../support/careless-producer.ts';
import { apiKeys, errorCodeOf, fencedCodes, KafkaProxy } from '../support/kafka-proxy.ts';
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
let proxy: KafkaProxy;
let lossy: KafkaClient;

test.before(async () => {
  topics = await useTopics();
  proxy = await KafkaProxy.start(topics.stack.brokers);
  lossy = connectKafka({ brokers: proxy.addresses, clientId: 'lossy' }, testLog);
});

test.after(async () => {
  await topics.close();
  await proxy.close();
});

test('a lost answer to a write ends the producer; the next one writes once', async () => {
  const topic = await topics.topic(1);
  const first = topics.producer(topic, 1, lossy);
  await first.open();
  await first.send([record(0, 'a', '1')]);
  await first.commit();
  proxy.loseAnswer(apiKeys.produce);
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

test('a lost answer to a commit rejects, and the log shows the commit', async () => {
  const topic = await topics.topic(1);
  const first = topics.producer(topic, 1, lossy);
  await first.open();
  await first.send([record(0, 'a', '1'), record(0, 'a', '2')]);
  proxy.loseAnswer(apiKeys.endTransaction);
  assert.is((await rejection(first.commit())).code, 'KAFKA_UNREACHABLE');
  const second = topics.producer(topic, 1, lossy);
  await second.open();
  const reader = topics.reader(topic, 1);
  assert.equal(await stableOffsets(reader, 2n), [3n]);
  assert.equal(texts((await readUpTo(reader, 0, 3n)).records), ['a=1', 'a=2']);
});

test('a commit that arrives late finds its producer fenced', async () => {
  const topic = await topics.topic(2);
  const first = topics.producer(topic, 2, lossy);
  await first.open();
  await first.send([record(0, 'given up', '1')]);
  const late = proxy.holdRequest(apiKeys.endTransaction);
  const commit = rejection(first.commit());
  await late.caught;
  late.giveUp();
  assert.is((await commit).code, 'KAFKA_UNREACHABLE');
  const second = topics.producer(topic, 2, lossy);
  await second.open();
  await second.send([record(0, 'half', '1')]);
  assert.ok(fencedCodes.has(errorCodeOf(await late.release())));
  await second.send([record(1, 'other half', '1')]);
  const ends = await second.commit();
  const reader = topics.reader(topic, 2);
  const halves = ends.map((end, partition) => readUpTo(reader, partition, (end ?? 0n) + 2n));
  const [zero, one] = await Promise.all(halves);
  assert.equal(texts(zero?.records ?? []), ['half=1']);
  assert.equal(texts(one?.records ?? []), ['other half=1']);
});

test('without the fence a late commit commits half of the next transaction', async () => {
  const topic = await topics.topic(2);
  const careless = await CarelessProducer.open(lossy, topic);
  await careless.begin([0, 1]);
  await careless.write(record(0, 'given up', '1'));
  const late = proxy.holdRequest(apiKeys.endTransaction);
  const commit = rejection(careless.end('commit'));
  await late.caught;
  late.giveUp();
  await commit;
  // The same identity continues: it aborts what it could not commit, and begins the next one.
  await careless.end('abort');
  await careless.begin([0, 1]);
  await careless.write(record(0, 'half', '1'));
  assert.is(errorCodeOf(await late.release()), 0, 'the broker takes it for a commit of this one');
  await rejection(careless.write(record(1, 'other half', '1')));
  const reader = topics.reader(topic, 2);
  const [stable] = await stableOffsets(reader, 1n);
  assert.equal(texts((await readUpTo(reader, 0, stable ?? 0n)).records), ['half=1']);
  careless.close();
});

test('a reader continues after a lost answer at the same offset', async () => {
  const topic = await topics.topic(1);
  const producer = topics.producer(topic, 1);
  await producer.open();
  await producer.send([record(0, 'a', '1'), record(0, 'b', '1')]);
  await producer.commit();
  const reader = topics.reader(topic, 1, lossy);
  await stableOffsets(reader, 2n);
  proxy.loseAnswer(apiKeys.fetch);
  const [fetched] = await reader.fetch(new Map([[0, 1n]]), { maxWaitMs: 5_000 });
  assert.equal(texts(fetched?.records ?? []), ['b=1']);
  assert.is(fetched?.nextOffset, 3n);
});

test('the plain producer rejects after a lost answer, and appends nothing twice', async () => {
  const topic = await topics.topic(1);
  const producer = createPlainProducer(lossy, topic);
  assert.is((await producer.append('claim', '1')).offset, 0n);
  proxy.loseAnswer(apiKeys.produce);
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
