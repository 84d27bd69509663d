/**
 * A large batch put together again: whatever sizes it is read in, every record comes out once, in
 * the order of positions from piece to piece, a barrier in all partitions at once, and what no
 * longer adds up is noticed.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { comparePositions } from '../../src/change/position.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { Aligner } from '../../src/follower/apply/aligner.ts';
import { LargeBatchMerge } from '../../src/follower/apply/large-batch.ts';
import type { AlignedLarge, ContentRecord } from '../../src/follower/apply/stages.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { at, place, SketchedTopic, streamId } from '../support/builders.ts';

type Piece = readonly (readonly ContentRecord[])[];

/** The large batches of a topic that is at 1:0/A. */
function largeOf({ partitions }: SketchedTopic): AlignedLarge[] {
  const checkpoint = { at: at(1, 10), nextOffsets: partitions.map(() => 1n) };
  const aligner = new Aligner(streamId, checkpoint, 0);
  for (const [partition, records] of partitions.entries()) aligner.push(partition, records);
  const large: AlignedLarge[] = [];
  for (let next = aligner.next(); next !== null; next = aligner.next()) {
    if (next.kind === 'large') large.push(next);
  }
  return large;
}

/** Reads on what is wanted, `counts` records at a time, until all is there. */
function piecesOf(
  partitions: readonly (readonly StreamRecord[])[],
  batch: AlignedLarge,
  counts: readonly number[],
): Piece[] {
  const merge = new LargeBatchMerge(batch);
  const pieces: Piece[] = [];
  for (let round = 0; !merge.complete; round += 1) {
    const wanted = merge.wanted();
    assert.ok(wanted.size > 0, 'something is wanted until all is there');
    for (const [partition, offset] of wanted) {
      const count = counts[(round + partition) % counts.length] ?? 1;
      const records = (partitions[partition] ?? []).filter((record) => record.offset >= offset);
      const read = records.slice(0, count);
      merge.push(partition, read, (read[read.length - 1]?.offset ?? offset - 1n) + 1n);
    }
    pieces.push(merge.take());
  }
  assert.is(merge.wanted().size, 0);
  return pieces;
}

const anyChange = fc.record({
  gap: fc.nat({ max: 2 }),
  partition: fc.nat({ max: 3 }),
  barrier: fc.integer({ min: 0, max: 5 }).map((n) => n === 0),
  deletes: fc.boolean(),
});
const anyCounts = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 });

interface Change {
  readonly gap: number;
  readonly partition: number;
  readonly barrier: boolean;
  readonly deletes?: boolean;
}

/** Two batches of the same changes, so that one of them does not begin where its partition does. */
function topicOf(count: number, changes: readonly Change[]): SketchedTopic {
  const topic = new SketchedTopic(count, 10);
  for (let round = 0; round < 2; round += 1) {
    let commit = Number(topic.checkpoint.at.lsn);
    for (const [ordinal, { gap, partition, barrier, deletes }] of changes.entries()) {
      commit += gap;
      if (barrier) topic.everywhere(commit, ordinal, { kind: 'truncate', relationId: 't' });
      else {
        const value = deletes ? null : 'v';
        topic.put(partition % count, commit, ordinal, { kind: 'row', key: 'k', value });
      }
    }
    topic.point(commit + 1);
  }
  return topic;
}

for (const count of [1, 2, 4]) {
  test(`${count} partitions come out whole and in order, however they are read`, () => {
    const world = fc.tuple(fc.array(anyChange, { minLength: 1, maxLength: 12 }), anyCounts);
    fc.assert(
      fc.property(world, ([changes, counts]) => {
        const topic = topicOf(count, changes);
        const batches = largeOf(topic);
        assert.is(batches.length, 2);
        for (const batch of batches) {
          const pieces = piecesOf(topic.partitions, batch, counts);
          for (let partition = 0; partition < count; partition += 1) {
            const from = batch.from.nextOffsets[partition] ?? 0n;
            const end = (batch.checkpoint.nextOffsets[partition] ?? 0n) - 1n;
            const wanted = (topic.partitions[partition] ?? []).filter(({ offset }) => {
              return offset >= from && offset < end;
            });
            assert.equal(
              pieces.flatMap((piece) => piece[partition] ?? []),
              wanted,
            );
          }
          isInOrder(pieces);
        }
      }),
      { numRuns: 500 },
    );
  });
}

/**
 * Everything of a piece is above everything of the pieces before; barriers are not parted, nor is a
 * tombstone from what may follow it.
 */
