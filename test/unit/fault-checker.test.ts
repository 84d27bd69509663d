/**
 * The checker of fault tests must be able to fail: every invariant gets histories that break it,
 * and one sound history that nothing is found in. Without this a green fault test would say
 * nothing. The topic has a file of its own.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Lsn } from '../../src/change/lsn.ts';
import type { EpochLsn } from '../../src/change/position.ts';
import type { FleetStatus } from '../../src/fleet/status/node-status.ts';
import type { KnownEpoch } from '../support/checker/epochs.ts';
import {
  judgeCosts,
  judgeDigests,
  judgeFold,
  judgeLag,
  judgeSights,
  judgeStatus,
  type KnownNode,
} from '../support/checker/judge-fleet.ts';
import { type Contents, judgeWrites } from '../support/checker/judge-writes.ts';
import { describe, type Violation } from '../support/checker/violation.ts';
import type { Entry } from '../support/history.ts';

const lsn = (value: number): Lsn => BigInt(value) as Lsn;
const at = (epoch: number, value: number): EpochLsn => ({ epoch, lsn: lsn(value) });

/** What was found, as `I1 an acknowledged write is lost`. */
function found(violations: readonly Violation[]): readonly string[] {
  return violations.map(({ invariant, what }) => `${invariant} ${what}`);
}

const writes = suite('judging writes');

function entry(changes: Partial<Entry> = {}): Entry {
  return {
    ...{ workload: 'entries', writer: 1, n: 1, node: 'a', outcome: 'ok', token: at(1, 50) },
    ...{ adds: ['entry/1/1'], raises: [], reads: [] },
    ...changes,
  };
}

function holding(changes: Partial<Contents> = {}): Contents {
  const things = new Map([['entry/1/1', 1]]);
  return { node: 'b', things, counters: new Map(), lists: new Map(), ...changes };
}

const first: KnownEpoch = { epoch: 1, leader: 'a', systemId: 's1', timeline: 1, base: null };
const promoted: KnownEpoch = {
  epoch: 2,
  leader: 'b',
  systemId: 's2',
  timeline: 1,
  base: at(1, 40),
};
const claimedAgain: KnownEpoch = { ...first, epoch: 2, base: at(1, 40) };
const nothing = new Map<string, number>();

writes('a sound history breaks nothing', () => {
  const entries = [
    entry(),
    entry({ n: 2, outcome: 'fail', token: null, adds: ['entry/1/2'] }),
    entry({ n: 3, outcome: 'unknown', token: null, adds: ['entry/1/3'], raises: ['v'] }),
    entry({ n: 4, adds: ['list/1/x'], reads: [{ list: '1', elements: ['w', 'x'] }] }),
    entry({ n: 5, adds: ['list/1/w'], raises: ['v'] }),
  ];
  const things = new Map(['entry/1/1', 'list/1/x', 'list/1/w'].map((thing) => [thing, 1]));
  const lists = new Map([['1', ['w', 'x']]]);
  const nodes = [1n, 2n].map((v) => holding({ things, lists, counters: new Map([['v', v]]) }));
  const { violations, lost } = judgeWrites(entries, nodes, [first]);
  assert.equal(found(violations), []);
  assert.equal(lost, []);
});

writes('I1: an acknowledged write that is not there is lost', () => {
  const { violations } = judgeWrites([entry()], [holding({ things: nothing })], [first]);
  assert.equal(found(violations), ['I1 an acknowledged write is lost']);
  assert.match(describe(violations), 'entry/1/1, acknowledged at 1:0/32, is not on b');
});

writes('I1: what a failover leaves out lies past its base, and is reported', () => {
  const gone = [holding({ things: nothing })];
  const past = judgeWrites([entry({ token: at(1, 41) })], gone, [first, promoted]);
  assert.equal(found(past.violations), []);
  assert.equal(past.lost, ['entry/1/1, acknowledged at 1:0/29']);
  const before = judgeWrites([entry({ token: at(1, 40) })], gone, [first, promoted]);
  assert.equal(found(before.violations), ['I1 an acknowledged write is lost']);
  assert.equal(before.lost, []);
});

