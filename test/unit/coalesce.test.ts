/**
 * Steps against a model of tables: whatever batches say one record after the other, their steps say
 * too, at once or with an exact stop anywhere in between.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type EpochLsn, isCovered } from '../../src/change/position.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { Aligner } from '../../src/follower/apply/aligner.ts';
import { type ApplyLimit, nextPortion } from '../../src/follower/apply/apply-portion.ts';
import { coalesce } from '../../src/follower/apply/coalesce.ts';
import type { AlignedBatch, ApplyStep } from '../../src/follower/apply/stages.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { at, type Content, SketchedTopic, shapeOf, streamId } from '../support/builders.ts';

const start = at(1, 10);
const everything = { from: start, to: null };

/** Relation and key to value. */
type Tables = Map<string, string>;

function batchesOf({ partitions }: SketchedTopic): AlignedBatch[] {
  const checkpoint = { at: start, nextOffsets: partitions.map(() => 1n) };
  const aligner = new Aligner(streamId, checkpoint);
  for (const [partition, records] of partitions.entries()) aligner.push(partition, records);
  const batches: AlignedBatch[] = [];
  for (let next = aligner.next(); next?.kind === 'batch'; next = aligner.next()) batches.push(next);
  return batches;
}

function clear(tables: Tables, relationId: string): void {
  for (const key of tables.keys()) if (key.startsWith(`${relationId} `)) tables.delete(key);
}

/** As the applier does: all deletes of a step come before its upserts. */
function applySteps(tables: Tables, steps: readonly ApplyStep[]): void {
  for (const step of steps) {
    if (step.kind === 'relation' || step.kind === 'reread') continue;
    if (step.kind === 'truncate') {
      for (const id of step.relationIds) clear(tables, id);
    } else {
      for (const { deletes } of step.tables) {
        for (const { key } of deletes) tables.delete(key.toString());
      }
      for (const { upserts } of step.tables) {
        for (const { key, value } of upserts) tables.set(key.toString(), value.toString());
      }
    }
  }
}

/** The plain reading: one record after the other, below `to`; barriers of partition 0. */
function replay(topic: SketchedTopic, to: EpochLsn): Tables {
  const tables: Tables = new Map();
  const records = topic.partitions.flat().filter(({ position }) => isCovered(position, to));
  const order = (record: StreamRecord): number =>
    Number(record.position.commitLsn) * 1_000 + record.position.ordinal;
  for (const record of records.sort((a, b) => order(a) - order(b))) {
    if (record.kind === 'row') {
      if (record.value === null) tables.delete(record.key.toString());
      else tables.set(record.key.toString(), record.value.toString());
    } else if (record.kind === 'truncate' && record.partition === 0) {
      clear(tables, record.relationId);
    }
  }
  return tables;
}

interface Op {
  readonly kind: 'put' | 'delete' | 'truncate' | 'relation' | 'reread';
  readonly relation: 'a' | 'b';
  readonly key: number;
}

const anyOp: fc.Arbitrary<Op> = fc.record({
  kind: fc.oneof(
    { weight: 6, arbitrary: fc.constant('put' as const) },
    { weight: 3, arbitrary: fc.constant('delete' as const) },
    { weight: 1, arbitrary: fc.constantFrom('truncate', 'relation', 'reread') },
  ),
  relation: fc.constantFrom('a', 'b'),
  key: fc.nat({ max: 3 }),
});
const anyTransaction = fc.record({
  gap: fc.integer({ min: 1, max: 3 }),
  ops: fc.array(anyOp, { maxLength: 6 }),
  endsBatch: fc.boolean(),
});
type Transaction = {
  readonly gap: number;
  readonly ops: readonly Op[];
  readonly endsBatch: boolean;
};

