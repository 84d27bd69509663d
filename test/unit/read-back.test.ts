/**
 * The leader's count of what it reads back: right histories pass in every partition; one record too
 * many or too few is damage.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Checkpoint } from '../../src/change/change.ts';
import { type EpochLsn, formatEpochLsn } from '../../src/change/position.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { ReadBackCounter, readBack } from '../../src/leader/stream/read-back.ts';
import type { CommittedReader } from '../../src/topic/log.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { at, SketchedTopic } from '../support/builders.ts';
import { anyHistory } from '../support/histories.ts';

function count(partition: number, records: readonly StreamRecord[]): void {
  const counter = new ReadBackCounter(partition, at(1, 10));
  for (const record of records) counter.take(record);
}

function damaged(write: (topic: SketchedTopic) => unknown, message: RegExp): void {
  const topic = new SketchedTopic(2, 10);
  write(topic);
  assert.throws(
    () => count(0, topic.partitions[0] ?? []),
    (error: unknown) => {
      assert.instance(error, UnderstudyError);
      assert.is((error as UnderstudyError).code, 'DAMAGED');
      assert.match((error as UnderstudyError).message, message);
      return true;
    },
  );
}

test('batches and epoch begins with right counts pass', () => {
  const topic = new SketchedTopic(2, 10);
  topic.row(0, 10, 'a', '1').row(1, 11, 'b', '1').point(20).point(25);
  topic.begin(2, 5).row(0, 5, 'a', '2').point(9);
  for (const [partition, records] of topic.partitions.entries()) count(partition, records);
});

test('any history passes in each of its partitions', () => {
  fc.assert(
    fc.property(anyHistory(3), ({ topic }) => {
      for (const [partition, records] of topic.partitions.entries()) count(partition, records);
    }),
  );
});

test('a record that is missing or doubled in a whole batch is damage', () => {
  fc.assert(
    fc.property(anyHistory(2), fc.nat(), fc.boolean(), ({ topic, counted }, pick, doubled) => {
      fc.pre(counted.length > 0);
      const victim = counted[pick % counted.length] as StreamRecord;
      const records = (topic.partitions[victim.partition] ?? []).flatMap((record) => {
        if (record !== victim) return [record];
        return doubled ? [record, record] : [];
      });
      assert.throws(
        () => count(victim.partition, records),
        (error: unknown) => error instanceof UnderstudyError && error.code === 'DAMAGED',
      );
    }),
  );
});

test('the count of another partition does not match', () => {
  damaged(
    (topic) => topic.row(0, 12, 'a', '1').point(20, { counts: [0, 1] }),
    /counts 0 records, not 1/,
  );
});

test('a point that continues another checkpoint is damage', () => {
  const previous = { at: at(1, 11), nextOffsets: [] };
  damaged((topic) => topic.point(20, { previous }), /point at offset 1 continues 1:0\/B/);
});

test('an epoch that begins again is damage', () => {
  damaged((topic) => topic.begin(1, 20), /epoch at offset 1 begins again/);
});

const begin: Checkpoint = { at: at(1, 10), nextOffsets: [0n] };

/** Reads a topic of one partition, of which each fetch gives the next of these answers. */
async function read(...answers: readonly (readonly StreamRecord[])[]): Promise<string> {
  const stop = new AbortController();
  const left = [...answers];
  let seen = 'nothing';
  const reader: CommittedReader = {
    watermarks: async () => [],
    close: async () => undefined,
    fetch: async (from) => {
      const offset = from.get(0) ?? 0n;
      const all = left.shift();
      if (all === undefined) stop.abort();
      const records = (all ?? []).filter((record) => record.offset >= offset);
      const nextOffset = (records.at(-1)?.offset ?? offset - 1n) + 1n;
      const limits = { lowWatermark: 0n, lastStableOffset: nextOffset, broker: 1 };
      return [{ partition: 0, records: records as never, nextOffset, ...limits }];
    },
  };
  const decoder = { decode: async (records: unknown) => records as readonly StreamRecord[] };
  const onSeen = (where: EpochLsn): void => {
    seen = formatEpochLsn(where);
  };
  const listener = { seen: onSeen, seenNothing: () => undefined };
  await readBack(reader, decoder as never, begin, stop.signal, listener);
  return seen;
}

test('a count that is wrong is read once more before it is believed', async () => {
  const topic = new SketchedTopic(1, 10);
  topic.row(0, 10, 'a', '1').point(20).row(0, 20, 'b', '1').row(0, 21, 'c', '1').point(30);
  const right = topic.partitions[0] ?? [];
  const wrong = right.filter(({ offset }) => offset !== 2n);
  assert.is(await read(right), '1:0/1E');
  assert.is(await read(wrong, right), '1:0/1E', 'the second answer counts');
  assert.is(await read(right.slice(0, 2), wrong.slice(2), right.slice(2)), '1:0/1E');
  const twice = await read(wrong, wrong).catch((error: unknown) => error);
  assert.instance(twice, UnderstudyError);
  assert.is((twice as UnderstudyError).code, 'DAMAGED');
});

test.run();