writes('I1: a leader that begins an epoch anew on its own server may leave nothing out', () => {
  const gone = [holding({ things: nothing })];
  const { violations } = judgeWrites([entry()], gone, [first, claimedAgain]);
  assert.equal(found(violations), ['I1 an acknowledged write is lost']);
  const third: KnownEpoch = { ...promoted, epoch: 3, base: at(2, 45) };
  const later = judgeWrites([entry()], gone, [first, claimedAgain, third]);
  assert.equal(found(later.violations), []);
  assert.is(later.lost.length, 1);
});

writes('I1: a write without a token may be lost by a failover only', () => {
  const gone = [holding({ things: nothing })];
  const unknown = entry({ token: null });
  const { violations } = judgeWrites([unknown], gone, [first, claimedAgain]);
  assert.equal(found(violations), ['I1 an acknowledged write is lost']);
  assert.is(judgeWrites([unknown], gone, [first, promoted]).lost.length, 1);
});

writes('I1: a counter below its acknowledged changes has lost one', () => {
  const entries = [1, 2, 3].map((n) => entry({ n, adds: [], raises: ['v'] }));
  const node = holding({ things: nothing, counters: new Map([['v', 2n]]) });
  const { violations } = judgeWrites(entries, [node], [first]);
  assert.equal(found(violations), ['I1 an acknowledged change is lost']);
});

writes('I2: twice, out of order, or more changes than were made', () => {
  const twice = judgeWrites([entry()], [holding({ things: new Map([['entry/1/1', 2]]) })], [first]);
  assert.equal(found(twice.violations), ['I2 a thing is there twice']);
  const over = holding({ counters: new Map([['v', 2n]]) });
  const raised = judgeWrites([entry({ raises: ['v'] })], [over], [first]);
  assert.equal(found(raised.violations), ['I2 a change was made twice']);
  const order = entry({ adds: ['list/1/x'], reads: [{ list: '1', elements: ['w', 'x'] }] });
  const other = entry({ n: 2, adds: ['list/1/w'] });
  const things = new Map(['list/1/x', 'list/1/w'].map((thing) => [thing, 1]));
  const swapped = holding({ things, lists: new Map([['1', ['x', 'w']]]) });
  const mixed = judgeWrites([order, other], [swapped], [first]);
  assert.equal(found(mixed.violations), ['I2 a list has another order than it had']);
});

writes('I4: a transaction of which a part is there', () => {
  const two = entry({ adds: ['entry/1/1', 'entry/1/2'] });
  const { violations } = judgeWrites([two], [holding()], [first]);
  assert.equal(found(violations), ['I4 a transaction is there in part']);
});

writes('I5: a node that acknowledges for an epoch of another', () => {
  const { violations } = judgeWrites([entry({ node: 'b' })], [holding()], [first]);
  assert.equal(found(violations), ['I5 a node acknowledged for an epoch that is not its own']);
  const nowhere = judgeWrites([entry({ token: at(7, 1) })], [holding()], [first]);
  assert.equal(found(nowhere.violations), ['I5 a write was acknowledged in no epoch']);
});

writes('I6: rows that were rolled back, or that nobody wrote', () => {
  const undone = judgeWrites([entry({ outcome: 'fail', token: null })], [holding()], [first]);
  assert.equal(found(undone.violations), ['I6 what was rolled back is there']);
  const stranger = judgeWrites([], [holding()], [first]);
  assert.equal(found(stranger.violations), ['I6 nobody committed what is there']);
});

writes.run();

const fleet = suite('judging a fleet');

const table = { table: 't', rows: 2, digest: '77' };
const leads: KnownNode = {
  ...{ name: 'a', leads: true, serverRuns: true, agentRuns: true, writable: true, equal: true },
};
const follows: KnownNode = { ...leads, name: 'b', leads: false, writable: false };
const streaming = {
  ...({
    state: 'streaming',
    lsn: '1:0/20',
    lagBytes: 0,
    lagMs: 0,
    slot: null,
    agentError: null,
    schemaFormat: 2,
    why: [],
  } as const),
};
const status: FleetStatus = {
  ...{ cluster: 'c', stream: 's', epoch: 1, leader: 'a', durability: 'async', topic: 'c.changes' },
  damage: [],
  unfinished: [],
  nodes: [
    { name: 'a', role: 'leader', ...streaming, exact: true, promotable: false },
    { name: 'b', role: 'follower', ...streaming, exact: true, promotable: true },
  ],
};

