/**
 * Which database may be served under a node's name: its own, one that was moved by a rebuild, one
 * for a name that is free. A copy, a restored or a second one is refused.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ServedDatabase } from '../../src/control/control-records.ts';
import { emptyControlState, foldControl } from '../../src/control/control-state.ts';
import { judgeDatabase, type ReachedDatabase } from '../../src/fleet/node/judge-database.ts';
import { claimOf, recordTime } from '../support/memory-control-log.ts';

const former: ServedDatabase = {
  systemId: '7001',
  oid: '500',
  name: 'shop',
  address: 'b.example:5432',
  startedAt: '1000.5',
};

const start = { kind: 'start', node: 'b', number: 3, time: recordTime } as const;
const served = foldControl(emptyControlState, [claimOf(1, 'a'), { ...start, database: former }]);
const follower = { role: 'follower' } as const;
const leader = { role: 'leader' } as const;

function reached(changes: Partial<ReachedDatabase> = {}): ReachedDatabase {
  return { ...former, present: new Set(['1', '500', '501']), replaces: null, ...changes };
}

function verdict(identity: typeof follower | typeof leader | null, database: ReachedDatabase) {
  return judgeDatabase('b', identity, database, served).kind;
}

test('a node is served from its database, also after a restart or under a new address', () => {
  assert.is(verdict(follower, reached()), 'own');
  assert.is(verdict(follower, reached({ startedAt: '2000' })), 'own');
  assert.is(verdict(follower, reached({ address: '10.0.0.7:5432', name: 'renamed' })), 'own');
});

test('a copy of the whole server is another database', () => {
  const copy = reached({ startedAt: '2000', address: 'staging:5432' });
  assert.is(verdict(follower, copy), 'other');
  assert.is(verdict(null, copy), 'other');
  // The start number of a leader, raised every minute, distinguishes its copies: the server of a
  // leader may be replaced by its physical standby, which has remedies of its own.
  assert.is(verdict(leader, copy), 'own');
});

test('a database that was restored on another server, or copied on the same, is another', () => {
  for (const identity of [follower, leader]) {
    assert.is(verdict(identity, reached({ systemId: '7002' })), 'other');
    assert.is(verdict(identity, reached({ oid: '501' })), 'other');
  }
});

test('an empty database under the name of a node is another, and says which was served', () => {
  const found = judgeDatabase('b', null, reached({ systemId: '7002', oid: '9' }), served);
  assert.is(found.kind, 'other');
  assert.equal(found.kind === 'other' && found.served?.database, former);
  assert.is(verdict(null, reached({ oid: '501' })), 'other');
  // Its record is missing, and it led: an older version wrote the log.
  const never = judgeDatabase('a', null, reached(), served);
  assert.equal(never, { kind: 'other', served: null });
});

test('the name is free where the former database was dropped on the same server', () => {
  const dropped = new Set(['1', '501']);
  assert.is(verdict(null, reached({ oid: '501', present: dropped })), 'free');
  assert.is(verdict(follower, reached({ oid: '501', present: dropped })), 'own');
  const copy = { oid: '501', present: dropped, startedAt: '2000', address: 'staging:5432' };
  assert.is(verdict(null, reached(copy)), 'other');
  assert.is(verdict(null, reached({ ...copy, systemId: '7002' })), 'other');
});

test('the name is free where no node has it, or its schema was removed from its database', () => {
  assert.is(judgeDatabase('c', null, reached({ systemId: '7002' }), served).kind, 'free');
  assert.is(verdict(null, reached()), 'free');
});

test('a rebuild may replace the database that it recorded', () => {
  assert.is(verdict(follower, reached({ oid: '501', replaces: '500' })), 'own');
  assert.is(verdict(follower, reached({ oid: '501', replaces: '499' })), 'other');
  assert.is(verdict(follower, reached({ oid: '501', replaces: '500', systemId: '7' })), 'other');
});

test('a start without a database, of an older version, refuses no node', () => {
  const older = foldControl(emptyControlState, [start]);
  assert.is(judgeDatabase('b', follower, reached({ systemId: '7002' }), older).kind, 'own');
  assert.is(judgeDatabase('b', null, reached(), older).kind, 'other');
});

test.run();
