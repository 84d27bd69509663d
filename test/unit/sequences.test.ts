/**
 * What a sequence is set to on a node that is promoted or detached: past everything that may have
 * been handed out, in its own direction, never backwards and never out of its bounds, and not past
 * a single value at the end of its range.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { boundedLists, leftOutLines } from '../../src/fleet/promotion/answer-bounds.ts';
import {
  type GapSearch,
  judgeSequence,
  type SequenceKnown,
} from '../../src/fleet/promotion/sequence-value.ts';

const int64Max = 2n ** 63n - 1n;
const int32Max = 2n ** 31n - 1n;

type Changes = Partial<SequenceKnown['sequence']>;

function column(max: bigint | null): SequenceKnown['sequence']['columns'][number] {
  return { schema: 'public', table: 't', column: 'id', max, isPartitioned: false };
}

function sequence(changes: Changes = {}): SequenceKnown['sequence'] {
  const bounds = { increment: 1n, cache: 1n, min: 1n, max: int64Max, cycles: false };
  return { ...bounds, columns: [column(int64Max)], ...changes };
}

function known(
  changes: Changes,
  facts: Partial<Omit<SequenceKnown, 'sequence'>> = {},
): SequenceKnown {
  const nothing = { lastValue: null, published: null, used: null };
  return { sequence: sequence(changes), ...nothing, ...facts };
}

/** How far the leader's was. */
function at(lastValue: bigint, stride = 0n, isCalled = true): SequenceKnown['published'] {
  return { lastValue, stride, isCalled };
}

/** As the statement searches among these values; all are within the bounds. */
function search(values: readonly bigint[], { from, gap, to }: GapSearch, up: boolean) {
  const sign = up ? 1n : -1n;
  const turned = values.map((value) => value * sign).sort((a, b) => (a < b ? -1 : 1));
  if (from !== null) {
    let last = from * sign;
    for (const value of turned) {
      if (value <= last) continue;
      if (value - last > gap) break;
      last = value;
    }
    return last * sign;
  }
  let next = to * sign;
  for (const value of turned.toReversed()) {
    if (next - value >= gap) return value * sign;
    next = value;
  }
  return null;
}

interface Judged {
  readonly value: bigint | null;
  readonly lack: string | null;
}

/** With the rows that the column holds. */
function judged(facts: SequenceKnown, rows: readonly bigint[] = []): Judged {
  const { increment, min, max } = facts.sequence;
  const up = increment > 0n;
  const within = rows.filter((value) => value >= min && value <= max);
  const used = within.reduce<bigint | null>((a, b) => {
    return a === null || (up ? b > a : b < a) ? b : a;
  }, null);
  const first = judgeSequence({ ...facts, used });
  if (first.kind === 'set') return { value: first.value, lack: first.lack };
  const behindGap = search(within, first, up);
  const second = judgeSequence({ ...facts, used, behindGap });
  assert.ok(second.kind === 'set', 'one search is enough');
  return { value: second.value, lack: second.lack };
}

test('the position of the leader decides, with a margin that grows with caches and strides', () => {
  const valueAt = (changes: Changes, published: SequenceKnown['published']): bigint | null =>
    judged(known(changes, { published })).value;
  assert.is(valueAt({}, at(50n)), 1_050n);
  assert.is(valueAt({ increment: 10n }, at(100n)), 10_100n);
  assert.is(valueAt({ cache: 100n }, at(100n)), 3_300n);
  assert.is(valueAt({ cache: 31n }, at(100n)), 1_100n);
  assert.is(valueAt({}, at(100n, 20_000n)), 80_100n);
  const down = { increment: -2n, min: -int64Max, max: -1n };
  assert.is(valueAt(down, at(-30n)), -2_030n);
});

test('a sequence is never behind the position, whatever columns of other types hold', () => {
  const columns = [column(null)];
  assert.equal(judged(known({ columns }, { published: at(7n) })), { value: 1_007n, lack: null });
  assert.is(judged(known({ columns: [] }, { published: at(7n) })).value, 1_007n);
  // Read before its first value: a row may have taken some since.
  assert.is(judged(known({ columns }, { published: at(1n, 0n, false) })).value, 1_000n);
});

test('a sequence that was never used, of integer columns without a value, is left alone', () => {
  const nothing = { value: null, lack: null };
  assert.equal(judged(known({}, { published: at(1n, 0n, false) })), nothing);
  assert.equal(judged(known({})), nothing);
});

test('rows past the position count, as far as they are of the sequence', () => {
  const published = at(100n);
  assert.is(judged(known({}, { published }), [90n]).value, 1_100n);
  assert.is(judged(known({}, { published }), [130n, 250n]).value, 1_250n);
  assert.is(judged(known({}, { published }), [900_000n]).value, 901_000n);
  const million = Array.from({ length: 30 }, (_, i) => BigInt(i + 1) * 100_000n);
  assert.is(judged(known({}, { published }), million).value, 3_001_000n);
});

