/**
 * Narrowing a difference down to its keys, over tables that are made up: whatever differs is found
 * or counted as "at least", nothing else is, and no answer is larger than it may be.
 */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type Bucket,
  type BucketQuestion,
  type BucketReader,
  type Buckets,
  defaultBounds,
  keyDigits,
  type Narrowed,
  type NarrowingBounds,
  narrow,
} from '../../src/verify/narrowing.ts';
import { addDigests } from '../../src/verify/table-digest.ts';

/** Value by key. */
type Rows = ReadonlyMap<string, string>;

function hashed(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** The answer of the SQL query, computed here; the ctid of a row is its key. */
function bucketsOf(rows: Rows, { digits, within }: BucketQuestion): Buckets {
  const buckets = new Map<string, Bucket>();
  for (const [key, value] of rows) {
    const place = hashed(key);
    if (!within.some((digit) => place.startsWith(digit))) continue;
    const hash = hashed(`${key}=${value}`);
    const [first, second] = [hash.slice(0, 16), hash.slice(16, 32)];
    const digest = { rows: 1n, sums: [BigInt(`0x${first}`), BigInt(`0x${second}`)] as const };
    const known = buckets.get(place.slice(0, digits));
    const sum = known === undefined ? digest : addDigests(known, digest);
    buckets.set(place.slice(0, digits), { ...sum, tid: known?.tid ?? key });
  }
  return buckets;
}

interface Outcome extends Narrowed {
  readonly questions: readonly BucketQuestion[];
  readonly largest: number;
}

async function narrowed(leader: Rows, follower: Rows, bounds?: NarrowingBounds): Promise<Outcome> {
  const questions: BucketQuestion[] = [];
  let largest = 0;
  const read: BucketReader = async (question) => {
    questions.push(question);
    assert.ok(questions.length <= keyDigits, 'it comes to an end');
    const both = {
      leader: bucketsOf(leader, question),
      follower: bucketsOf(follower, question),
    };
    largest = Math.max(largest, both.leader.size, both.follower.size);
    return both;
  };
  const rows = BigInt(Math.max(leader.size, follower.size));
  return { ...(await narrow(read, rows, bounds)), questions, largest };
}

/** Every difference, as `kind key`. */
function trueDifferences(leader: Rows, follower: Rows): ReadonlySet<string> {
  const keys = [...new Set([...leader.keys(), ...follower.keys()])];
  return new Set(
    keys.flatMap((key) => {
      const [here, there] = [leader.get(key), follower.get(key)];
      if (here === there) return [];
      if (there === undefined) return [`missing ${key}`];
      return [here === undefined ? `extra ${key}` : `different ${key}`];
    }),
  );
}

function listed({ found }: Narrowed): readonly string[] {
  return found.map(({ kind, leaderTid, followerTid }) => `${kind} ${leaderTid ?? followerTid}`);
}

function numbered(count: number, changes: Readonly<Record<string, string | null>> = {}): Rows {
  const rows = new Map(Array.from({ length: count }, (_, n) => [`k${n}`, 'v']));
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) rows.delete(key);
    else rows.set(key, value);
  }
  return rows;
}

const small: NarrowingBounds = { buckets: 256, listedRows: 40 };
const narrowing = suite('narrowing');

narrowing('a small table is listed at once, a large one in buckets', async () => {
  const changes = { k3: 'w', k7: null, more: 'v' };
  for (const count of [10, 40, 41, 300, 3_000]) {
    const outcome = await narrowed(numbered(count), numbered(count, changes), small);
    assert.equal(
      new Set(listed(outcome)),
      new Set(['different k3', 'missing k7', 'extra more']),
      String(count),
    );
    assert.is(outcome.rows, 3n);
    assert.is(outcome.exact, true);
    assert.is(outcome.questions.length === 1, count <= 40);
    assert.ok(outcome.largest <= small.buckets, String(outcome.largest));
  }
});

