/**
 * Positions: the one order of all records. Covered means strictly below, because the next commit
 * record may start exactly at the end of the one before.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { toLsn } from '../../src/change/lsn.ts';
import {
  compareEpochLsn,
  comparePositions,
  formatEpochLsn,
  formatPosition,
  isCovered,
  type Position,
  parseEpochLsn,
  parsePosition,
  pointPosition,
} from '../../src/change/position.ts';
import { at, place } from '../support/builders.ts';

const anyPosition: fc.Arbitrary<Position> = fc.record(
  {
    epoch: fc.integer({ min: 1, max: 999_999_999 }),
    commitLsn: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(toLsn),
    ordinal: fc.integer({ min: -1, max: 2 ** 30 }),
  },
  { noNullPrototype: true },
);

test('a transaction that commits exactly at an end LSN is not covered by it', () => {
  assert.ok(isCovered(place(2, 99, 7), at(2, 100)));
  assert.not(isCovered(place(2, 100, 0), at(2, 100)));
  assert.not(isCovered(place(2, 100, -1), at(2, 100)));
});

test('an older epoch is covered and a newer one is not, whatever their LSNs', () => {
  assert.ok(isCovered(place(1, 900), at(2, 100)));
  assert.not(isCovered(place(3, 1), at(2, 100)));
});

test('a point stands below every record that commits at its end, above all before', () => {
  const point = pointPosition(at(2, 100));
  assert.is(comparePositions(point, place(2, 100, 0)), -1);
  assert.is(comparePositions(point, place(2, 99, 50)), 1);
  assert.is(comparePositions(place(1, 900, 9), point), -1);
});

test('positions and end LSNs come back from their text', () => {
  fc.assert(
    fc.property(anyPosition, (position) => {
      assert.equal(parsePosition(formatPosition(position)), position);
      const end = { epoch: position.epoch, lsn: position.commitLsn };
      assert.equal(parseEpochLsn(formatEpochLsn(end)), end);
    }),
  );
});

test('both orders are total, and agree where they overlap', () => {
  fc.assert(
    fc.property(anyPosition, anyPosition, (a, b) => {
      assert.is(comparePositions(a, b), -comparePositions(b, a) || 0);
      assert.is(comparePositions(a, a), 0);
      const ends = compareEpochLsn(
        { epoch: a.epoch, lsn: a.commitLsn },
        { epoch: b.epoch, lsn: b.commitLsn },
      );
      if (ends !== 0) assert.is(comparePositions(a, b), ends);
    }),
  );
});

test('other texts are no positions', () => {
  const texts = ['', '1:0/1', ':0/1:0', '0:0/1:0', '01:0/1:0', '1:0/1:-2', '1:0/1:', '1:0/1:1.5'];
  for (const text of [...texts, '1:0/1:1 ', '1:0/1:+1', '-1:0/1:0']) {
    assert.is(parsePosition(text), null, text);
  }
  for (const text of ['', '0/1', '1:', '0:0/1', '1:0/1:0', '1000000000:0/1', '1:0']) {
    assert.is(parseEpochLsn(text), null, text);
  }
});

test.run();
