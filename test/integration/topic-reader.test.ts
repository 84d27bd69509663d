/**
 * The committed reader against a real broker: it skips markers and aborted records without
 * returning them, reaches the last stable offset exactly, accepts no offset that is not in the log,
 * advances over batches that compaction emptied, and stops at once when it is closed.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import type { CommittedReader } from '../../src/topic/log.ts';
import { apiKeys, KafkaProxy } from '../support/kafka-proxy.ts';
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

test.before(async () => {
  topics = await useTopics();
});

test.after(async () => {
  await topics.close();
});

/** Ends what is open by a new producer, which is returned opened. */
async function reopened(topic: string, partitions = 1) {
  const producer = topics.producer(topic, partitions);
  await producer.open();
  return producer;
}

test('markers and aborted records are skipped, and the end is the last stable offset', async () => {
  const topic = await topics.topic(1);
  let producer = await reopened(topic);
  // Committed and aborted transactions in turn; the key of four zero bytes looks like the key of
  // an abort marker to a reader that judges by keys.
  const zeroKey = { ...record(0, '', 'zero'), key: Buffer.alloc(4) };
  const expected: string[] = [];
  for (let turn = 0; turn < 6; turn += 1) {
    const isAborted = turn % 2 === 1;
    await producer.send([zeroKey, record(0, `k${turn}`, isAborted ? 'aborted' : 'kept')]);
    await producer.send([record(0, `l${turn}`, isAborted ? 'aborted' : 'kept')]);
    if (isAborted) {
      await producer.close();
      producer = await reopened(topic);
    } else {
      await producer.commit();
      expected.push(`${Buffer.alloc(4)}=zero`, `k${turn}=kept`, `l${turn}=kept`);
    }
  }
  const reader = topics.reader(topic, 1);
  const [stable] = await stableOffsets(reader, 23n);
  assert.is(stable, 24n);
  const { records, nextOffset } = await readUpTo(reader, 0, 24n);
  assert.equal(texts(records), expected);
  assert.is(nextOffset, 24n);
  assert.equal(
    records.map(({ offset }) => Number(offset)),
    [0, 1, 2, 8, 9, 10, 16, 17, 18],
  );
  await assertSameFromEverywhere(
    reader,
    records.map(({ offset }) => Number(offset)),
    24,
  );
});

/** Any start gives the same records, with steps of one batch as well. */
async function assertSameFromEverywhere(
  reader: CommittedReader,
  offsets: readonly number[],
  end: number,
): Promise<void> {
  for (let start = 0; start < end; start += 1) {
    const seen: number[] = [];
    for (let at = BigInt(start); at < BigInt(end); ) {
      const options = { maxWaitMs: 1_000, maxBytes: 1 };
      const [fetched] = await reader.fetch(new Map([[0, at]]), options);
      assert.ok(fetched && fetched.nextOffset > at, `stuck at ${at}`);
      seen.push(...fetched.records.map(({ offset }) => Number(offset)));
      at = fetched.nextOffset;
    }
    assert.equal(
      seen,
      offsets.filter((offset) => offset >= start),
      `from ${start}`,
    );
  }
}

test('an open transaction hides itself and all after it, from plain writers too', async () => {
  const topic = await topics.topic(1);
  const holding = topics.producer(topic, 1);
  await holding.open();
  await holding.send([record(0, 'open', '1')]);
  const reader = topics.reader(topic, 1);
  const [fetched] = await reader.fetch(new Map([[0, 0n]]), { maxWaitMs: 200 });
  assert.equal(fetched?.records, []);
  assert.is(fetched?.nextOffset, 0n);
  assert.is(fetched?.lastStableOffset, 0n);
  await holding.commit();
  assert.is((await readUpTo(reader, 0, 2n)).records.length, 1);
});

test('a fetch waits for records, and is answered when they are committed', async () => {
  const topic = await topics.topic(1);
  const producer = await reopened(topic);
  const reader = topics.reader(topic, 1);
  await reader.watermarks();
  const startedMs = Date.now();
  const waiting = reader.fetch(new Map([[0, 0n]]), { maxWaitMs: 15_000 });
  await producer.send([record(0, 'a', '1')]);
  await producer.commit();
  const [fetched] = await waiting;
  assert.ok(Date.now() - startedMs < 10_000);
  assert.equal(texts(fetched?.records ?? []), ['a=1']);
});

test('every partition is fetched although the first ones fill the answer', async () => {
  const topic = await topics.topic(3);
  const producer = await reopened(topic, 3);
  const value = 'v'.repeat(5_000);
  for (let turn = 0; turn < 10; turn += 1) {
    await producer.send([0, 1, 2].map((partition) => record(partition, `k${turn}`, value)));
    await producer.commit();
  }
  const reader = topics.reader(topic, 3);
  await stableOffsets(reader, 19n);
  const at = new Map([0, 1, 2].map((partition) => [partition, 0n]));
  const counts = [0, 0, 0];
  // Each fetch has room for one batch of one partition.
  for (let fetches = 0; fetches < 80; fetches += 1) {
    for (const one of await reader.fetch(at, { maxWaitMs: 10, maxBytes: 1_000 })) {
      at.set(one.partition, one.nextOffset);
      counts[one.partition] = (counts[one.partition] ?? 0) + one.records.length;
    }
  }
  assert.equal(counts, [10, 10, 10]);
});

