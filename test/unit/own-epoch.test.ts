/**
 * What the end of the log says about an epoch of mine, as a table: goes on, begins, or holds a torn
 * batch that a newer epoch must void.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { foundAtEnd } from '../../src/fleet/promotion/own-epoch.ts';
import { findLogEnd } from '../../src/topic/partition-tails.ts';
import { SketchedTopic } from '../support/builders.ts';

/** The log after what `write` put behind the whole begin of epoch 1. */
function found(epoch: number, write: (topic: SketchedTopic) => unknown): string | undefined {
  const topic = new SketchedTopic(2);
  topic.begin(1, 0, { base: null });
  write(topic);
  const end = findLogEnd(
    topic.partitions.map((records, partition) => ({ partition, records, reachesStart: true })),
  );
  return end === null ? undefined : foundAtEnd(end, epoch);
}

const torn = (topic: SketchedTopic) => topic.row(0, 10, 'a', '1').point(20, {}, [0]);

const table: readonly (readonly [string, number, (topic: SketchedTopic) => unknown, string])[] = [
  ['my begin is whole and nothing follows', 1, () => null, 'begun'],
  ['my last point is whole', 1, (t) => t.row(0, 10, 'a', '1').point(20), 'begun'],
  ['a point of mine is in one partition only', 1, torn, 'over'],
  ['rows of mine follow, the last points are equal', 1, (t) => t.row(1, 10, 'a', '1'), 'over'],
  ['the epoch is claimed and nothing of it is there', 2, () => null, 'not-begun'],
  ['the former owner left a torn batch', 2, torn, 'not-begun'],
  ['my begin is in one partition only', 2, (t) => t.begin(2, 5, {}, [1]), 'over'],
  [
    'my begin is in one partition, behind a torn batch',
    2,
    (t) => torn(t).begin(2, 5, {}, [0]),
    'over',
  ],
  ['my begin is whole behind a torn batch', 2, (t) => torn(t).begin(2, 5), 'begun'],
  ['the begin of an epoch before mine is half', 3, (t) => t.begin(2, 5, {}, [0]), 'not-begun'],
];

for (const [what, epoch, write, expected] of table) {
  test(`${what}: ${expected}`, () => {
    assert.is(found(epoch, write), expected);
  });
}

test('an empty log has no epoch', () => {
  const empty = {
    checkpoint: null,
    point: null,
    begin: null,
    pastCheckpoint: [],
    unhealed: null,
    unfinished: [],
  };
  assert.is(foundAtEnd(empty, 1), 'not-begun');
});

test.run();
