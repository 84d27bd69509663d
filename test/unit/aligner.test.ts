/**
 * The aligner against histories of its own making: what is whole comes out once and in order,
 * however the partitions arrive; what is torn never comes out; counts that do not match are damage.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { Aligner } from '../../src/follower/apply/aligner.ts';
import type { Aligned } from '../../src/follower/apply/stages.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { at, place, SketchedTopic, streamId } from '../support/builders.ts';
import { anyArrival, anyHistory, deliver, shown } from '../support/histories.ts';

const start = { at: at(1, 10), nextOffsets: [1n, 1n] };

interface Outcome {
  readonly seen: readonly string[];
  readonly error: UnderstudyError | null;
}

function aligned(
  partitions: readonly (readonly StreamRecord[])[],
  arrival: readonly (readonly [number, number])[] = [],
  heldBytesMax?: number,
): Outcome {
  const checkpoint = { ...start, nextOffsets: partitions.map(() => 1n) };
  const aligner = new Aligner(streamId, checkpoint, heldBytesMax);
  const seen: string[] = [];
  try {
    deliver(partitions, arrival, (partition, records) => {
      aligner.push(partition, records);
      for (let next = aligner.next(); next !== null; next = aligner.next()) seen.push(shown(next));
    });
  } catch (error) {
    assert.instance(error, UnderstudyError);
    return { seen, error: error as UnderstudyError };
  }
  return { seen, error: null };
}

function batchesOf(partitions: readonly StreamRecord[][], heldBytesMax?: number): Aligned[] {
  const aligner = new Aligner(streamId, start, heldBytesMax);
  for (const [partition, records] of partitions.entries()) aligner.push(partition, records);
  const batches: Aligned[] = [];
  for (let next = aligner.next(); next !== null; next = aligner.next()) batches.push(next);
  return batches;
}

function kindOf({ kind }: Aligned): string {
  return kind;
}

/** Two partitions that are at 1:0/A. */
function topicOf(write: (topic: SketchedTopic) => unknown): StreamRecord[][] {
  const topic = new SketchedTopic(2, 10);
  write(topic);
  return topic.partitions;
}

function damaged(write: (topic: SketchedTopic) => unknown, message: RegExp): void {
  const { seen, error } = aligned(topicOf(write));
  assert.equal(seen, []);
  assert.is(error?.code, 'DAMAGED');
  assert.match(error?.message ?? '', message);
}

for (const partitions of [1, 2, 4]) {
  test(`${partitions} partitions in any order of arrival give the batches as they were`, () => {
    const world = fc.tuple(anyHistory(partitions), anyArrival(partitions));
    fc.assert(
      fc.property(world, ([{ topic, expected }, arrival]) => {
        assert.equal(aligned(topic.partitions, arrival), { seen: expected, error: null });
      }),
      { numRuns: 500 },
    );
  });

  test(`${partitions} partitions give the same places when nothing may be held`, () => {
    const world = fc.tuple(anyHistory(partitions), anyArrival(partitions));
    fc.assert(
      fc.property(world, ([{ topic, expected }, arrival]) => {
        // A batch without a record costs nothing, and is handed out as it is.
        const places = expected.map((line) => {
          const [place = '', offsets = ''] = line.split(': ');
          return /\d/.test(offsets) ? `${place.replace('batch', 'large')}: ` : line;
        });
        assert.equal(aligned(topic.partitions, arrival, 0), { seen: places, error: null });
      }),
      { numRuns: 500 },
    );
  });

  test(`${partitions} partitions with a record lost or doubled stop before that batch`, () => {
    const world = fc.tuple(
      anyHistory(partitions),
      anyArrival(partitions),
      fc.nat(),
      fc.boolean(),
      fc.constantFrom(undefined, 0),
    );
    fc.assert(
      fc.property(world, ([{ topic, expected, counted }, arrival, pick, doubled, bytesMax]) => {
        fc.pre(counted.length > 0);
        const victim = counted[pick % counted.length];
        const changed = topic.partitions.map((records) =>
          records.flatMap((record) => {
            if (record !== victim) return [record];
            return doubled ? [record, record] : [];
          }),
        );
        const { seen, error } = aligned(changed, arrival, bytesMax);
        assert.is(error?.code, 'DAMAGED');
        const places = (lines: readonly string[]) => {
          return lines.map((line) => line.replace(/^(large|batch)/, '').split(': ')[0]);
        };
        assert.equal(places(seen), places(expected.slice(0, seen.length)));
        const offset = victim?.offset ?? 0n;
        const column = victim?.partition ?? 0;
        for (const line of expected.slice(0, seen.length)) {
          const held = line.split(': ')[1]?.split('|')[column]?.split(' ') ?? [];
          assert.not(held.includes(String(offset)), 'its batch was handed out');
        }
      }),
      { numRuns: 300 },
    );
  });
}

test('nothing is handed out before every partition is at the point', () => {
  const [first = [], second = []] = topicOf((topic) =>
    topic.row(0, 10, 'a', '1').row(1, 10, 'b', '1').point(20),
  );
  const aligner = new Aligner(streamId, start);
  aligner.push(0, first);
  assert.is(aligner.next(), null);
  assert.is(aligner.waits(0), true);
  assert.is(aligner.waits(1), false);
  aligner.push(1, second.slice(0, 1));
  assert.is(aligner.next(), null);
  aligner.push(1, second.slice(1));
  assert.equal(aligner.next()?.checkpoint, { at: at(1, 20), nextOffsets: [3n, 3n] });
  assert.is(aligner.next(), null);
  assert.is(aligner.waits(0), false);
});

