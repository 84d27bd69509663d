/**
 * The end of the log: the newest checkpoint that every partition holds and all that was committed
 * past it, with torn batches, half epoch begins, compacted points and tails that are too short.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { formatEpochLsn } from '../../src/change/position.ts';
import { findLogEnd, type LogEnd, type Tail } from '../../src/topic/partition-tails.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { at, SketchedTopic } from '../support/builders.ts';

function tailsOf(
  topic: SketchedTopic,
  keep: (record: StreamRecord) => boolean = () => true,
  reachesStart = true,
): Tail[] {
  return topic.partitions.map((records, partition) => {
    return { partition, records: records.filter(keep), reachesStart };
  });
}

function shown(end: LogEnd | null) {
  if (end === null) return null;
  return {
    checkpoint: end.checkpoint === null ? null : formatEpochLsn(end.checkpoint.at),
    next: end.checkpoint?.nextOffsets.map(Number),
    pastCheckpoint: end.pastCheckpoint.map(
      ({ partition, offset, kind }) => `${partition}:${offset} ${kind}`,
    ),
  };
}

/** Two whole batches; the checkpoint is the second point, at offset 4 in partition 0 and 3 in 1. */
function twoBatches(): SketchedTopic {
  const topic = new SketchedTopic(2);
  topic.begin(1, 0, { base: null });
  topic.row(0, 10, 'a', '1').point(16);
  return topic.row(1, 20, 'b', '1').point(32);
}

const atSecond = { checkpoint: '1:0/20', next: [5, 5], pastCheckpoint: [] };

test('the newest point that all partitions hold is the checkpoint', () => {
  const end = findLogEnd(tailsOf(twoBatches()));
  assert.equal(shown(end), atSecond);
  assert.is(end?.point?.upto, 32n);
  assert.is(end?.begin, null);
});

test('a whole epoch begin is the checkpoint', () => {
  const end = findLogEnd(tailsOf(twoBatches().begin(2, 7)));
  assert.equal(shown(end), { checkpoint: '2:0/7', next: [6, 6], pastCheckpoint: [] });
  assert.is(end?.begin?.epoch, 2);
  assert.is(end?.point, null);
});

test('records committed past equal last points are found', () => {
  const end = findLogEnd(tailsOf(twoBatches().row(1, 32, 'c', '1')));
  assert.equal(shown(end), { ...atSecond, pastCheckpoint: ['1:5 row'] });
});

test('a point in some partitions only is past the checkpoint', () => {
  const torn = twoBatches().row(0, 40, 'c', '1').row(1, 40, 'd', '1').point(48, {}, [0]);
  const pastCheckpoint = ['0:5 row', '0:6 point', '1:5 row'];
  assert.equal(shown(findLogEnd(tailsOf(torn))), { ...atSecond, pastCheckpoint });
});

test('a half epoch begin is past the checkpoint', () => {
  const half = twoBatches().begin(2, 7, {}, [1]);
  assert.equal(shown(findLogEnd(tailsOf(half))), { ...atSecond, pastCheckpoint: ['1:5 epoch'] });
});

test('where compaction removed the point before a torn one, the torn one names it', () => {
  const torn = twoBatches().row(1, 40, 'd', '1').point(48, {}, [0]);
  // Each partition keeps its last point: the checkpoint's own record is left in partition 1 alone.
  const tails = tailsOf(torn).map(({ records, ...tail }) => {
    const points = records.filter(({ kind }) => kind === 'point');
    const last = points[points.length - 1];
    const kept = records.filter((record) => record.kind !== 'point' || record === last);
    return { ...tail, records: kept };
  });
  const end = findLogEnd(tails);
  assert.equal(shown(end), { ...atSecond, pastCheckpoint: ['0:5 point', '1:5 row'] });
  assert.is(end?.point?.upto, 32n, 'the other partition still holds the record of the checkpoint');
  // The same without the epoch begin, which could be the checkpoint.
  const bare = tails.map(({ records, ...tail }) => {
    return { ...tail, records: records.filter(({ kind }) => kind !== 'epoch') };
  });
  assert.equal(shown(findLogEnd(bare)), { ...atSecond, pastCheckpoint: ['0:5 point', '1:5 row'] });
});

test('tails without a common checkpoint that do not reach the start are too short', () => {
  const topic = twoBatches().row(1, 40, 'd', '1');
  const rows = tailsOf(topic, ({ kind }) => kind === 'row', false);
  assert.is(findLogEnd(rows), null);
  const [first, second] = tailsOf(topic, () => true, false) as [Tail, Tail];
  assert.is(findLogEnd([first, { ...second, records: second.records.slice(-1) }]), null);
  assert.is(findLogEnd([first, { ...second, records: [] }]), null);
  assert.equal(shown(findLogEnd([first, second])), { ...atSecond, pastCheckpoint: ['1:5 row'] });
});

test('a tail that begins after the checkpoint that a torn point names is too short', () => {
  const torn = twoBatches().row(0, 40, 'c', '1').point(48, {}, [0]);
  const [first, second] = tailsOf(torn, () => true, false) as [Tail, Tail];
  assert.is(findLogEnd([{ ...first, records: first.records.slice(-1) }, second]), null);
});

test('an empty topic has no checkpoint', () => {
  const empty = tailsOf(new SketchedTopic(3));
  assert.equal(shown(findLogEnd(empty)), { checkpoint: null, next: undefined, pastCheckpoint: [] });
});

test('without any checkpoint everything is past it', () => {
  const topic = new SketchedTopic(2).begin(1, 0, { base: null }, [0]);
  assert.equal(shown(findLogEnd(tailsOf(topic)))?.pastCheckpoint, ['0:1 epoch']);
});

test('unhealed is what the last point has; at an epoch begin, what its base may have', () => {
  const since = { at: at(1, 16), nextOffsets: [3n, 2n] };
  const healed = twoBatches();
  assert.is(findLogEnd(tailsOf(healed))?.unhealed, null);
  const base = { at: at(1, 32), nextOffsets: [5n, 5n] };
  assert.equal(findLogEnd(tailsOf(healed.begin(2, 7)))?.unhealed, base);
  const unhealed = twoBatches().row(0, 32, 'c', '1').point(48, { unhealed: since });
  assert.equal(findLogEnd(tailsOf(unhealed))?.unhealed, since);
  assert.equal(findLogEnd(tailsOf(unhealed.begin(2, 7)))?.unhealed, since);
  const [first, second] = tailsOf(unhealed, (record) => record.kind === 'epoch', false);
  assert.is(first && second && findLogEnd([first, second]), null, 'the base is further back');
});

test.run();
