/**
 * The decisions of a bootstrap without a log: where the horizon is, what keeps a node from being
 * exact, when it restarts, which epochs and relations a survey finds, and how much it reports that
 * it is.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Point } from '../../src/change/change.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { buildingText } from '../../src/fleet/status/progress-text.ts';
import { CheckpointSearch } from '../../src/follower/bootstrap/checkpoint-search.ts';
import { CompactedLog } from '../../src/follower/bootstrap/compacted-log.ts';
import { horizonOf, isTooSlow, movedPartitions } from '../../src/follower/bootstrap/horizon.ts';
import { TopicSurvey } from '../../src/follower/bootstrap/topic-survey.ts';
import { type BootstrapState, shareRead } from '../../src/follower/state/bootstrap-state.ts';
import { isExactAt, isWholeAt } from '../../src/follower/state/exactness.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { at, beginOf, pointOf, SketchedTopic, shapeOf, streamId } from '../support/builders.ts';

const checkpoint = { at: at(1, 50), nextOffsets: [10n, 20n] };
const young = { checkpoint, pastCheckpoint: [], lastStable: [11n, 21n], checkpointAgeMs: 10 };

test('the horizon is the last checkpoint, though commit markers follow it', () => {
  assert.equal(horizonOf(young, 1_000), [10n, 20n]);
});

test('half a batch behind the last checkpoint moves the horizon behind it', () => {
  const stray = { partition: 1, offset: 23n } as StreamRecord;
  assert.equal(horizonOf({ ...young, pastCheckpoint: [stray] }, 1_000), [10n, 24n]);
});

test('behind a checkpoint older than tombstones whatever once stood there counts', () => {
  const end = { ...young, lastStable: [11n, 24n] };
  assert.equal(horizonOf(end, 1_000), [10n, 20n]);
  assert.equal(horizonOf({ ...end, checkpointAgeMs: 900 }, 1_000), [10n, 24n]);
});

test('a point is exact that covers the horizon in every partition and is whole', () => {
  assert.is(isExactAt([10n, 24n], checkpoint, true), false);
  assert.is(isExactAt([10n, 20n], checkpoint, true), true);
  assert.is(isExactAt([10n, 20n], checkpoint, false), false);
  assert.is(isWholeAt({ point: pointOf({ unhealed: checkpoint }), begin: null }), false);
  assert.is(isWholeAt({ point: pointOf({}), begin: null }), true);
  assert.is(isWholeAt({ point: null, begin: beginOf({ base: checkpoint.at }) }), false);
  assert.is(isWholeAt({ point: null, begin: beginOf({ base: null }) }), true);
  assert.is(isWholeAt({ point: null, begin: null }), false);
});

test('a reading is too slow a tenth before tombstones may expire', () => {
  assert.is(isTooSlow({ readMs: 899, deleteRetentionMs: 1_000 }), false);
  assert.is(isTooSlow({ readMs: 900, deleteRetentionMs: 1_000 }), true);
});

test('a partition has moved when another broker serves it than before', () => {
  assert.equal(movedPartitions([1, null, 3], [1, 2, null]), []);
  assert.equal(movedPartitions([1, 2], [null, 1]), [1]);
});

test('a node that stops at the newest point begins there, whatever is written meanwhile', () => {
  const topic = new SketchedTopic(2).row(0, 10, 'x', '1').point(20);
  const newest = topic.checkpoint;
  const found = (until: number, change: Partial<Point>): unknown => {
    const search = new CheckpointSearch(at(1, until), 500);
    for (const record of topic.partitions[0] ?? []) {
      search.take(
        record.kind === 'point' ? { ...record, point: { ...record.point, ...change } } : record,
      );
    }
    search.endsAt(newest);
    return search.start?.checkpoint ?? null;
  };
  assert.equal(found(20, {}), newest);
  assert.equal(found(30, {}), newest);
  assert.is(found(19, {}), null, 'it is past the LSN');
  assert.is(found(20, { unhealed: newest }), null, 'rows are partial there');
});

function surveyOf(topic: SketchedTopic): TopicSurvey {
  const survey = new TopicSurvey(streamId);
  survey.take({ ...topicBegin, begin: beginOf({ epoch: 1 }) });
  for (const record of topic.partitions[0] ?? []) survey.take(record);
  return survey;
}

const topicBegin = {
  ...({ kind: 'epoch', partition: 0, offset: 0n, timestampMs: 0, commitTimeMicros: 0n } as const),
  position: { epoch: 1, commitLsn: at(1, 0).lsn, ordinal: -1 },
};
const old = shapeOf('public.t', 'id int');
const newer = shapeOf('public.t', 'id int', 'v text');

test('epochs that were never whole are not among those that lead to a checkpoint', () => {
  const topic = new SketchedTopic(1).point(10).begin(2, 10, { base: at(1, 10) });
  topic.begin(3, 10, { base: at(1, 10) }).point(20);
  const epochs = surveyOf(topic).epochsTo(at(3, 20));
  assert.equal(
    epochs.map(({ epoch }) => epoch),
    [1, 3],
  );
});

test('a relation is as its newest record that counts says, or as the only one left', () => {
  const topic = new SketchedTopic(1).put(0, 5, 0, { kind: 'relation', relation: old }).point(10);
  topic.put(0, 12, 0, { kind: 'relation', relation: newer });
  topic.begin(2, 30, { base: at(1, 10) }).point(40);
  const survey = surveyOf(topic);
  assert.equal(survey.relationsAt(survey.epochsTo(at(2, 40))), [old]);
  const onlyVoid = new SketchedTopic(1).point(10);
  onlyVoid.put(0, 12, 0, { kind: 'relation', relation: newer });
  onlyVoid.begin(2, 30, { base: at(1, 10) }).point(40);
  assert.equal(surveyOf(onlyVoid).relationsAt(survey.epochsTo(at(2, 40))), [newer]);
});

test('a log of another stream, or without the begin of an epoch, is refused', () => {
  const codeOf = (work: () => unknown): string => {
    try {
      work();
      return 'nothing';
    } catch (error) {
      return error instanceof UnderstudyError ? error.code : String(error);
    }
  };
  const survey = new TopicSurvey('another');
  assert.is(
    codeOf(() => survey.take({ ...topicBegin, begin: beginOf({}) })),
    'TOPIC_MISMATCH',
  );
  assert.is(
    codeOf(() => survey.epochsTo(at(2, 10))),
    'DAMAGED',
  );
});

const state: BootstrapState = {
  streamId,
  checkpoint,
  checkpointAppendMs: null,
  isWhole: true,
  commitTimeMicros: 0n,
  unfinished: [],
  emptied: new Map(),
  firstOffsets: [0n, 10n],
  offsets: [5n, 15n],
  appendMs: [0, 0],
  brokers: [1, 1],
  beganMs: 0,
  readMs: 0,
  rows: 12_345,
  deleteRetentionMs: 1_000,
  horizon: null,
  isRebuild: false,
  conflicts: 0,
};

test('void rows, and those from before the last emptying that counts, are left out', () => {
  const topic = new SketchedTopic(1).row(0, 11, 'a', '1').put(0, 12, 0, {
    kind: 'row',
    key: 'a',
    value: '1',
    relationId: 'public.u',
  });
  topic.put(0, 13, 0, { kind: 'reread', relationId: 'public.t' }).row(0, 14, 'a', '2').point(20);
  topic.put(0, 21, 0, { kind: 'truncate', relationId: 'public.u' }).row(0, 22, 'void', '1');
  topic
    .begin(2, 30, { base: at(1, 20) })
    .row(0, 32, 'b', '1')
    .point(40);
  topic.put(0, 41, 0, { kind: 'truncate', relationId: 'public.t' }).point(50);
  const survey = surveyOf(topic);
  const epochs = survey.epochsTo(at(2, 40));
  const emptied = survey.emptiedBelow(at(2, 40), epochs);
  assert.equal([...emptied.keys()], ['public.t']);
  const records = topic.partitions[0] ?? [];
  const log = new CompactedLog([0n], [BigInt(records.length * 2)], epochs, emptied);
  log.push(0, records, BigInt(records.length * 2));
  const rows = log
    .take()
    .flat()
    .map((record) => `${record.kind} ${record.position.commitLsn}`);
  assert.equal(rows, ['row 12', 'row 14', 'row 32']);
});

test('it says how far it is, and what it waits for at the end', () => {
  assert.is(shareRead(state), 0.5);
  assert.match(buildingText(state, false), '50 % read, 12,345 rows');
  const following = { ...state, horizon: [10n, 20n] };
  assert.match(buildingText(following, false), 'not exact before the end of the log');
  assert.match(buildingText(following, true), 'once a leader has published them');
});

test.run();