fleet('a sound fleet breaks nothing', () => {
  const nodes = ['a', 'b'].map((node) => ({ node, tables: [table] }));
  assert.equal(judgeDigests(nodes, '1:0/20'), []);
  assert.equal(judgeFold(new Map([['public.t', 2]]), { node: 'a', tables: [table] }), []);
  assert.equal(judgeStatus(status, [leads, follows]), []);
  assert.equal(judgeLag(status, 0), []);
});

fleet('I2, I4: what a watcher saw', () => {
  const sight = { node: 'b', workload: 'bank', kind: 'wrong', what: 'sum 1', atMs: 0 } as const;
  const seen = judgeSights([sight, { ...sight, kind: 'back', what: 'v from 2 to 1' }]);
  assert.equal(found(seen), ['I4 a snapshot does not add up', 'I2 a value went back on a node']);
});

fleet('I3: other rows on a node, or in the topic', () => {
  const other = { ...table, digest: '78' };
  const nodes = [
    { node: 'a', tables: [table] },
    { node: 'b', tables: [other] },
  ];
  assert.equal(found(judgeDigests(nodes, '1:0/20')), ['I3 the nodes hold different rows']);
  const folded = judgeFold(new Map([['public.t', 3]]), { node: 'a', tables: [table] });
  assert.equal(found(folded), ['I3 the topic folds to other rows']);
});

fleet('I7: every lie that status could tell', () => {
  const lies = (known: readonly KnownNode[]): string => describe(judgeStatus(status, known));
  assert.match(
    lies([
      { ...leads, leads: false },
      { ...follows, leads: true },
    ]),
    'the leader is b',
  );
  assert.match(lies([leads, { ...follows, serverRuns: false }]), 'b is down, not streaming');
  assert.match(lies([leads, { ...follows, agentRuns: false }]), 'b has no agent that runs');
  assert.match(lies([leads, { ...follows, equal: false }]), 'b is not exact');
  assert.match(lies([leads, { ...follows, equal: false }]), 'b is not promotable');
  assert.match(lies([leads, { ...follows, writable: true }]), 'b follows and takes writes');
  assert.match(lies([{ ...leads, writable: false }, follows]), 'a leads and refuses writes');
  assert.match(lies([leads, follows, { ...follows, name: 'c' }]), 'node c is left out');
  const [a, b] = status.nodes;
  const down = { ...status, nodes: [a, { ...b, state: 'down' }] } as FleetStatus;
  assert.match(describe(judgeStatus(down, [leads, follows])), 'b is up, not down');
  const swapped = { ...status, nodes: [a, { ...b, role: 'leader' }] } as FleetStatus;
  assert.match(describe(judgeStatus(swapped, [leads, follows])), 'b is no leader');
});

fleet('I8: an agent or a slot beyond its limit', () => {
  const limits = { residentBytes: 10, keptWalBytes: 10 };
  const within = { node: 'a', residentBytes: 10, keptWalBytes: 10 };
  assert.equal(judgeCosts([within], limits), []);
  const costs = [
    { ...within, residentBytes: 11 },
    { ...within, keptWalBytes: 11 },
  ];
  assert.equal(found(judgeCosts(costs, limits)), [
    'I8 an agent is too large',
    'I8 a slot keeps too much',
  ]);
});

fleet('I9: a node that still lags', () => {
  const [a, b] = status.nodes;
  const behind = { ...status, nodes: [a, { ...b, lagMs: 5 }] } as FleetStatus;
  assert.equal(found(judgeLag(behind, 9)), ['I9 a node lags although nothing is wrong']);
});

fleet('of many pieces of evidence the first are shown, and all are counted', () => {
  const entries = Array.from({ length: 9 }, (_, n) => entry({ n, adds: [`entry/1/${n}`] }));
  const { violations } = judgeWrites(entries, [holding({ things: nothing })], [first]);
  assert.is(violations[0]?.count, 9);
  assert.match(describe(violations), 'entry/1/0');
  assert.match(describe(violations), '… and 4 more');
});

fleet.run();
