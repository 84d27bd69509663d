/**
 * The part of the fault tests' checker that reads a whole topic must be able to fail: topics that
 * are torn, written twice, forked or miscounted, each beside the sound one it was made from.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { EpochBegin, Point } from '../../src/change/change.ts';
import { type Lsn, zeroLsn } from '../../src/change/lsn.ts';
import type { EpochLsn, Position } from '../../src/change/position.ts';
import { judgeTopic, type Partitions, type TopicRecord } from '../support/checker/judge-topic.ts';
import { describe, type Violation } from '../support/checker/violation.ts';

const lsn = (value: number): Lsn => BigInt(value) as Lsn;
const at = (epoch: number, value: number): EpochLsn => ({ epoch, lsn: lsn(value) });

/** What was found, as `I2 a position comes again`. */
function found(violations: readonly Violation[]): readonly string[] {
  return violations.map(({ invariant, what }) => `${invariant} ${what}`);
}

const topic = suite('judging a topic');

const base: Omit<TopicRecord, 'position'> = {
  ...{ partition: 0, offset: 0n, committed: true, kind: 'row', relation: 'public.t', key: 'k' },
  ...{ isTombstone: false, point: null, begin: null, isGhost: false },
};

function row(epoch: number, commit: number, ordinal = 0, changes: Partial<TopicRecord> = {}) {
  const position: Position = { epoch, commitLsn: lsn(commit), ordinal };
  return { ...base, position, key: `k${commit}.${ordinal}`, ...changes };
}

function begin(epoch: number, start: number, from: EpochLsn | null, leader = 'a'): TopicRecord {
  const value: EpochBegin = {
    ...{ streamId: 's', epoch, leader, systemId: leader, timeline: 1, base: from },
    ...{ startLsn: lsn(start), slot: 'slot', keySchemaId: 1, unfinished: [] },
  };
  return { ...row(epoch, start, -1), kind: 'epoch', begin: value };
}

/** `next` is put in by `placed`. */
function point(epoch: number, upto: number, counts: readonly number[], previous: EpochLsn) {
  const value: Point = {
    ...{ streamId: 's', label: null, epoch, commit: zeroLsn, upto: lsn(upto), counts },
    ...{ commitTimeMicros: 0n, previous: { at: previous, nextOffsets: [] }, unfinished: [] },
    ...{ uncovered: [], unhealed: null },
  };
  return { ...row(epoch, upto, -1), kind: 'point', point: value };
}

/** Gives offsets, and to each point those after the checkpoint it follows. */
function placed(...partitions: readonly (readonly TopicRecord[])[]): Partitions {
  const nexts = new Map<string, bigint[]>();
  const put = partitions.map((records, partition) =>
    records.map((record, index) => {
      const offset = BigInt(index);
      if (record.point !== null || record.begin !== null) {
        const key = `${record.position?.epoch}:${record.position?.commitLsn}`;
        const next = nexts.get(key) ?? [];
        next[partition] = offset + 1n;
        nexts.set(key, next);
      }
      return { ...record, partition, offset };
    }),
  );
  return put.map((records) =>
    records.map((record) => {
      if (record.point === null) return record;
      const { at: from } = record.point.previous;
      const nextOffsets = nexts.get(`${from.epoch}:${from.lsn}`) ?? [];
      return { ...record, point: { ...record.point, previous: { at: from, nextOffsets } } };
    }),
  );
}

const start = begin(1, 10, null);
const sound = [start, row(1, 11), row(1, 11, 1), point(1, 20, [2, 1], at(1, 10))];
const beside = [start, row(1, 12), point(1, 20, [2, 1], at(1, 10))];

topic('a sound topic breaks nothing, and folds to its live keys', () => {
  const aborted = row(1, 30, 0, { committed: false });
  const fence = row(1, 0, -1, { kind: 'fence', isTombstone: true });
  const second = [row(1, 30), point(1, 40, [1, 0], at(1, 20))];
  const verdict = judgeTopic(
    placed([...sound, aborted, fence, ...second], [...beside, point(1, 40, [1, 0], at(1, 20))]),
  );
  assert.equal(found(verdict.violations), []);
  assert.equal([...verdict.liveKeys], [['public.t', 4]]);
  const deleted = row(1, 30, 0, { key: 'k11.0', isTombstone: true });
  const fewer = placed([...sound, deleted, point(1, 40, [1, 0], at(1, 20))]);
  assert.equal([...judgeTopic(fewer).liveKeys], [['public.t', 1]]);
  assert.equal(
    verdict.epochs.map(({ epoch }) => epoch),
    [1],
  );
});

