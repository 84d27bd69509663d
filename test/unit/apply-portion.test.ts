/**
 * How far a follower goes: never past the limit, up to it exactly, and in portions that fit into
 * memory.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  mayBegin,
  nextPortion,
  portionRecordsMax,
} from '../../src/follower/apply/apply-portion.ts';
import type { AlignedBatch, AlignedEpoch, AlignedLarge } from '../../src/follower/apply/stages.ts';
import type { RowRecord } from '../../src/topic/records/stream-record.ts';
import { at, beginOf, pointOf, SketchedTopic } from '../support/builders.ts';

const [record] = new SketchedTopic(1).row(0, 1, 'k', 'v').partitions[0] as [RowRecord];

function batch(upto: number, records = 1): AlignedBatch {
  const half = new Array<RowRecord>(records / 2).fill(record);
  const checkpoint = { at: at(1, upto), nextOffsets: [] };
  return {
    kind: 'batch',
    point: pointOf({}),
    partitions: [half, half],
    bytes: 0,
    checkpoint,
    appendMs: [],
    newestCommitMicros: null,
  };
}

const epoch: AlignedEpoch = {
  kind: 'epoch',
  begin: beginOf({ epoch: 2 }),
  checkpoint: { at: at(2, 5), nextOffsets: [] },
  appendMs: [],
};

const waiting: readonly AlignedBatch[] = [batch(20, 2), batch(30, 2), batch(40, 2)];

/** The ends of the batches that are taken, and where to stop. */
function portion(...given: Parameters<typeof nextPortion>): unknown {
  const next = nextPortion(...given);
  if (next === null) return null;
  const { large, stopAt } = next;
  const batches = large === null ? next.batches : [...next.batches, large];
  return [
    batches.map(({ checkpoint }) => Number(checkpoint.at.lsn)),
    stopAt === null ? null : Number(stopAt.lsn),
  ];
}

function to(upto: number, inEpoch = 1) {
  return { kind: 'to', at: at(inEpoch, upto) } as const;
}

test('without a limit all that waits is taken', () => {
  assert.equal(portion(waiting, at(1, 10), { kind: 'none' }), [[20, 30, 40], null]);
  assert.is(portion([], at(1, 10), { kind: 'none' }), null);
});

test('on hold nothing is taken', () => {
  assert.is(portion(waiting, at(1, 10), { kind: 'hold' }), null);
});

test('a limit at a point ends with the batch of that point', () => {
  assert.equal(portion(waiting.slice(0, 2), at(1, 10), to(30)), [[20, 30], null]);
  assert.equal(portion(waiting.slice(0, 1), at(1, 10), to(30)), [[20], null]);
  assert.equal(portion(waiting, at(1, 10), to(30)), [[20, 30], null]);
});

test('a limit between two points stops inside of a batch', () => {
  // What is whole before it goes first.
  assert.equal(portion(waiting, at(1, 10), to(25)), [[20], null]);
  assert.equal(portion(waiting.slice(1), at(1, 20), to(25)), [[30], 25]);
  assert.equal(portion(waiting, at(1, 10), to(11)), [[20], 11]);
  assert.equal(portion(waiting.slice(1), at(1, 25), to(27)), [[30], 27]);
});

test('at the limit or past it nothing is taken', () => {
  for (const limit of [to(10), to(9), to(900, 0)]) {
    assert.is(portion(waiting, at(1, 10), limit), null);
  }
});

test('a limit in a later epoch lets the batches of this one through', () => {
  assert.equal(portion(waiting, at(1, 10), to(5, 2)), [[20, 30, 40], null]);
});

test('an epoch begin ends the portion before it, and is none itself', () => {
  assert.equal(portion([batch(20, 2), epoch, batch(30, 2)], at(1, 10), { kind: 'none' }), [
    [20],
    null,
  ]);
  assert.is(portion([epoch, ...waiting], at(1, 10), { kind: 'none' }), null);
  assert.is(portion([epoch], at(1, 10), to(25)), null);
});

test('an epoch begins when the limit lies in it or behind it', () => {
  assert.ok(mayBegin(epoch, { kind: 'none' }));
  assert.not(mayBegin(epoch, { kind: 'hold' }));
  assert.not(mayBegin(epoch, to(900)));
  assert.not(mayBegin(epoch, to(4, 2)));
  assert.ok(mayBegin(epoch, to(5, 2)));
  assert.ok(mayBegin(epoch, to(1, 3)));
});

test('a portion is bounded, but a batch is never parted', () => {
  const half = portionRecordsMax / 2;
  const large = [batch(20, half), batch(30, half), batch(40, 2)];
  assert.equal(portion(large, at(1, 10), { kind: 'none' }), [[20, 30], null]);
  const huge = [batch(20, portionRecordsMax * 2), batch(30, 2)];
  assert.equal(portion(huge, at(1, 10), { kind: 'none' }), [[20], null]);
});

test('a large batch goes alone, behind what is before it and with its own stop', () => {
  const checkpoint = { at: at(1, 30), nextOffsets: [] };
  const from = { at: at(1, 20), nextOffsets: [] };
  const large: AlignedLarge = {
    kind: 'large',
    point: pointOf({}),
    from,
    checkpoint,
    appendMs: [],
    newestCommitMicros: null,
  };
  const mixed = [batch(20, 2), large, batch(40, 2)];
  assert.equal(portion(mixed, at(1, 10), { kind: 'none' }), [[20], null]);
  assert.equal(portion(mixed, at(1, 10), to(25)), [[20], null]);
  assert.equal(portion(mixed, at(1, 10), to(15)), [[20], 15]);
  assert.equal(portion(mixed.slice(1), at(1, 20), { kind: 'none' }), [[30], null]);
  assert.equal(portion(mixed.slice(1), at(1, 20), to(30)), [[30], null]);
  assert.equal(portion(mixed.slice(1), at(1, 20), to(25)), [[30], 25]);
  assert.equal(portion(mixed.slice(1), at(1, 25), to(27)), [[30], 27]);
  assert.is(portion(mixed.slice(1), at(1, 20), to(20)), null);
  assert.is(nextPortion(mixed.slice(1), at(1, 20), to(25))?.large, large);
  assert.is(nextPortion(mixed, at(1, 10), { kind: 'none' })?.large, null);
});

test.run();
