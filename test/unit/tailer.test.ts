/**
 * The loop that reads a log: what it fetches, what it hands over, and how it ends. How brokers
 * answer is in test/integration/topic-reader.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { FetchedPartition, FetchedRecord } from '../../src/topic/log.ts';
import { type TailSource, tail, tailPartition } from '../../src/topic/tailer.ts';

function record(partition: number, offset: number): FetchedRecord {
  const key = Buffer.from(`${partition}:${offset}`);
  return { partition, offset: BigInt(offset), timestampMs: 0, key, value: null, headers: {} };
}

/** Returns one record for each partition and fetch, or `answer`, and records the offsets. */
function source(
  answer = (partition: number, offset: bigint): Partial<FetchedPartition> => ({
    records: [record(partition, Number(offset))],
    nextOffset: offset + 1n,
  }),
) {
  const asked: string[] = [];
  const reader: TailSource['reader'] = {
    watermarks: async () => [],
    fetch: async (from, { maxWaitMs, maxBytes }) => {
      const offsets = Array.from(from, ([partition, offset]) => `${partition}:${offset}`);
      asked.push(`${offsets.join(' ')} ${maxWaitMs} ${maxBytes ?? '-'}`);
      return Array.from(from, ([partition, offset]) => {
        const limits = { lowWatermark: 0n, lastStableOffset: 9n, broker: 1 };
        const none = { partition, records: [], nextOffset: offset, ...limits };
        return { ...none, ...answer(partition, offset) };
      });
    },
    close: async () => undefined,
  };
  const decoder = {
    decode: async (records: readonly FetchedRecord[]) => records.map(({ key }) => key.toString()),
  };
  return { asked, reader, decoder };
}

test('each fetch is from the offsets wanted at that time; wanting none ends the loop', async () => {
  const log = source();
  const wants = [new Map([[0, 4n]]), new Map([[0, 5n]]).set(1, 7n)];
  const handed: string[][] = [];
  for await (const answer of tail(log, () => wants.shift() ?? new Map())) {
    handed.push(answer.flatMap(({ decoded }) => decoded));
  }
  assert.equal(handed, [['0:4'], ['0:5', '1:7']]);
  assert.equal(log.asked, ['0:4 500 -', '0:5 1:7 500 -']);
});

test('the next fetch is sent when the next answer is asked for', async () => {
  const log = source();
  for await (const _ of tail(log, () => new Map([[0, 0n]]))) break;
  assert.is(log.asked.length, 1);
});

test('an abort ends the loop, also under a fetch that then fails', async () => {
  const stopping = new AbortController();
  const { signal } = stopping;
  const failing = source(() => {
    stopping.abort();
    throw new Error('the reader is closed');
  });
  for await (const _ of tail(failing, () => new Map([[0, 0n]]), { signal })) assert.unreachable();
  for await (const _ of tail(source(), () => new Map([[0, 0n]]), { signal })) assert.unreachable();
});

test('an error of the reader is the caller’s as long as nothing is aborted', async () => {
  const failing = source(() => {
    throw new Error('no broker');
  });
  const { signal } = new AbortController();
  try {
    for await (const _ of tail(failing, () => new Map([[0, 0n]]), { signal })) assert.unreachable();
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, 'no broker');
  }
});

test('a partition ends at its end, past a marker too; an empty answer is no end', async () => {
  const steps = [{ nextOffset: 3n }, { records: [record(2, 3)], nextOffset: 5n }, {}];
  const log = source(() => steps.shift() ?? { nextOffset: 6n });
  const handed: string[][] = [];
  const stretch = { partition: 2, start: 3n, end: 6n };
  for await (const { decoded } of tailPartition(log, stretch, { maxWaitMs: 7, maxBytes: 1 })) {
    handed.push([...decoded]);
  }
  assert.equal(handed, [[], ['2:3'], [], []]);
  assert.equal(log.asked, ['2:3 7 1', '2:3 7 1', '2:5 7 1', '2:5 7 1']);
});

test.run();
