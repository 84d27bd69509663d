/**
 * What goes into one Kafka transaction and what its point says, event by event: whole source
 * transactions, right counts, exact ends, and no more idle points than needed.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Checkpoint, Point } from '../../src/change/change.ts';
import { Batcher, type BatcherOptions } from '../../src/leader/stream/batcher.ts';
import type { BatchAction } from '../../src/leader/stream/stages.ts';
import type { OutgoingRecord } from '../../src/topic/log.ts';
import { at, lsn, streamId } from '../support/builders.ts';

function batcherOf(changes: Partial<BatcherOptions> = {}): Batcher {
  return new Batcher({
    streamId,
    epoch: 3,
    partitions: 2,
    recordsMax: 4,
    bytesMax: 1_000,
    idleSoonMs: 100,
    idleEveryMs: 1_000,
    start: { at: at(3, 100), nextOffsets: [5n, 6n] },
    lastCommit: lsn(90),
    observer: { takeForPoint: () => ({ unhealed: null, unfinished: [] }) },
    lastCommitTimeMicros: 9n,
    ...changes,
  });
}

function record(partition: number, bytes = 2): OutgoingRecord {
  return { partition, key: Buffer.alloc(1), value: Buffer.alloc(bytes - 1), headers: {} };
}

/** A whole source transaction, one record for each partition named. */
function transaction(batcher: Batcher, commit: number, end: number, ...partitions: number[]): void {
  batcher.begin(lsn(commit), BigInt(commit));
  batcher.add(partitions.map((partition) => record(partition)));
  batcher.end(lsn(end));
}

function pointOf(action: BatchAction): Point {
  if (action.kind !== 'commit') throw new Error(`${action.kind} is no commit`);
  return action.point;
}

function commit(batcher: Batcher, nowMs = 0): Point {
  const point = pointOf(batcher.next(nowMs));
  batcher.committed({ at: { epoch: 3, lsn: point.upto }, nextOffsets: [7n, 8n] });
  return point;
}

const nothing = { kind: 'wait', atMs: null } as const;

test('without records it waits for an event', () => {
  assert.equal(batcherOf().next(0), nothing);
});

test('a batch is whole transactions, and its point covers all of them', () => {
  const batcher = batcherOf();
  transaction(batcher, 100, 110, 0, 1);
  transaction(batcher, 120, 130, 1);
  const action = batcher.next(0);
  assert.is(action.kind === 'commit' && action.records.length, 3);
  assert.equal(pointOf(action), {
    streamId,
    label: null,
    epoch: 3,
    commit: 120n,
    upto: 130n,
    commitTimeMicros: 120n,
    counts: [1, 2],
    previous: { at: at(3, 100), nextOffsets: [5n, 6n] },
    unfinished: [],
    uncovered: [],
    unhealed: null,
  });
});

test('each point continues the one before, with counts of its own', () => {
  const batcher = batcherOf();
  transaction(batcher, 100, 110, 0);
  commit(batcher);
  assert.equal(batcher.next(0), nothing);
  transaction(batcher, 110, 120, 1);
  const point = commit(batcher);
  assert.equal(point.previous, { at: at(3, 110), nextOffsets: [7n, 8n] });
  assert.equal(point.counts, [0, 1]);
});

test('what arrives while a commit is in flight is in the next batch alone', () => {
  const batcher = batcherOf();
  transaction(batcher, 100, 110, 0);
  const first = pointOf(batcher.next(0));
  transaction(batcher, 110, 120, 1, 1);
  assert.equal([first.upto, first.counts], [110n, [1, 0]]);
  batcher.committed({ at: at(3, 110), nextOffsets: [7n, 8n] });
  const second = pointOf(batcher.next(0));
  assert.equal([second.upto, second.counts, second.previous.at], [120n, [0, 2], at(3, 110)]);
});

test('an open transaction delays the batch in which it began', () => {
  const batcher = batcherOf();
  transaction(batcher, 100, 110, 0);
  batcher.begin(lsn(120), 1n);
  batcher.add([record(1)]);
  assert.equal(batcher.next(0), nothing);
  batcher.end(lsn(130));
  const point = commit(batcher);
  assert.equal([point.upto, point.counts], [130n, [1, 1]]);
});

test('a keepalive after a transaction is covered by its point', () => {
  const batcher = batcherOf();
  transaction(batcher, 100, 110, 0);
  batcher.keepalive(lsn(150));
  const point = commit(batcher);
  assert.equal([point.upto, point.commit], [150n, 100n]);
});

test('a keepalive inside of a transaction has no effect', () => {
  const batcher = batcherOf();
  batcher.begin(lsn(120), 1n);
  batcher.keepalive(lsn(200));
  batcher.add([record(0)]);
  batcher.end(lsn(130));
  assert.is(commit(batcher).upto, 130n);
  assert.equal(batcher.next(0), nothing);
});

test('a keepalive with an older LSN has no effect', () => {
  const batcher = batcherOf();
  batcher.keepalive(lsn(99));
  batcher.keepalive(lsn(100));
  assert.equal(batcher.next(0), nothing);
});

test('a named point is directly at the end of its transaction and ends its batch', () => {
  const batcher = batcherOf();
  batcher.keepalive(lsn(115));
  batcher.begin(lsn(120), 1n);
  batcher.label('noon');
  assert.ok(batcher.accepts, 'the rest of the transaction is accepted');
  batcher.end(lsn(130));
  assert.not(batcher.accepts, 'another transaction is not');
  batcher.keepalive(lsn(150));
  const point = commit(batcher);
  assert.equal([point.label, point.upto, point.counts], ['noon', 130n, [0, 0]]);
  assert.ok(batcher.accepts);
  const idle = commit(batcher, 1_000);
  assert.equal([idle.label, idle.upto, idle.commit], [null, 150n, 120n]);
});

