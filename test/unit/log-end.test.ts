/**
 * The order of steps at the end of a log: the records are committed first, then the watermarks are
 * polled until they are past the records. Whether brokers behave so is in test/fault.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OutgoingRecord, TransactionalProducer, Watermarks } from '../../src/topic/log.ts';
import { commitReadably } from '../../src/topic/log-end.ts';

const records: readonly OutgoingRecord[] = [0, 1].map((partition) => {
  return { partition, key: Buffer.from('k'), value: null, headers: {} };
});

/** A producer and a reader that record their calls; the reader returns `ends` one by one. */
function recorded(offsets: readonly (bigint | null)[], ends: readonly (readonly bigint[])[]) {
  const steps: string[] = [];
  const producer: TransactionalProducer = {
    open: async () => undefined,
    send: async (sent) => {
      steps.push(`send ${sent.length}`);
    },
    commit: async () => {
      steps.push('commit');
      return offsets;
    },
    close: async () => undefined,
  };
  let polls = 0;
  const reader = {
    watermarks: async (): Promise<readonly Watermarks[]> => {
      steps.push('poll');
      const seen = ends[polls] ?? ends.at(-1) ?? [];
      polls += 1;
      return seen.map((lastStableOffset, partition) => {
        return { partition, lowWatermark: 0n, lastStableOffset };
      });
    },
    fetch: async () => [],
    close: async () => undefined,
  };
  let nowMs = 0;
  const clock = {
    random: () => 0.5,
    nowMs: () => nowMs,
    sleep: async (ms: number) => {
      steps.push('sleep');
      nowMs += ms * 100;
    },
  };
  return { steps, run: () => commitReadably(producer, records, reader, clock) };
}

test('the watermarks are read once the records are committed', async () => {
  const { steps, run } = recorded([7n, 9n], [[9n, 11n]]);
  const { offsets, ends } = await run();
  assert.equal(steps, ['send 2', 'commit', 'poll']);
  assert.equal(offsets, [7n, 9n]);
  const expected = [9n, 11n].map((lastStableOffset, partition) => {
    return { partition, lowWatermark: 0n, lastStableOffset };
  });
  assert.equal(ends, expected);
});

test('a watermark at a record, or below it in one partition, is polled again', async () => {
  const { steps, run } = recorded(
    [7n, 9n],
    [
      [7n, 11n],
      [9n, 9n],
      [9n, 11n],
    ],
  );
  await run();
  assert.equal(steps.slice(2), ['poll', 'sleep', 'poll', 'sleep', 'poll']);
});

test('a watermark that stays below is an error that names partition and offset', async () => {
  const { run } = recorded([7n, 9n], [[9n, 5n]]);
  try {
    await run();
  } catch (error) {
    assert.match((error as Error).message, /open in partition 1 at offset 5/);
    return;
  }
  assert.unreachable('it waited for ever, or did not wait');
});

test('a partition without a record is an error', async () => {
  const { run } = recorded([7n, null], [[9n, 5n]]);
  try {
    await run();
  } catch (error) {
    assert.match((error as Error).message, /misses a partition/);
    return;
  }
  assert.unreachable('an end was given');
});

test.run();
