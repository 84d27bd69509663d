/**
 * Reading a topic that the broker really compacted. Batches whose records are all removed stay in
 * the log without records (the last of each producer, for its sequence numbers), and a reader that
 * advances by records alone fetches them for ever.
 */
// time-limit: 120s
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  record,
  stableOffsets,
  type TopicStack,
  texts,
  useTopics,
} from '../support/topic-stack.ts';
import { until } from '../support/until.ts';

let topics: TopicStack;

test.before(async () => {
  topics = await useTopics();
});

test.after(async () => {
  await topics.close();
});

/** One batch at a time: where each fetch began, and what it gave. */
async function steps(topic: string, end: bigint) {
  const reader = topics.reader(topic, 1);
  const taken: { readonly from: bigint; readonly to: bigint; readonly texts: readonly string[] }[] =
    [];
  for (let from = 0n; from < end; ) {
    const options = { maxWaitMs: 1_000, maxBytes: 1 };
    const [fetched] = await reader.fetch(new Map([[0, from]]), options);
    assert.ok(fetched && fetched.nextOffset > from, `stuck at ${from}`);
    taken.push({ from, to: fetched.nextOffset, texts: texts(fetched.records) });
    from = fetched.nextOffset;
  }
  await reader.close();
  return taken;
}

test('emptied batches, kept markers and gaps are passed', async () => {
  const topic = await topics.topic(1, {
    'cleanup.policy': 'compact',
    'min.compaction.lag.ms': '0',
    'max.compaction.lag.ms': '100',
    'min.cleanable.dirty.ratio': '0.01',
    'segment.ms': '100',
    'delete.retention.ms': '86400000',
  });
  // The first writes under an id of its own: its only batch stays, emptied. The others are epochs
  // of one producer, whose last batch is the filler's.
  const ids = [`${topic}-first`, topic, topic, topic];
  for (const [turn, text] of ['old', 'older', 'aborted', 'last'].entries()) {
    const producer = topics.producer(topic, 1, topics.client, ids[turn]);
    await producer.open();
    await producer.send([record(0, 'same', text), record(0, 'same', `${text} again`)]);
    if (text !== 'aborted') await producer.commit();
    await producer.close();
  }
  const filler = topics.producer(topic, 1);
  await filler.open();
  const reader = topics.reader(topic, 1);
  const firstTexts = async (): Promise<readonly string[]> => {
    // The segment that is written to is not compacted: each record begins another.
    await filler.send([record(0, 'filler', String(Date.now()))]);
    await filler.commit();
    const [first] = await reader.fetch(new Map([[0, 0n]]), { maxWaitMs: 100 });
    return texts(first?.records ?? []);
  };
  // The cleaner of a broker with default settings runs every 15 s.
  await until('the first batch is compacted', firstTexts, {
    ...{ pollMs: 500, reached: (all) => !all.some((text) => text.startsWith('same=old')) },
  });
  const [end] = await stableOffsets(reader, 0n);
  const taken = await steps(topic, end ?? 0n);
  // The batch of the first is there, its two records are not.
  assert.equal(taken[0], { from: 0n, to: 2n, texts: [] });
  const all = taken.flatMap((step) => step.texts);
  assert.ok(all.includes('same=last again'));
  assert.not.ok(
    all.some((text) => /old|aborted/.test(text)),
    String(all),
  );
  assert.is(taken.at(-1)?.to, end);
});

test.run();