/** A row goes to the partition of its key, a barrier to all. */
function topicOf(partitions: number, transactions: readonly Transaction[]) {
  const topic = new SketchedTopic(partitions, 10);
  let commit = 9;
  let value = 0;
  for (const { gap, ops, endsBatch } of transactions) {
    commit += gap;
    for (const [ordinal, { kind, relation, key }] of ops.entries()) {
      value += 1;
      if (kind === 'truncate' || kind === 'reread') {
        topic.everywhere(commit, ordinal, { kind, relationId: relation });
      } else if (kind === 'relation') {
        const shape = shapeOf(relation, 'id text');
        topic.everywhere(commit, ordinal, { kind, relation: shape });
      } else {
        const written = kind === 'delete' ? null : `${value}`;
        const row: Content = { kind: 'row', key: `${key}`, value: written, relationId: relation };
        topic.put(key % partitions, commit, ordinal, row);
      }
    }
    if (endsBatch) topic.point(commit + 1);
  }
  return topic.point(commit + 2);
}

/** As the follower does, from `position` to the limit. */
function follow(
  tables: Tables,
  all: readonly AlignedBatch[],
  from: EpochLsn,
  limit: ApplyLimit,
): { position: EpochLsn; waiting: readonly AlignedBatch[] } {
  let position = from;
  let waiting = all;
  for (;;) {
    const portion = nextPortion(waiting, position, limit);
    if (portion === null) return { position, waiting };
    const { batches, stopAt } = portion;
    applySteps(tables, coalesce(batches, { from: position, to: stopAt }));
    const whole = stopAt === null ? batches.length : batches.length - 1;
    position = stopAt ?? batches[whole - 1]?.checkpoint.at ?? position;
    waiting = waiting.slice(whole);
  }
}

for (const partitions of [1, 3]) {
  const anyTransactions = fc.array(anyTransaction, { maxLength: 12 });

  test(`steps say what the records say, ${partitions} partitions`, () => {
    fc.assert(
      fc.property(anyTransactions, (transactions) => {
        const topic = topicOf(partitions, transactions);
        const tables: Tables = new Map();
        applySteps(tables, coalesce(batchesOf(topic), everything));
        assert.equal(
          new Map([...tables].sort()),
          new Map([...replay(topic, topic.checkpoint.at)].sort()),
        );
      }),
      { numRuns: 500 },
    );
  });

  test(`an exact stop anywhere and the rest are everything, ${partitions} partitions`, () => {
    fc.assert(
      fc.property(anyTransactions, fc.integer({ min: 8, max: 50 }), (transactions, stop) => {
        const topic = topicOf(partitions, transactions);
        const batches = batchesOf(topic);
        const tables: Tables = new Map();
        const limit = { kind: 'to', at: at(1, stop) } as const;
        const half = follow(tables, batches, start, limit);
        const reached = Math.max(10, Math.min(stop, Number(topic.checkpoint.at.lsn)));
        assert.equal(half.position, at(1, reached));
        const below = replay(topic, at(1, reached));
        assert.equal(new Map([...tables].sort()), new Map([...below].sort()));
        const rest = follow(tables, half.waiting, half.position, { kind: 'none' });
        assert.equal(rest, { position: topic.checkpoint.at, waiting: [] });
        const all = replay(topic, topic.checkpoint.at);
        assert.equal(new Map([...tables].sort()), new Map([...all].sort()));
      }),
      { numRuns: 500 },
    );
  });
}

function stepsOf(partitions: number, write: (topic: SketchedTopic) => unknown): ApplyStep[] {
  const topic = new SketchedTopic(partitions, 10);
  write(topic);
  return coalesce(batchesOf(topic.point(100)), everything);
}

/** Steps in short: what is deleted and written, and the barriers. */
function inShort(steps: readonly ApplyStep[]): string[] {
  return steps.map((step) => {
    if (step.kind === 'relation') return `relation ${step.relation.id}`;
    if (step.kind === 'truncate') return `truncate ${step.relationIds.join(' ')}`;
    if (step.kind === 'reread') return `reread ${step.relationId}`;
    const tables = step.tables.map(({ relationId, deletes, upserts }) => {
      const deleted = deletes.map(({ identity }) => `-${identity.join()}`);
      const kept = upserts.map(({ identity, value }) => `${identity.join()}=${value}`);
      return [relationId, ...deleted, ...kept].join(' ');
    });
    return tables.join('; ');
  });
}

test('only the last change of a key counts, over batches too', () => {
  const steps = stepsOf(1, (topic) => {
    topic.row(0, 11, 'k', '1').row(0, 12, 'k', '2').row(0, 12, 'old', '1').point(13);
    topic.row(0, 14, 'k', null).row(0, 15, 'k', '3').row(0, 16, 'old', null);
  });
  assert.equal(inShort(steps), ['public.t -old k=3']);
});

