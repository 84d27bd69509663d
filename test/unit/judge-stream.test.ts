/**
 * What `check` says of topics and databases that do not belong together, and of slots that no node
 * uses: one finding per cause.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NodeIdentity } from '../../src/catalog/understudy-schema.ts';
import type { ControlRecord } from '../../src/control/control-records.ts';
import { emptyControlState, foldControl } from '../../src/control/control-state.ts';
import type { TopicsFacts } from '../../src/fleet/node/stream-facts.ts';
import { judgeStream } from '../../src/fleet/preflight/judge-stream.ts';
import type { NodeFacts } from '../../src/fleet/preflight/read-node.ts';
import { claimOf, recordTime } from '../support/memory-control-log.ts';
import { node, only } from '../support/node-facts.ts';

const topic = { partitions: 1, replication: 1, settings: {} };
const { reached } = node();

function startOf(name: string, oid: string): ControlRecord {
  const { systemId, address, startedAt } = reached;
  const database = { systemId, address, startedAt, oid, name: `db${oid}` };
  return { kind: 'start', node: name, number: 1, time: recordTime, database };
}

const stream: ControlRecord = {
  ...{ kind: 'stream', streamId: 's1', cluster: 'shop', partitions: 1, topic: {} },
  time: recordTime,
};

const state = foldControl(emptyControlState, [
  ...[stream, claimOf(1, 'a'), startOf('a', '1'), startOf('b', '2')],
]);

const running: TopicsFacts = {
  ...{ changes: topic, control: topic, state, unreadable: null, isEmpty: false, last: null },
};

const noTopics: TopicsFacts = { ...running, changes: null, control: null, state: null };

function member(name: string, oid: string, changes: Partial<NodeFacts> = {}): NodeFacts {
  const role = name === 'a' ? 'leader' : 'follower';
  const identity: NodeIdentity = {
    ...{ cluster: 'shop', name, streamId: 's1', role, epoch: 1, startNumber: 1n },
  };
  const present = new Set(['1', '2', '3']);
  const here = { ...reached, oid, name: `db${oid}`, present };
  return node({ name, node: { identity, reached: here, ...changes } });
}

const [a, b] = [member('a', '1'), member('b', '2')];

function judged(topics: TopicsFacts, ...nodes: readonly NodeFacts[]) {
  return judgeStream('shop', 'shop.changes', topics, nodes, ['a', 'b']);
}

test('a cluster as it is, or none yet, has no finding', () => {
  assert.equal(judged(running, a, b), []);
  assert.equal(judged({ ...noTopics, isEmpty: true }, node(), node({ name: 'b' })), []);
});

test('topics that are gone are an error of the databases that belong to them', () => {
  for (const topics of [noTopics, { ...running, control: null, state: null }]) {
    const finding = only(judged(topics, a, b));
    assert.is(finding.code, 'TOPIC_MISMATCH');
    assert.match(finding.message, /node a belongs to the stream s1 .* missing or empty/);
  }
});

test('an init that did not end is an error with its remedy', () => {
  const identity = { ...(a.identity as NodeIdentity), startNumber: 0n };
  const half = member('a', '1', { identity });
  const finding = only(judged({ ...noTopics, isEmpty: true }, half));
  assert.is(finding.code, 'NOT_INITIALISED');
  assert.match(finding.hint, 'Run `understudy init` again');
});

test('a file that leads to no database of the stream is one error', () => {
  const strangers = ['a', 'b'].map((name) => member(name, '3', { identity: null }));
  const finding = only(judged(running, ...strangers));
  assert.is(finding.code, 'ALREADY_INITIALISED');
  assert.match(finding.message, /stream s1, led by a, served from database db1 at /);
});

test('a database from which the node is not served is an error of that node', () => {
  const finding = only(judged(running, a, member('b', '3')));
  assert.equal([finding.code, finding.object], ['OTHER_DATABASE', 'node b']);
});

test('a node of the stream that the file does not name is a warning', () => {
  const finding = only(judgeStream('shop', 'shop.changes', running, [a], ['a']));
  assert.equal([finding.code, finding.object], ['NODE_NOT_NAMED', 'node b']);
});

test('a slot without a reader is named where no node uses it', () => {
  const idle = (database: string) => [
    { name: 'understudy_shop_1', database, retainedBytes: 5 * 1024 * 1024 },
  ];
  const withSlots = (idleSlots: NodeFacts['idleSlots']) => judged(running, { ...a, idleSlots }, b);
  // The leader's agent is stopped.
  assert.equal(withSlots(idle('db1')), []);
  const left = only(withSlots(idle('old')));
  assert.equal([left.code, left.severity], ['SLOT_LEFT', 'warning']);
  assert.match(left.message, /understudy_shop_1 in the database old of its server keeps 5/);
  const led = foldControl(state, [claimOf(2, 'b')]);
  const former = only(judged({ ...running, state: led }, { ...a, idleSlots: idle('db1') }, b));
  assert.is(former.code, 'SLOT_LEFT');
});

test.run();
