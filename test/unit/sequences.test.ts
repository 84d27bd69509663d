/**
 * What a sequence is set to on a node that takes the lead: past everything that may have been
 * handed out, in its own direction, never backwards and never out of its bounds.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { SequenceFacts } from '../../src/catalog/read-catalog.ts';
import { sequenceValue } from '../../src/fleet/promotion/sequences.ts';

const int64Max = 2n ** 63n - 1n;

function sequence(changes: Partial<SequenceFacts>): SequenceFacts {
  return {
    oid: 1,
    schema: 'public',
    name: 'orders_id_seq',
    tableOid: 2,
    column: 'id',
    increment: 1n,
    cache: 1n,
    min: 1n,
    max: int64Max,
    lastValue: 1n,
    isCalled: true,
    ...changes,
  };
}

test('a sequence that was never used, of a column without values, is left alone', () => {
  assert.is(sequenceValue(sequence({ isCalled: false }), null), null);
});

test('an ascending sequence goes past the largest value that is known, with a margin', () => {
  assert.is(sequenceValue(sequence({ lastValue: 50n }), null), 1_050n);
  assert.is(sequenceValue(sequence({ lastValue: 50n }), 70n), 1_070n);
  assert.is(sequenceValue(sequence({ lastValue: 90n }), 70n), 1_090n);
  assert.is(sequenceValue(sequence({ isCalled: false }), 70n), 1_070n);
});

test('a descending sequence goes below the smallest value that is known', () => {
  const down = { increment: -2n, min: -int64Max, max: -1n, lastValue: -10n };
  assert.is(sequenceValue(sequence(down), -30n), -2_030n);
  assert.is(sequenceValue(sequence(down), -4n), -2_010n);
});

test('the margin counts steps, and grows with what each session may have cached', () => {
  assert.is(sequenceValue(sequence({ increment: 10n }), 100n), 10_100n);
  assert.is(sequenceValue(sequence({ cache: 100n }), 100n), 3_300n);
  assert.is(sequenceValue(sequence({ cache: 31n }), 100n), 1_100n);
});

test('near its bound a sequence goes on behind the last row, and refuses no insert', () => {
  assert.is(sequenceValue(sequence({ max: 500n }), 100n), 100n);
  assert.is(sequenceValue(sequence({ max: int64Max }), int64Max - 5n), int64Max - 5n);
  const down = { increment: -1n, min: -500n, max: -1n, lastValue: -1n };
  assert.is(sequenceValue(sequence(down), -100n), -100n);
});

const anyFacts = fc
  .record({
    down: fc.boolean(),
    step: fc.bigInt({ min: 1n, max: 10n ** 6n }),
    cache: fc.bigInt({ min: 1n, max: 10n ** 6n }),
    bounds: fc.uniqueArray(fc.bigInt({ min: -int64Max - 1n, max: int64Max }), {
      minLength: 3,
      maxLength: 3,
    }),
    isCalled: fc.boolean(),
  })
  .map(({ down, step, cache, bounds, isCalled }) => {
    const [min = 0n, lastValue = 0n, max = 0n] = bounds.sort((a, b) => (a < b ? -1 : 1));
    const increment = down ? -step : step;
    return sequence({ increment, cache, min, max, lastValue, isCalled });
  });

test('no sequence ever goes backwards or out of its bounds', () => {
  const anyUsed = fc.option(fc.bigInt({ min: -int64Max - 1n, max: int64Max }), { nil: null });
  fc.assert(
    fc.property(anyFacts, anyUsed, (facts, used) => {
      const value = sequenceValue(facts, used);
      if (value === null) return;
      const ascending = facts.increment > 0n;
      assert.ok(ascending ? value >= facts.lastValue : value <= facts.lastValue);
      assert.ok(ascending ? value <= facts.max : value >= facts.min);
    }),
  );
});

test.run();