test('one value at the end of the range does not use the sequence up', () => {
  const serial = { max: int32Max, columns: [column(int32Max)] };
  const ids = [1n, 2n, 10n, int32Max];
  assert.equal(judged(known(serial, { published: at(10n) }), ids), { value: 1_010n, lack: null });
  const guessed = judged(known(serial), ids);
  assert.is(guessed.value, 1_010n);
  assert.match(guessed.lack ?? '', /gap between 10 and the values up to 2147483647/);
  assert.is(judged(known(serial), [5n, int32Max - 1n, int32Max]).value, 1_005n);
  // A wider sequence cannot give what the column does not take.
  assert.is(judged(known({ columns: [column(int32Max)] }), ids).value, 1_010n);
  const down = { increment: -1n, min: -int32Max - 1n, max: -1n, columns: [column(int32Max)] };
  assert.is(
    judged(known(down, { published: at(-10n) }), [-1n, -10n, -int32Max - 1n]).value,
    -1_010n,
  );
  assert.is(judged(known(down), [-1n, -10n, -int32Max - 1n]).value, -1_010n);
  // Far away, but not at the end: there is no need to guess without the position.
  assert.is(judged(known(serial), [1n, 5_000_000n]).value, 5_001_000n);
  assert.is(judged(known(serial, { published: at(1n) }), [1n, 5_000_000n]).value, 1_001n);
});

test('without the position, columns decide; what none of them holds is lacking', () => {
  assert.equal(judged(known({}), [70n, 900_000n]), { value: 901_000n, lack: null });
  assert.is(judged(known({}, { lastValue: 50n })).value, 1_050n);
  assert.is(judged(known({}, { lastValue: 90n }), [70n]).value, 1_090n);
  const text = judged(known({ columns: [column(null)] }));
  assert.is(text.value, null);
  assert.match(text.lack ?? '', /no record/);
  assert.match(judged(known({ columns: [] })).lack ?? '', /no record/);
});

test('near its end a sequence continues behind the last value, and says when none is left', () => {
  const small = { max: 500n };
  assert.is(judged(known(small, { published: at(480n) })).value, 480n);
  assert.is(judged(known(small, { published: at(480n) })).lack, null);
  assert.match(judged(known(small, { published: at(500n) })).lack ?? '', /no value is left/);
  const all = Array.from({ length: 500 }, (_, i) => BigInt(i + 1));
  assert.is(judged(known(small), all).value, 500n);
  assert.match(judged(known(small), all).lack ?? '', /no value is left/);
});

test('a sequence that cycles begins again where its margin passes the end', () => {
  const cycle = { cycles: true, min: 1n, max: 20n };
  for (const last of [1n, 10n, 19n, 20n]) {
    const { value } = judged(known(cycle, { published: at(last), lastValue: 20n }), [20n]);
    assert.ok(value !== null && value >= 1n && value <= 20n, String(value));
  }
  assert.is(judged(known({ cycles: true, max: 32_000n }, { published: at(31_500n) })).value, 500n);
});

interface World {
  readonly facts: SequenceKnown;
  readonly rows: readonly bigint[];
  readonly handedOut: readonly bigint[];
}

/**
 * A leader that handed out values up to `count`, whose agent read the position `late` values before
 * the end; some values are in rows, and applications wrote others at the end of the range.
 */
const anyWorld = fc
  .record({
    down: fc.boolean(),
    step: fc.bigInt({ min: 1n, max: 50n }),
    cache: fc.bigInt({ min: 1n, max: 200n }),
    isShort: fc.boolean(),
    count: fc.integer({ min: 1, max: 3_000 }),
    late: fc.integer({ min: 0, max: 999 }),
    kept: fc.integer({ min: 1, max: 7 }),
    sentinels: fc.array(fc.bigInt({ min: 0n, max: 20n }), { maxLength: 3 }),
    isRead: fc.boolean(),
    lastValue: fc.option(fc.bigInt({ min: 1n, max: 4_000n }), { nil: null }),
  })
  .map((world): World => {
    const { down, step, cache, isShort, count, late, kept, sentinels, isRead } = world;
    const sign = down ? -1n : 1n;
    const end = isShort ? int32Max : int64Max;
    const handedOut = Array.from({ length: count }, (_, i) => sign * (1n + BigInt(i) * step));
    const rows = handedOut.filter((_, i) => i % kept === 0);
    const read = handedOut[count - 1 - Math.min(late, count - 1)] ?? sign;
    const bounds = down ? { min: -end, max: -1n } : { min: 1n, max: end };
    const columns = [column(isShort ? int32Max : int64Max)];
    const facts = known(
      { increment: sign * step, cache, ...bounds, columns },
      {
        published: isRead ? at(read) : null,
        lastValue: world.lastValue === null ? null : sign * world.lastValue,
      },
    );
    return { facts, rows: [...rows, ...sentinels.map((far) => sign * (end - far))], handedOut };
  });