test('a batch is large from the first byte above the bound on, in all partitions together', () => {
  const write = (topic: SketchedTopic) => {
    topic.row(0, 10, 'a', '1').row(1, 10, 'b', '1').point(20);
    topic.row(0, 20, 'c', '1').point(30);
  };
  const [batch] = batchesOf(topicOf(write));
  assert.is(batch?.kind, 'batch');
  const bytes = batch?.kind === 'batch' ? batch.bytes : 0;
  assert.ok(bytes > 0);
  const kinds = (heldBytesMax: number) => batchesOf(topicOf(write), heldBytesMax).map(kindOf);
  assert.equal(kinds(bytes), ['batch', 'batch']);
  assert.equal(kinds(bytes - 1), ['large', 'batch']);
  const [large] = batchesOf(topicOf(write), bytes - 1);
  assert.equal(large?.kind === 'large' && large.from, start);
});

test('a batch has the newest commit time of its records, be it held or too large to hold', () => {
  const times = new Map([
    ['a', 9n],
    ['b', 7n],
    ['c', 8n],
  ]);
  const timed = topicOf((topic) => {
    topic.row(0, 10, 'a', '1').row(1, 10, 'b', '1').row(0, 11, 'c', '1').point(20);
    topic.point(30);
  }).map((records) =>
    records.map((record): StreamRecord => {
      const micros = record.kind === 'row' ? times.get(record.identity[0] ?? '') : 50n;
      return { ...record, commitTimeMicros: micros ?? 0n };
    }),
  );
  for (const heldBytesMax of [Number.POSITIVE_INFINITY, 1]) {
    const newest = batchesOf(timed, heldBytesMax).map((one) => {
      return one.kind === 'epoch' ? null : one.newestCommitMicros;
    });
    assert.equal(newest, [9n, null]);
  }
});

test('a record that commits exactly at the checkpoint belongs to the batch behind it', () => {
  const { seen, error } = aligned(topicOf((topic) => topic.row(0, 10, 'a', '1').point(11)));
  assert.is(error, null);
  assert.equal(seen, ['batch 1:0/B next 3,2: 1|']);
});

test('a record that commits exactly at the end of its batch is damage', () => {
  damaged((topic) => topic.row(0, 20, 'a', '1').point(20), /offset 1 is of another batch/);
});

test('a record from below the checkpoint is damage', () => {
  damaged((topic) => topic.row(0, 9, 'a', '1').point(20), /offset 1 is of another batch/);
});

test('a record of another epoch is damage', () => {
  const foreign = topicOf((topic) => topic.row(0, 12, 'a', '1').point(20));
  const [row, point] = foreign[0] as [StreamRecord, StreamRecord];
  const { error } = aligned([[{ ...row, position: place(2, 12) }, point], foreign[1] ?? []]);
  assert.match(error?.message ?? '', /offset 1 is of another batch/);
});

test('a point that counts more, fewer, or not all partitions is damage', () => {
  for (const counts of [[2, 0], [0, 0], [1, 1], [], [1]]) {
    damaged((topic) => topic.row(0, 12, 'a', '1').point(20, { counts }), /which counts/);
  }
});

test('a point that continues another checkpoint is damage', () => {
  for (const checkpoint of [at(1, 9), at(1, 11), at(2, 10)]) {
    const previous = { at: checkpoint, nextOffsets: [] };
    damaged((topic) => topic.point(20, { previous }), /the point 1:0\/14 continues/);
  }
});

test('partitions that are at different points, or point and begin alike, are damage', () => {
  damaged((topic) => topic.point(20, {}, [0]).point(30, {}, [1]), /are at point 1:0\/14, point/);
  damaged((topic) => topic.begin(1, 20, {}, [0]).point(20, {}, [1]), /are at epoch .*, point/);
});

test('a begin that continues what this node never had, or less than it has, is damage', () => {
  damaged((topic) => topic.begin(2, 5, { base: at(1, 20) }), /epoch 2 continues 1:0\/14/);
  damaged((topic) => topic.begin(2, 5, { base: at(1, 9) }), /epoch 2 continues 1:0\/9/);
  damaged((topic) => topic.begin(2, 5, { base: null }), /epoch 2 continues nothing/);
});

test('a begin of an epoch that is no newer is damage', () => {
  damaged((topic) => topic.begin(1, 20), /epoch 1 begins again/);
});

test('a point that a begin counts as whole and one partition does not have is damage', () => {
  const write = (topic: SketchedTopic) => topic.point(20, {}, [0]).begin(2, 5, { base: at(1, 20) });
  damaged(write, /the point 1:0\/14 is in one partition and not in another/);
});

test('another stream is refused, whether it begins or goes on', () => {
  for (const write of [
    (topic: SketchedTopic) => topic.point(20, { streamId: 'other' }),
    (topic: SketchedTopic) => topic.begin(2, 5, { streamId: 'other' }),
  ]) {
    const { seen, error } = aligned(topicOf(write));
    assert.equal(seen, []);
    assert.is(error?.code, 'TOPIC_MISMATCH');
  }
});

test('records of void epochs are dropped with the begin, those behind it are kept', () => {
  const { seen, error } = aligned(
    topicOf((topic) => {
      topic.row(0, 12, 'a', 'void').point(20, {}, [0]);
      topic.begin(2, 70, {}, [1]).row(1, 70, 'b', 'void');
      topic.begin(3, 30).row(0, 30, 'c', 'kept').point(40);
    }),
  );
  assert.is(error, null);
  assert.equal(seen, ['epoch 3:0/1E next 4,4: ', 'batch 3:0/28 next 6,5: 4|']);
});

test.run();
