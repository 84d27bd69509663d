/**
 * What `destroy` may remove, and `init` may replace: only what belongs to the stream, and only a
 * stream that never began. Everything else has to be named, or is refused with what there is.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NodeIdentity } from '../../src/catalog/understudy-schema.ts';
import type { ControlRecord, ServedDatabase } from '../../src/control/control-records.ts';
import { emptyControlState, foldControl } from '../../src/control/control-state.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import type { FoundDatabase } from '../../src/fleet/node/judge-belonging.ts';
import type { TopicsFacts } from '../../src/fleet/node/stream-facts.ts';
import { judgeDestroy, requireConfirmed } from '../../src/fleet/operations/judge-destroy.ts';
import { judgeInit } from '../../src/fleet/operations/judge-init.ts';
import { claimOf, recordTime } from '../support/memory-control-log.ts';

type DestroyFacts = Parameters<typeof judgeDestroy>[0];

const topic = { partitions: 1, replication: 1, settings: {} };

function placeOf(oid: string): ServedDatabase {
  return { systemId: '7', oid, name: `db${oid}`, address: 'h:5432', startedAt: '1' };
}

function startOf(node: string, oid: string): ControlRecord {
  return { kind: 'start', node, number: 1, time: recordTime, database: placeOf(oid) };
}

const stream: ControlRecord = {
  ...{ kind: 'stream', streamId: 's1', cluster: 'shop', partitions: 1, topic: {} },
  time: recordTime,
};

const running = [stream, claimOf(1, 'a'), startOf('a', '1'), startOf('b', '2')];

function topicsOf(records: readonly ControlRecord[], isEmpty = false): TopicsFacts {
  const state = foldControl(emptyControlState, records);
  return { changes: topic, control: topic, state, unreadable: null, isEmpty, last: null };
}

const noTopics: TopicsFacts = {
  ...topicsOf([], true),
  ...{ changes: null, control: null, state: null },
};

function identityOf(name: string, changes: Partial<NodeIdentity> = {}): NodeIdentity {
  const role = name === 'a' ? 'leader' : 'follower';
  return { cluster: 'shop', name, streamId: 's1', role, epoch: 1, startNumber: 1n, ...changes };
}

function databaseOf(name: string, oid: string, identity: NodeIdentity | null): FoundDatabase {
  const present = new Set(['1', '2', '3', '4']);
  const reached = { ...placeOf(oid), present, replaces: null };
  return { name, identity, reached, isServed: false };
}

const [a, b] = [databaseOf('a', '1', identityOf('a')), databaseOf('b', '2', identityOf('b'))];

function factsOf(topics: TopicsFacts, ...databases: readonly FoundDatabase[]): DestroyFacts {
  const nodes = databases.map((database) => ({ name: database.name, database, problem: null }));
  return { cluster: 'shop', topic: 'shop.changes', topics, nodes };
}

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof UnderstudyError) return error.code;
    throw error;
  }
  return 'none';
}

test('--yes removes a stream whose databases are all of understudy.yaml', () => {
  const plan = judgeDestroy(factsOf(topicsOf(running), a, b), null);
  assert.equal([plan.stream, plan.leader, plan.members, plan.reasons], ['s1', 'a', ['a', 'b'], []]);
  assert.is(
    codeOf(() => requireConfirmed('shop', plan, null)),
    'none',
  );
});

test('whatever is elsewhere, unknown or another’s wants the stream’s id', () => {
  const topics = topicsOf(running);
  const other = { cluster: 'other', streamId: 's9' };
  const cases: Readonly<Record<string, DestroyFacts>> = {
    'an empty database': factsOf(topics, a, databaseOf('b', '3', null)),
    'a database of another cluster': factsOf(
      topics,
      a,
      databaseOf('b', '3', identityOf('b', other)),
    ),
    'of an earlier stream': factsOf(
      topics,
      a,
      databaseOf('b', '2', identityOf('b', { streamId: 's0' })),
    ),
    'a copy of a database': factsOf(topics, a, databaseOf('b', '3', identityOf('b'))),
    'a node that the file lacks': factsOf(topics, a),
    'a control log that cannot be read': factsOf(
      { ...topics, state: null, unreadable: 'it is of a newer version' },
      ...[a, b],
    ),
  };
  for (const [what, facts] of Object.entries(cases)) {
    const plan = judgeDestroy(facts, null);
    assert.is(plan.reasons.length, 1, what);
    assert.is(
      codeOf(() => requireConfirmed('shop', plan, null)),
      'NEEDS_STREAM_ID',
      what,
    );
    const named = judgeDestroy(facts, 's1');
    assert.is(
      codeOf(() => requireConfirmed('shop', named, 's1')),
      'none',
      what,
    );
  }
  const unreached = {
    ...factsOf(topics, a),
    nodes: [
      { name: 'a', database: a, problem: null },
      { name: 'b', database: null, problem: 'node b: cannot connect' },
    ],
  };
  assert.equal(judgeDestroy(unreached, null).reasons, ['node b: cannot connect']);
});

test('a database of another stream is never cleaned, not even where the stream is named', () => {
  const foreign = databaseOf('b', '3', identityOf('b', { cluster: 'other', streamId: 's9' }));
  const earlier = databaseOf('b', '2', identityOf('b', { streamId: 's0' }));
  for (const one of [foreign, earlier, databaseOf('b', '3', null)]) {
    assert.equal(judgeDestroy(factsOf(topicsOf(running), a, one), 's1').members, ['a']);
  }
});

test('another id than that of the stream is refused', () => {
  assert.is(
    codeOf(() => judgeDestroy(factsOf(topicsOf(running), a, b), 's0')),
    'NEEDS_STREAM_ID',
  );
});

test('a node that was detached is no part of the stream', () => {
  const at = { epoch: 1, lsn: 0n as never };
  const detach = { kind: 'detach', id: 'd', node: 'b', at, time: recordTime } as const;
  const topics = topicsOf([...running, detach]);
  assert.equal(judgeDestroy(factsOf(topics, a), null).reasons, []);
  const other = identityOf('b', { cluster: 'other', streamId: 's9' });
  for (const identity of [null, other]) {
    const moved = databaseOf('b', '3', identity);
    const plan = judgeDestroy(factsOf(topics, a, moved), null);
    assert.equal([plan.reasons, plan.members], [[], ['a']]);
  }
});

test('without topics the databases say which stream it was', () => {
  const plan = judgeDestroy(factsOf(noTopics, a, b), null);
  assert.equal([plan.stream, plan.members, plan.reasons], ['s1', ['a', 'b'], []]);
  const other = databaseOf('b', '2', identityOf('b', { streamId: 's0' }));
  assert.is(
    codeOf(() => judgeDestroy(factsOf(noTopics, a, other), null)),
    'NEEDS_STREAM_ID',
  );
  assert.equal(judgeDestroy(factsOf(noTopics, a, other), 's0').members, ['b']);
});

test('a topic of no known stream is removed only where it is empty', () => {
  const nothing = databaseOf('a', '1', null);
  assert.is(judgeDestroy(factsOf(topicsOf([], true), nothing), null).stream, null);
  assert.is(
    codeOf(() => judgeDestroy(factsOf(topicsOf([]), nothing), null)),
    'TOPIC_MISMATCH',
  );
});

function initOf(topics: TopicsFacts, ...databases: readonly FoundDatabase[]) {
  return judgeInit({ cluster: 'shop', topic: 'shop.changes', topics, databases });
}

const unused = { startNumber: 0n };
const madeA = databaseOf('a', '1', identityOf('a', unused));

test('init may begin where nothing is, and where an init of these databases did not end', () => {
  const free = databaseOf('b', '2', null);
  assert.is(initOf(noTopics, databaseOf('a', '1', null), free).kind, 'free');
  const remains = { kind: 'remains', nodes: ['a'] };
  assert.equal(initOf(noTopics, madeA, free), remains);
  assert.equal(initOf(topicsOf([], true), madeA, free), remains);
  assert.equal(initOf(topicsOf([stream, claimOf(1, 'a')], true), madeA, free), remains);
});

test('a stream that has begun, or was ever served, is no remains', () => {
  assert.is(
    codeOf(() => initOf(topicsOf([stream, claimOf(1, 'a')]), madeA)),
    'ALREADY_INITIALISED',
  );
  assert.is(
    codeOf(() => initOf(topicsOf(running, true), madeA)),
    'ALREADY_INITIALISED',
  );
  assert.is(
    codeOf(() => initOf(noTopics, a)),
    'TOPIC_MISMATCH',
  );
  assert.is(
    codeOf(() => initOf(topicsOf([], true), a)),
    'TOPIC_MISMATCH',
  );
  const other = databaseOf('b', '2', identityOf('b', { ...unused, streamId: 's0' }));
  assert.is(
    codeOf(() => initOf(topicsOf([], true), madeA, other)),
    'TOPIC_MISMATCH',
  );
});

test('the cluster of other databases is refused, and no hint leads to its destruction', () => {
  const strangers = [databaseOf('a', '3', null), databaseOf('b', '4', null)];
  for (const topics of [topicsOf(running), topicsOf([stream], true)]) {
    try {
      initOf(topics, ...strangers);
      assert.unreachable();
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
      assert.is(error.code, 'ALREADY_INITIALISED');
      assert.match(error.hint, 'give the copy a cluster name of its own');
      assert.not.match(error.hint, 'destroy');
    }
  }
});

test.run();