function next({ sequence: { increment } }: SequenceKnown, { value }: Judged): bigint | null {
  return value === null ? null : value + increment;
}

test('no value is given that was handed out, nor soon one that a row holds', () => {
  fc.assert(
    fc.property(anyWorld, ({ facts, rows, handedOut }) => {
      const decision = judged(facts, rows);
      const first = next(facts, decision) ?? facts.lastValue;
      const { increment } = facts.sequence;
      assert.ok(first !== null, 'there are rows');
      const given = Array.from({ length: 100 }, (_, i) => first + BigInt(i) * increment);
      const taken = new Set(facts.published === null ? rows : [...rows, ...handedOut]);
      const twice = given.find((value) => taken.has(value) && decision.value !== null);
      assert.is(twice, undefined);
      const { min, max } = facts.sequence;
      assert.ok(
        given.every((value) => value >= min && value <= max),
        'inserts are possible',
      );
    }),
    { numRuns: 2_000 },
  );
});

test('no sequence ever goes backwards or out of its bounds', () => {
  const anyValue = fc.bigInt({ min: -int64Max - 1n, max: int64Max });
  const anyFacts = fc.record({
    down: fc.boolean(),
    step: fc.bigInt({ min: 1n, max: int64Max }),
    cache: fc.bigInt({ min: 1n, max: int64Max }),
    ends: fc.tuple(anyValue, anyValue),
    cycles: fc.boolean(),
    last: fc.option(anyValue, { nil: null }),
    position: fc.option(anyValue, { nil: null }),
    isCalled: fc.boolean(),
    stride: fc.bigInt({ min: 0n, max: 1_000_000n }),
    rows: fc.array(anyValue, { maxLength: 5 }),
    columnMax: fc.constantFrom(null, 32_767n, int32Max, int64Max),
  });
  fc.assert(
    fc.property(anyFacts, (any) => {
      const [min, max] = any.ends[0] < any.ends[1] ? any.ends : [any.ends[1], any.ends[0]];
      if (min === max) return;
      const within = (value: bigint): bigint => (value < min ? min : value > max ? max : value);
      const lastValue = any.last === null ? null : within(any.last);
      const { cache, cycles, position, stride, isCalled } = any;
      const increment = any.down ? -any.step : any.step;
      const columns = [column(any.columnMax)];
      const published = position === null ? null : at(position, stride, isCalled);
      const facts = known(
        { increment, cache, min, max, cycles, columns },
        { lastValue, published },
      );
      const { value } = judged(facts, any.columnMax === null ? [] : any.rows);
      if (value === null) return;
      assert.ok(value >= min && value <= max);
      if (lastValue === null || cycles) return;
      assert.ok(any.down ? value < lastValue : value > lastValue);
    }),
    { numRuns: 5_000 },
  );
});

test('an answer with ten thousand sequences fits into a record', () => {
  const many = Array.from({ length: 10_000 }, (_, i) => i);
  const sequences = many.map((i) => {
    return { sequence: `public.${'s'.repeat(60)}${i}`, from: null, to: String(int64Max) };
  });
  const lacks = many.map((i) => `the position of the sequence public.s${i}: its lock was held`);
  const bounded = boundedLists({ sequences, lacks });
  assert.ok(JSON.stringify(bounded).length < 500_000);
  assert.equal(bounded.sequences, sequences.slice(0, bounded.sequences.length));
  assert.ok(bounded.sequences.length >= 100 && bounded.lacks.length >= 100);
  assert.is(bounded.sequences.length + bounded.leftOut.sequences, sequences.length);
  assert.is(bounded.lacks.length + bounded.leftOut.lacks, lacks.length);
  assert.match(leftOutLines(bounded)[0] ?? '', `and ${bounded.leftOut.sequences} more sequences`);
  const huge = boundedLists({ sequences: [], lacks: ['short', 'x'.repeat(2_000_000)] });
  assert.equal(huge, {
    ...{ sequences: [], lacks: ['short'], leftOut: { sequences: 0, lacks: 1 } },
  });
  const few = { sequences: sequences.slice(0, 3), lacks: lacks.slice(0, 3) };
  assert.equal(boundedLists(few), { ...few, leftOut: { sequences: 0, lacks: 0 } });
  assert.equal(leftOutLines(boundedLists(few)), []);
});

test.run();