test('a key change is a delete of one key and a row of another, wherever they lie', () => {
  const steps = stepsOf(2, (topic) => topic.row(1, 11, 'old', null).row(0, 11, 'new', '1'));
  assert.equal(inShort(steps), ['public.t -old new=1']);
});

test('rows of all partitions come before a barrier or behind it, as their positions say', () => {
  const steps = stepsOf(2, (topic) => {
    topic.row(0, 11, 'a', '1').row(1, 11, 'b', '1');
    topic.everywhere(12, 0, { kind: 'truncate', relationId: 'public.t' });
    topic.row(1, 13, 'b', '2');
  });
  assert.equal(inShort(steps), ['public.t a=1 b=1', 'truncate public.t', 'public.t b=2']);
});

test('truncates side by side are one, a row or a relation between them parts them', () => {
  const truncate = (relationId: string): Content => ({ kind: 'truncate', relationId });
  const steps = stepsOf(2, (topic) => {
    topic.everywhere(11, 0, truncate('x')).everywhere(11, 1, truncate('y'));
    topic.row(1, 12, 'a', '1').everywhere(13, 0, truncate('x'));
    topic.everywhere(14, 0, { kind: 'relation', relation: shapeOf('y', 'id text') });
    topic.everywhere(15, 0, truncate('y'));
  });
  const expected = ['truncate x y', 'public.t a=1', 'truncate x', 'relation y', 'truncate y'];
  assert.equal(inShort(steps), expected);
});

test('a resnapshot separates the rows before it from those after, in all partitions', () => {
  const reread: Content = { kind: 'reread', relationId: 'public.t' };
  const steps = stepsOf(2, (topic) => {
    topic.row(0, 11, 'a', '1').row(1, 11, 'b', '1').everywhere(12, 0, reread);
    topic.row(1, 13, 'b', '1').everywhere(14, 0, reread).everywhere(15, 0, reread);
    topic.row(0, 16, 'a', '1');
  });
  assert.equal(inShort(steps), [
    ...['public.t a=1 b=1', 'reread public.t', 'public.t b=1'],
    ...['reread public.t', 'reread public.t', 'public.t a=1'],
  ]);
});

test('a barrier outside of the window is no step', () => {
  const topic = new SketchedTopic(2, 10);
  topic.everywhere(11, 0, { kind: 'truncate', relationId: 'x' }).row(0, 12, 'a', '1');
  topic.everywhere(13, 0, { kind: 'truncate', relationId: 'y' }).point(20);
  const batches = batchesOf(topic);
  assert.equal(inShort(coalesce(batches, { from: at(1, 12), to: at(1, 13) })), ['public.t a=1']);
  assert.equal(inShort(coalesce(batches, { from: start, to: at(1, 11) })), []);
  assert.equal(inShort(coalesce(batches, { from: at(1, 13), to: null })), ['truncate y']);
});

test('a barrier that is missing in a partition is damage', () => {
  for (const kind of ['truncate', 'reread'] as const) {
    for (const lonely of [0, 1]) {
      assert.throws(
        () => stepsOf(2, (topic) => topic.put(lonely, 11, 0, { kind, relationId: 'x' })),
        (error: unknown) => error instanceof UnderstudyError && error.code === 'DAMAGED',
      );
    }
  }
});

test('keys are distinguished by their bytes, not by their text as UTF-8', () => {
  const topic = new SketchedTopic(1, 10).row(0, 11, 'a', '1').row(0, 12, 'b', '2').point(20);
  const [batch] = batchesOf(topic) as [AlignedBatch];
  const bytes = [Buffer.from([0xc3]), Buffer.from([0xe9])];
  const records = (batch.partitions[0] ?? []).map((record, i) => {
    return record.kind === 'row' ? { ...record, key: bytes[i] ?? Buffer.alloc(0) } : record;
  });
  const steps = coalesce([{ ...batch, partitions: [records] }], everything);
  assert.equal(inShort(steps), ['public.t a=1 b=2']);
});

test.run();
