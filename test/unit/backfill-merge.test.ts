/**
 * How a backfill is merged into the stream, case by case. That no row is lost or undone
 * in any order of events is shown in test/model/backfill.test.ts.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Checkpoint, RowChange } from '../../src/change/change.ts';
import { BackfillMerge, type ChunkRead } from '../../src/leader/backfill/backfill-merge.ts';
import { at, shapeOf } from '../support/builders.ts';

const shape = shapeOf('public.t', 'id int', 'note text');
const unread = { after: null, rows: 0, estimate: null, since: null };
const before: Checkpoint = { at: at(1, 10), nextOffsets: [1n] };
const nowMs = 5_000;

function chunkOf(ids: readonly string[], isLast = false, xmax = 100n): ChunkRead {
  const snapshot = { xmin: xmax, xmax, running: new Set<bigint>() };
  const rows = ids.map((id) => ({ identity: [id], values: [id, 'old'] }));
  return { shape, snapshot, rows, isLast, estimate: 7 };
}

function change(id: string): RowChange {
  const head = { kind: 'row', op: 'u', relation: shape, unchanged: [], was: null } as const;
  return { ...head, identity: [id], values: [id, 'new'] };
}

function merged(...relations: readonly string[]): BackfillMerge {
  const merge = new BackfillMerge(relations.map((relation) => ({ relation, ...unread })));
  merge.setHorizon(1n, merge.forgotten);
  return merge;
}

const chunks = suite('BackfillMerge');

chunks('chunk follows chunk, two at a time, table after table', () => {
  const merge = merged('public.t', 'public.u');
  assert.equal(merge.next(), { relationId: 'public.t', after: null });
  merge.read('1', chunkOf(['1', '2']));
  assert.equal(merge.next(), { relationId: 'public.t', after: ['2'] });
  merge.read('2', chunkOf(['3'], true));
  assert.is(merge.next(), null, 'two chunks wait for their watermarks');
  assert.equal(merge.takeForPoint(null)[0], { relation: 'public.t', ...unread });
  const ids = merge.take('1', before, nowMs)?.rows.map(({ identity }) => identity[0]);
  assert.equal(ids, ['1', '2']);
  const so = { relation: 'public.t', after: ['2'], rows: 2, estimate: 7, since: nowMs };
  assert.equal(merge.takeForPoint(null)[0], so);
  assert.equal(merge.next(), { relationId: 'public.u', after: null });
  assert.is(merge.take('2', before, nowMs)?.rows.length, 1);
  assert.equal(
    merge.takeForPoint(null).map(({ relation }) => relation),
    ['public.u'],
  );
});

chunks('a key that was streamed is left out, until a snapshot saw its change', () => {
  const merge = merged('public.t');
  merge.row(change('1'), 150, before);
  merge.row(change('2'), 90, before);
  merge.read('1', chunkOf(['1', '2', '3']));
  const first = merge.take('1', before, nowMs)?.rows ?? [];
  assert.equal(
    first.map(({ identity, op }) => [identity[0], op]),
    [['3', 'r']],
  );
  merge.read('2', chunkOf(['1', '2'], true, 200n));
  const second = merge.take('2', before, nowMs)?.rows ?? [];
  assert.equal(
    second.map(({ identity }) => identity[0]),
    ['2'],
    'the first chunk saw 90, and not 150',
  );
});

chunks('a table is complete once its partial rows were reselected', () => {
  const merge = merged('public.t');
  merge.read('1', chunkOf([], true));
  assert.equal(merge.take('1', before, nowMs), { shape, rows: [] });
  assert.ok(merge.isDone);
  assert.is(merge.next(), null);
  assert.is(merge.takeForPoint(before).length, 1);
  assert.is(merge.takeForPoint({ ...before, at: at(1, 5) }).length, 1);
  assert.equal(merge.takeForPoint({ ...before, at: at(1, 11) }), []);
  assert.equal(merge.takeForPoint(before), [], 'complete stays complete');
});

chunks(
  'nothing is read before the horizon is known, and no chunk counts that does not see it',
  () => {
    const merge = new BackfillMerge([{ relation: 'public.t', ...unread }]);
    assert.ok(merge.wantsHorizon);
    assert.is(merge.next(), null);
    merge.setHorizon(120n, merge.forgotten);
    assert.not(merge.read('1', chunkOf(['1'])), 'a transaction below 120 may be unseen');
    assert.ok(merge.read('2', chunkOf(['1'], false, 120n)));
    assert.ok(merge.read('3', chunkOf(['2'], false, 121n)));
  },
);

chunks('with more changes than can be remembered the open chunks are dropped', () => {
  const merge = new BackfillMerge([{ relation: 'public.t', ...unread }], { changedMax: 1 });
  merge.setHorizon(1n, merge.forgotten);
  merge.read('1', chunkOf(['1', '2']));
  merge.row(change('1'), 150, before);
  merge.row(change('2'), 150, before);
  assert.ok(merge.wantsHorizon);
  assert.is(merge.take('1', before, nowMs), null, 'what was read before does not count');
  merge.setHorizon(151n, merge.forgotten);
  assert.equal(merge.next(), { relationId: 'public.t', after: null });
});

chunks('a watermark of another run, or of an abandoned chunk, is ignored', () => {
  const merge = merged('public.t');
  merge.read('1', chunkOf(['1']));
  assert.is(merge.take('stranger', before, nowMs), null);
  merge.abandon('public.t');
  assert.is(merge.take('1', before, nowMs), null);
  assert.equal(merge.takeForPoint(null), [{ relation: 'public.t', ...unread }]);
});

chunks('changes of tables that are not backfilling are not remembered', () => {
  const merge = new BackfillMerge([], { changedMax: 1 });
  for (const id of ['1', '2', '3']) merge.row(change(id), 150, before);
  assert.ok(merge.isDone);
  const other = new BackfillMerge([{ relation: 'public.u', ...unread }], { changedMax: 1 });
  other.setHorizon(1n, other.forgotten);
  for (const id of ['1', '2', '3']) other.row(change(id), 150, before);
  assert.not(other.wantsHorizon);
});

chunks('a row of a read does not replace the transaction that changed its key', () => {
  const merge = merged('public.t');
  merge.row(change('1'), 150, before);
  merge.row({ ...change('1'), op: 'r' }, 90, before);
  merge.read('1', chunkOf([]));
  merge.take('1', before, nowMs);
  merge.read('2', chunkOf(['1'], true));
  assert.equal(merge.take('2', before, nowMs)?.rows, [], 'no snapshot has seen 150 yet');
});

chunks('after a failure the other tables are read first', () => {
  const merge = merged('public.t', 'public.u');
  merge.abandon('public.t');
  assert.is(merge.next()?.relationId, 'public.u');
});

chunks('a table that enters is named by a point, however soon it is read', () => {
  const merge = merged();
  merge.enter('public.t');
  merge.setHorizon(1n, merge.forgotten);
  merge.read('1', chunkOf([], true));
  merge.take('1', before, nowMs);
  assert.is(merge.takeForPoint(null).length, 1);
  assert.is(merge.takeForPoint(null).length, 0);
});

chunks('a resnapshot begins with the first row, whatever was read before', () => {
  const merge = merged('public.t');
  merge.row(change('9'), 150, before);
  merge.read('1', chunkOf(['1', '2']));
  merge.take('1', before, nowMs);
  merge.read('2', chunkOf(['3'], true));
  merge.restart('public.t');
  assert.equal(merge.takeForPoint(null), [{ relation: 'public.t', ...unread }]);
  assert.is(merge.take('2', before, nowMs), null, 'what was read before does not count');
  merge.setHorizon(160n, merge.forgotten);
  assert.equal(merge.next(), { relationId: 'public.t', after: null });
  assert.ok(merge.read('3', chunkOf(['9'], true, 160n)));
  const rows = merge.take('3', before, nowMs)?.rows ?? [];
  assert.is(rows.length, 1, 'what was streamed before does not count');
});

chunks('a complete table is backfilling at a resnapshot, and named by a point', () => {
  const merge = merged();
  merge.restart('public.t');
  merge.setHorizon(1n, merge.forgotten);
  merge.read('1', chunkOf([], true));
  merge.take('1', before, nowMs);
  assert.is(merge.takeForPoint(null).length, 1);
  assert.is(merge.takeForPoint(null).length, 0);
});

chunks('a horizon from before the last resnapshot is ignored', () => {
  const merge = new BackfillMerge([]);
  merge.restart('public.t');
  const { forgotten } = merge;
  merge.restart('public.t');
  merge.setHorizon(120n, forgotten);
  assert.ok(merge.wantsHorizon);
  assert.is(merge.next(), null);
  merge.setHorizon(130n, merge.forgotten);
  assert.not(merge.wantsHorizon);
});

chunks.run();