topic('a torn batch and a torn begin are void past the base of the epoch after', () => {
  const torn = [row(1, 30), point(1, 40, [1, 1], at(1, 20))];
  const verdict = judgeTopic(
    placed(
      [...sound, ...torn, begin(2, 25, at(1, 20)), begin(3, 25, at(1, 20)), row(3, 30)].concat(
        point(3, 40, [1, 0], at(3, 25)),
      ),
      [...beside, begin(3, 25, at(1, 20)), point(3, 40, [1, 0], at(3, 25))],
    ),
  );
  assert.equal(found(verdict.violations), []);
  assert.equal(
    verdict.epochs.map(({ epoch }) => epoch),
    [1, 3],
  );
});

topic('I2: a position that comes again', () => {
  const again = [...sound, row(1, 11), point(1, 40, [1, 0], at(1, 20))];
  const { violations } = judgeTopic(placed(again, [...beside, point(1, 40, [1, 0], at(1, 20))]));
  assert.ok(found(violations).includes('I2 a position comes again'), describe(violations));
  const twice = placed([start, row(1, 11), row(1, 11), point(1, 20, [2], at(1, 10))]);
  assert.equal(found(judgeTopic(twice).violations), ['I2 a position comes again']);
});

topic('I4: a point that some partitions lack', () => {
  const { violations } = judgeTopic(placed([...sound, point(1, 40, [0, 0], at(1, 20))], beside));
  assert.equal(found(violations), ['I4 a batch is in some partitions only']);
});

topic('I5: an append for a lower epoch, even an aborted one, after a higher has begun', () => {
  const next = begin(2, 25, at(1, 20));
  const stale = row(1, 30, 0, { committed: false });
  const { violations } = judgeTopic(placed([...sound, next, stale], [...beside, next]));
  const what = 'I5 a lower epoch appended after a higher one had begun';
  assert.equal(found(violations), [what]);
  const fence = row(1, 0, -1, { kind: 'fence', isTombstone: true });
  const fenced = judgeTopic(placed([...sound, next, fence], [...beside, next]));
  assert.equal(found(fenced.violations), [what]);
});

topic(
  'I5: an epoch of two leaders, one that begins twice, one that continues another checkpoint',
  () => {
    const two = judgeTopic(
      placed([...sound, begin(2, 25, at(1, 20))], [...beside, begin(2, 25, at(1, 20), 'b')]),
    );
    assert.equal(found(two.violations), ['I5 an epoch begins in two ways']);
    const twice = judgeTopic(placed([start, start]));
    assert.ok(found(twice.violations).includes('I5 an epoch begins again or late'));
    const other = begin(2, 25, at(1, 22));
    const forked = judgeTopic(placed([...sound, other], [...beside, other]));
    assert.equal(found(forked.violations), ['I5 an epoch continues another checkpoint']);
  },
);

topic('I6: a rolled-back row in the topic', () => {
  const ghost = [start, row(1, 11, 0, { isGhost: true }), point(1, 20, [1], at(1, 10))];
  assert.equal(found(judgeTopic(placed(ghost)).violations), [
    'I6 a rolled-back row is in the topic',
  ]);
});

topic('I10: counts that do not add up, a broken chain, records past the end', () => {
  const short = judgeTopic(placed([start, row(1, 11), point(1, 20, [2], at(1, 10))]));
  assert.equal(found(short.violations), ['I10 a point does not add up']);
  const broken = judgeTopic(placed([start, point(1, 20, [0], at(1, 15))]));
  assert.equal(found(broken.violations), ['I10 a point continues another']);
  const past = judgeTopic(placed([start, row(1, 11)]));
  assert.equal(found(past.violations), ['I10 records stand past the last point']);
  const between = judgeTopic(placed([start, row(1, 11), begin(2, 25, at(1, 20))]));
  assert.ok(
    found(between.violations).includes('I10 records without a point stand before an epoch'),
  );
  const late = judgeTopic(placed([start, row(1, 21), point(1, 20, [1], at(1, 10))]));
  assert.ok(found(late.violations).includes('I10 a record is not its batch’s own'));
  const [records = []] = placed([start, point(1, 20, [0], at(1, 10))]);
  const moved = records.map((record) => ({ ...record, offset: record.offset + 3n }));
  assert.equal(found(judgeTopic([moved]).violations), ['I10 a point misplaces the one before it']);
});

topic.run();