narrowing(
  'two rows that swap their values are found, although the values are the same',
  async () => {
    const leader = numbered(500, { k1: 'x', k2: 'y' });
    const outcome = await narrowed(leader, numbered(500, { k1: 'y', k2: 'x' }), small);
    assert.equal(new Set(listed(outcome)), new Set(['different k1', 'different k2']));
  },
);

narrowing('when everything differs, some are listed and the rest is a lower bound', async () => {
  const changed = new Map([...numbered(5_000)].map(([key]) => [key, 'w']));
  const outcome = await narrowed(numbered(5_000), changed, small);
  assert.is(outcome.exact, false);
  assert.ok(outcome.found.length > 0 && outcome.found.length <= small.listedRows);
  assert.ok(outcome.rows >= 256n && outcome.rows <= 5_000n, String(outcome.rows));
  assert.is(outcome.questions.length, 2, 'no pass is spent on what cannot be narrowed');

  // Rows that are missing can be counted without being listed.
  const none = await narrowed(numbered(5_000), new Map(), small);
  assert.is(none.rows, 5_000n);
});

narrowing('a bucket that is too large to be listed is split, whatever else differs', async () => {
  const bounds = { buckets: 16, listedRows: 3 };
  const changed = new Map([...numbered(2_000)].map(([key]) => [key, 'w']));
  const outcome = await narrowed(numbered(2_000), changed, bounds);
  assert.ok(outcome.found.length > 0, 'some keys are listed');
  assert.ok(outcome.rows >= 30n, 'what was left aside is counted at every step');
  assert.ok(outcome.largest <= 16, String(outcome.largest));
});

narrowing('rows that print otherwise the second time are counted, not forgotten', async () => {
  const read: BucketReader = async () => {
    const both = bucketsOf(numbered(5), { digits: keyDigits, within: [''] });
    return { leader: both, follower: both };
  };
  const outcome = await narrow(read, 5n, defaultBounds);
  assert.equal([outcome.found, outcome.rows, outcome.exact], [[], 1n, false]);
});

narrowing('whatever two tables hold, the listed keys are right and within the bounds', async () => {
  const value = fc.constantFrom('v', 'w');
  const rows = fc
    .array(fc.tuple(fc.integer({ min: 0, max: 400 }), value), { maxLength: 300 })
    .map((pairs): Rows => new Map(pairs.map(([key, text]) => [`k${key}`, text])));
  // Few rows that differ among many, as well as two tables that have little in common.
  const changed = rows.chain((leader) => {
    const edits = fc.array(fc.tuple(fc.integer({ min: 0, max: 400 }), fc.option(value)), {
      maxLength: 5,
    });
    return edits
      .map((some): Rows => {
        const follower = new Map(leader);
        for (const [key, text] of some) {
          if (text === null) follower.delete(`k${key}`);
          else follower.set(`k${key}`, text);
        }
        return follower;
      })
      .map((follower) => [leader, follower] as const);
  });
  const tables = fc.oneof(changed, fc.tuple(rows, rows));
  const bounds = fc.record({
    buckets: fc.constantFrom(16, 64, 256, 4_096),
    listedRows: fc.integer({ min: 1, max: 60 }),
  });
  const property = fc.asyncProperty(tables, bounds, async ([leader, follower], limits) => {
    const wanted = trueDifferences(leader, follower);
    // It is asked only where the whole differs.
    fc.pre(wanted.size > 0);
    const outcome = await narrowed(leader, follower, limits);
    const found = listed(outcome);
    assert.is(new Set(found).size, found.length, 'no key twice');
    for (const one of found) assert.ok(wanted.has(one), `${one} is a difference`);
    assert.ok(outcome.rows >= BigInt(found.length));
    assert.ok(outcome.rows <= BigInt(wanted.size), 'at least is not more than there are');
    if (outcome.exact) assert.is(found.length, wanted.size);
    assert.ok(outcome.rows > 0n);
    assert.ok(outcome.largest <= Math.max(limits.buckets, limits.listedRows));
  });
  await fc.assert(property, { numRuns: 300 });
});

narrowing.run();