test('an answer that was changed on its way is fetched once more, and believed then', async () => {
  const topic = await topics.topic(1);
  const producer = await reopened(topic);
  await producer.send([record(0, 'a', '1')]);
  await producer.commit();
  await stableOffsets(topics.reader(topic, 1), 1n);
  const way = await KafkaProxy.start(topics.stack.brokers);
  try {
    const client = connectKafka({ brokers: way.addresses, clientId: 'test' }, testLog);
    const reader = topics.reader(topic, 1, client);
    const from = new Map([[0, 0n]]);
    way.spoilAnswer(apiKeys.fetch);
    const [fetched] = await reader.fetch(from, { maxWaitMs: 1_000 });
    assert.equal(texts(fetched?.records ?? []), ['a=1']);
    way.spoilAnswer(apiKeys.fetch);
    way.spoilAnswer(apiKeys.fetch);
    const failure = await rejection(reader.fetch(from, { maxWaitMs: 1_000 }));
    assert.is(failure.code, 'NODE_DAMAGED');
    assert.match(failure.message, /does not match its checksum/);
    await reader.close();
  } finally {
    await way.close();
  }
});

test('an offset past the end is an error with the end', async () => {
  const topic = await topics.topic(1);
  const producer = await reopened(topic);
  await producer.send([record(0, 'a', '1')]);
  await producer.commit();
  const reader = topics.reader(topic, 1);
  await stableOffsets(reader, 1n);
  const failure = await rejection(reader.fetch(new Map([[0, 3n]]), { maxWaitMs: 100 }));
  assert.is(failure.code, 'NODE_DAMAGED');
  assert.is(failure.message, `offset 3 is not in ${topic} partition 0, which holds 0 to 2`);
});

test('an offset below the low watermark is an error, never a jump to the start', async () => {
  const topic = await topics.topic(1);
  const producer = await reopened(topic);
  await producer.send([record(0, 'a', '1'), record(0, 'b', '1'), record(0, 'c', '1')]);
  await producer.commit();
  const reader = topics.reader(topic, 1);
  await stableOffsets(reader, 3n);
  const admin = topics.client.kafkajs.admin();
  try {
    await admin.connect();
    await admin.fetchTopicOffsets(topic);
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '2' }] });
  } finally {
    await admin.disconnect();
  }
  const [limits] = await reader.watermarks();
  assert.equal(limits, { partition: 0, lowWatermark: 2n, lastStableOffset: 4n });
  const failure = await rejection(reader.fetch(new Map([[0, 1n]]), { maxWaitMs: 100 }));
  assert.is(failure.code, 'NODE_DAMAGED');
  assert.match(failure.message, /offset 1 .* holds 2 to 4$/);
  const [rest] = await reader.fetch(new Map([[0, 2n]]), { maxWaitMs: 1_000 });
  assert.equal(texts(rest?.records ?? []), ['c=1']);
  assert.is(rest?.lowWatermark, 2n);
});

test('records are those of a broker that compresses, and another codec is named', async () => {
  const topic = await topics.topic(1, { 'compression.type': 'gzip' });
  const producer = await reopened(topic);
  const records = Array.from({ length: 500 }, (_, index) => record(0, `k${index}`, 'same text'));
  await producer.send(records);
  await producer.commit();
  const { records: read } = await readUpTo(topics.reader(topic, 1), 0, 501n);
  assert.equal(
    texts(read),
    records.map(({ key }) => `${key}=same text`),
  );
  const other = await topics.topic(1, { 'compression.type': 'lz4' });
  const otherProducer = await reopened(other);
  await otherProducer.send(records);
  await otherProducer.commit();
  const reader = topics.reader(other, 1);
  await stableOffsets(reader, 500n);
  const failure = await rejection(reader.fetch(new Map([[0, 0n]]), { maxWaitMs: 1_000 }));
  assert.is(failure.code, 'PREREQUISITE');
});

test('close() ends a waiting fetch at once, and is final', async () => {
  const topic = await topics.topic(1);
  const reader = topics.reader(topic, 1);
  await reader.watermarks();
  const waiting = rejection(reader.fetch(new Map([[0, 0n]]), { maxWaitMs: 60_000 }));
  await new Promise((resolve) => setTimeout(resolve, 200));
  const closedMs = Date.now();
  await reader.close();
  assert.is((await waiting).name, 'AbortError');
  assert.ok(Date.now() - closedMs < 500);
  assert.is((await rejection(reader.watermarks())).name, 'AbortError');
  assert.is((await rejection(reader.fetch(new Map(), { maxWaitMs: 1 }))).name, 'AbortError');
});

test('a missing topic or partition is refused', async () => {
  const missing = topics.reader(topics.stack.uniqueName('missing-'), 1);
  const start = new Map([[0, 0n]]);
  assert.is((await rejection(missing.fetch(start, { maxWaitMs: 1 }))).code, 'TOPIC_MISMATCH');
  const topic = await topics.topic(1);
  const wider = topics.reader(topic, 2);
  assert.is((await rejection(wider.watermarks())).code, 'TOPIC_MISMATCH');
});

test.run();
