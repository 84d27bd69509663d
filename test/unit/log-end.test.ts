/**
 * The order of steps at the end of a log: what is written there is committed first, and the end is
 * looked at until it lies past everything written. Whether brokers behave so is in test/fault.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OutgoingRecord, TransactionalProducer, Watermarks } from '../../src/topic/log.ts';
import { commitReadably } from '../../src/topic/log-end.ts';

const records: readonly OutgoingRecord[] = [0, 1].map((partition) => {
  return { partition, key: Buffer.from('k'), value: null, headers: {} };
});

/** A producer and a reader that write down what is asked of them, and `ends` one by one. */
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
  let looks = 0;
  const reader = {
    watermarks: async (): Promise<readonly Watermarks[]> => {
      steps.push('look');
      const seen = ends[looks] ?? ends.at(-1) ?? [];
      looks += 1;
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

test('the end is looked at once the records are committed', async () => {
  const { steps, run } = recorded([7n, 9n], [[9n, 11n]]);
  const { offsets, ends } = await run();
  assert.equal(steps, ['send 2', 'commit', 'look']);
  assert.equal(offsets, [7n, 9n]);
  const expected = [9n, 11n].map((lastStableOffset, partition) => {
    return { partition, lowWatermark: 0n, lastStableOffset };
  });
  assert.equal(ends, expected);
});

test('an end at a record, or below it in one partition, is not yet the end', async () => {
  const { steps, run } = recorded(
    [7n, 9n],
    [
      [7n, 11n],
      [9n, 9n],
      [9n, 11n],
    ],
  );
  await run();
  assert.equal(steps.slice(2), ['look', 'sleep', 'look', 'sleep', 'look']);
});

test('an end that stays below is an error that names the place', async () => {
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