function isInOrder(pieces: readonly Piece[]): void {
  let above = place(1, 0);
  for (const [n, piece] of pieces.entries()) {
    const newest = inOrder(piece).at(-1);
    const [following] = inOrder(pieces.slice(n + 1).flat());
    assert.not(isKeyChange(newest, following), 'the two records of a key change are parted');
    const positions = piece.flat().map(({ position }) => position);
    for (const position of positions) {
      assert.ok(
        comparePositions(position, above) > 0,
        'a piece holds what is below the one before',
      );
    }
    above = positions.reduce((a, b) => (comparePositions(a, b) > 0 ? a : b), above);
    const barriers = piece.map((records) => records.filter(({ kind }) => kind !== 'row').length);
    assert.is(new Set(barriers).size, 1, 'a barrier is in all partitions of its piece');
  }
}

function inOrder(piece: Piece): ContentRecord[] {
  return piece.flat().sort((a, b) => comparePositions(a.position, b.position));
}

function isKeyChange(one: ContentRecord | undefined, next: ContentRecord | undefined): boolean {
  if (one?.kind !== 'row' || next?.kind !== 'row') return false;
  const sideBySide =
    one.position.commitLsn === next.position.commitLsn &&
    one.position.ordinal + 1 === next.position.ordinal;
  return sideBySide && one.value === null && next.value !== null;
}

test('nothing comes out before every partition has been read', () => {
  const topic = new SketchedTopic(2, 10).row(0, 12, 'a', '1').row(1, 11, 'b', '1').point(20);
  const [batch] = largeOf(topic) as [AlignedLarge];
  const merge = new LargeBatchMerge(batch);
  assert.equal(
    [...merge.wanted()],
    [
      [0, 1n],
      [1, 1n],
    ],
  );
  merge.push(0, topic.partitions[0] ?? [], 3n);
  assert.equal(merge.take(), [[], []]);
  assert.equal([...merge.wanted()], [[1, 1n]]);
  assert.not(merge.complete);
  merge.push(1, topic.partitions[1] ?? [], 3n);
  assert.ok(merge.complete);
  assert.equal(
    merge.take().map((records) => records.length),
    [1, 1],
  );
});

test('aborted records and markers move on without a record', () => {
  const topic = new SketchedTopic(1, 10).row(0, 12, 'a', '1').point(20);
  const [batch] = largeOf(topic) as [AlignedLarge];
  const merge = new LargeBatchMerge(batch);
  merge.push(0, [], 1n);
  assert.equal([...merge.wanted()], [[0, 1n]]);
  merge.push(0, (topic.partitions[0] ?? []).slice(0, 1), 2n);
  assert.equal(merge.take().flat().length, 1);
  assert.equal([...merge.wanted()], [[0, 2n]]);
});

function refused(work: () => unknown, message: RegExp): void {
  assert.throws(work, (error: unknown) => {
    assert.instance(error, UnderstudyError);
    assert.is((error as UnderstudyError).code, 'DAMAGED');
    assert.match((error as UnderstudyError).message, message);
    return true;
  });
}

test('a record that is missing since the first reading is a gap', () => {
  const topic = new SketchedTopic(1, 10).row(0, 12, 'a', '1').row(0, 12, 'b', '1').point(20);
  const [batch] = largeOf(topic) as [AlignedLarge];
  const merge = new LargeBatchMerge(batch);
  const [first, , point] = topic.partitions[0] as [StreamRecord, StreamRecord, StreamRecord];
  refused(() => merge.push(0, [first, point], 4n), /partition 0 held 2 records and now holds 1/);
});

test('records out of order, a stranger’s point and an unknown partition are damage', () => {
  const topic = new SketchedTopic(1, 10);
  topic.put(0, 12, 1, { kind: 'row', key: 'a', value: '1' });
  topic.put(0, 12, 0, { kind: 'row', key: 'b', value: '1' });
  topic.point(20);
  const [batch] = largeOf(topic) as [AlignedLarge];
  const records = topic.partitions[0] ?? [];
  refused(() => new LargeBatchMerge(batch).push(0, records, 4n), /offset 2 is out of order/);
  const [, , point] = records as [StreamRecord, StreamRecord, StreamRecord];
  const moved = [{ ...point, offset: 1n }];
  refused(() => new LargeBatchMerge(batch).push(0, moved, 2n), /a point is at 1/);
  refused(() => new LargeBatchMerge(batch).push(1, records, 4n), /there is a partition 1/);
});

test.run();
