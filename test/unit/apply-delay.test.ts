/**
 * What a delayed follower may apply: nothing younger than the delay, whatever the order of commit
 * times; everything that is old enough; and no check without effect.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { dueOf } from '../../src/follower/apply/apply-portion.ts';
import type { Aligned } from '../../src/follower/apply/stages.ts';
import { at, beginOf, pointOf } from '../support/builders.ts';

const delayMs = 1_000;
const checkpoint = { at: at(1, 20), nextOffsets: [] };

/** A batch with rows of that commit time, or a point without any that was appended then. */
function batch(commitMicros: bigint | null, appendMs = 0): Aligned {
  return {
    kind: 'batch',
    point: pointOf({ commitTimeMicros: commitMicros ?? 0n }),
    partitions: [],
    bytes: 0,
    checkpoint,
    appendMs: [appendMs, appendMs - 1],
    newestCommitMicros: commitMicros,
  };
}

function epoch(appendMs: number): Aligned {
  return { kind: 'epoch', begin: beginOf({ epoch: 2 }), checkpoint, appendMs: [appendMs] };
}

test('without a delay all is due at once', () => {
  const far = batch(9_000_000_000n);
  assert.equal(dueOf([far, far], 0, 0), { count: 2, inMs: null });
});

test('a batch is due when its newest row is as old as the delay, not a microsecond before', () => {
  assert.equal(dueOf([batch(5_000_000n)], delayMs, 6_000), { count: 1, inMs: null });
  assert.equal(dueOf([batch(5_000_000n)], delayMs, 5_999), { count: 0, inMs: 1 });
  assert.equal(dueOf([batch(5_000_001n)], delayMs, 6_000), { count: 0, inMs: 1 });
});

test('a batch that waits holds up what is behind it, however old that is', () => {
  const waiting = [batch(1_000_000n), batch(5_000_000n), batch(2_000_000n), epoch(0)];
  assert.equal(dueOf(waiting, delayMs, 3_500), { count: 1, inMs: 2_500 });
});

test('a point without rows and an epoch begin wait since they were appended', () => {
  assert.equal(dueOf([batch(null, 4_000)], delayMs, 4_999), { count: 0, inMs: 1 });
  assert.equal(dueOf([batch(null, 4_000)], delayMs, 5_000), { count: 1, inMs: null });
  assert.equal(dueOf([epoch(4_000)], delayMs, 4_999), { count: 0, inMs: 1 });
  assert.equal(dueOf([epoch(4_000)], delayMs, 5_000), { count: 1, inMs: null });
});

test('what has no row delays no other batch', () => {
  const waiting = [batch(null, 9_000), epoch(9_500), batch(3_000_000n), batch(4_500_000n)];
  assert.equal(dueOf(waiting, delayMs, 4_000), { count: 3, inMs: 1_500 });
});

test('a leader whose clock is far ahead is checked again, in a minute', () => {
  assert.equal(dueOf([batch(4_000_000_000_000n)], delayMs, 0), { count: 0, inMs: 60_000 });
});

const anyAligned = fc.oneof(
  fc.integer({ min: 0, max: 9_999_999 }).map((micros) => batch(BigInt(micros))),
  fc.integer({ min: 0, max: 9_999 }).map((ms) => batch(null, ms)),
  fc.integer({ min: 0, max: 9_999 }).map(epoch),
);

test('over any order of times nothing young is due, and the next check finds more', () => {
  const any = fc.tuple(
    fc.array(anyAligned, { maxLength: 8 }),
    fc.integer({ min: 1, max: 3_000 }),
    fc.integer({ min: 0, max: 12_000 }),
  );
  fc.assert(
    fc.property(any, ([waiting, delay, nowMs]) => {
      const { count, inMs } = dueOf(waiting, delay, nowMs);
      for (const aligned of waiting.slice(0, count)) {
        const micros = aligned.kind === 'epoch' ? null : aligned.newestCommitMicros;
        const ageMs = nowMs - Number(micros ?? 0n) / 1000;
        assert.ok(micros === null || ageMs >= delay, `a row of ${ageMs} ms is due`);
      }
      if (inMs === null) assert.is(count, waiting.length, 'some wait without another check');
      else assert.ok(dueOf(waiting, delay, nowMs + inMs).count > count, 'a check without effect');
    }),
    { numRuns: 5_000 },
  );
});

test.run();