test('idle points are frequent after a change, then rarer, and only when WAL moves', () => {
  const batcher = batcherOf();
  transaction(batcher, 100, 110, 0);
  commit(batcher, 0);
  const times: number[] = [];
  for (let nowMs = 0; nowMs <= 4_000; nowMs += 10) {
    batcher.keepalive(lsn(200 + nowMs));
    const action = batcher.next(nowMs);
    if (action.kind === 'wait') continue;
    times.push(nowMs);
    batcher.committed({ at: { epoch: 3, lsn: pointOf(action).upto }, nextOffsets: [] });
  }
  const soon = [100, 200, 300, 400, 500, 600, 700, 800, 900, 1_000];
  assert.equal(times, [...soon, 2_000, 3_000, 4_000]);
  assert.equal(batcher.next(99_999), nothing);
  // After a transaction they are frequent again.
  transaction(batcher, 9_000, 9_010, 0);
  commit(batcher, 5_000);
  batcher.keepalive(lsn(9_020));
  assert.equal(batcher.next(5_000), { kind: 'wait', atMs: 5_100 });
});

test('a transaction larger than the bound goes out in pieces that its point counts', () => {
  const batcher = batcherOf();
  transaction(batcher, 100, 110, 0);
  batcher.begin(lsn(120), 1n);
  batcher.add([record(0), record(1), record(1)]);
  assert.not(batcher.accepts);
  const piece = batcher.next(0);
  assert.is(piece.kind === 'send' && piece.records.length, 4);
  assert.ok(batcher.accepts);
  assert.equal(batcher.next(0), nothing, 'no point inside of a transaction');
  batcher.add([record(0)]);
  batcher.end(lsn(130));
  const last = batcher.next(0);
  assert.is(last.kind === 'commit' && last.records.length, 1);
  assert.equal(pointOf(last).counts, [3, 2]);
});

test('bytes bound what waits as records do; a tombstone counts by its key', () => {
  const batcher = batcherOf({ bytesMax: 10, recordsMax: 1_000 });
  batcher.begin(lsn(120), 1n);
  batcher.add([record(0, 9)]);
  assert.ok(batcher.accepts);
  batcher.add([{ partition: 0, key: Buffer.alloc(1), value: null, headers: {} }]);
  assert.not(batcher.accepts);
  assert.is(batcher.next(0).kind, 'send');
  assert.ok(batcher.accepts);
});

type Event = { readonly rows: readonly number[]; readonly walEnd: number; readonly label: boolean };

const anyEvent: fc.Arbitrary<Event> = fc.record({
  rows: fc.array(fc.nat({ max: 1 }), { maxLength: 9 }),
  walEnd: fc.nat({ max: 5 }),
  label: fc.boolean(),
});

test('in any run no record is lost or separated from its point, and ends only grow', () => {
  fc.assert(
    fc.property(fc.array(anyEvent), fc.array(fc.boolean()), (events, looks) => {
      const batcher = batcherOf();
      let sent = [0, 0];
      let end = 100;
      let upto = lsn(100);
      const labels: string[] = [];
      const act = (): void => {
        const action = batcher.next(0);
        if (action.kind === 'wait') return;
        for (const { partition } of action.records) sent[partition] = (sent[partition] ?? 0) + 1;
        if (action.kind === 'send') return;
        const { point } = action;
        assert.equal(point.counts, sent);
        assert.ok(point.upto > upto && point.upto <= lsn(end));
        assert.is(point.previous.at.lsn, upto);
        upto = point.upto;
        if (point.label !== null) labels.push(`${point.label} ${point.upto}`);
        sent = [0, 0];
        batcher.committed({ at: { epoch: 3, lsn: upto }, nextOffsets: [] });
      };
      const expected: string[] = [];
      for (const [i, { rows, walEnd, label }] of events.entries()) {
        while (!batcher.accepts) act();
        batcher.begin(lsn(end), 1n);
        for (const partition of rows) {
          while (!batcher.accepts) act();
          batcher.add([record(partition)]);
          if (looks[i] === true) act();
        }
        if (label) batcher.label(`l${i}`);
        end += 1;
        batcher.end(lsn(end));
        if (label) expected.push(`l${i} ${end}`);
        end += walEnd;
        batcher.keepalive(lsn(end));
        if (looks[i] !== true) act();
      }
      for (let i = 0; i < 3; i += 1) act();
      assert.equal(labels, expected);
      assert.equal(sent, [0, 0], 'every record is covered by a point');
    }),
    { numRuns: 500 },
  );
});

test('a point says since where rows are partial when it is taken', () => {
  let unhealed: Checkpoint | null = null;
  const batcher = batcherOf({
    observer: { takeForPoint: () => ({ unhealed, unfinished: [] }) },
  });
  transaction(batcher, 100, 120, 0);
  assert.is(commit(batcher).unhealed, null);
  const since = { at: at(3, 120), nextOffsets: [7n, 8n] };
  transaction(batcher, 120, 140, 1);
  unhealed = since;
  assert.equal(commit(batcher).unhealed, since);
  transaction(batcher, 140, 160, 1);
  unhealed = null;
  assert.is(commit(batcher).unhealed, null);
});

test.run();
