/**
 * What `status` makes of what was found: states, lag and promotability, and that the unknown is
 * null with its reason and never a guess.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ControlRecord } from '../../src/control/control-records.ts';
import { emptyControlState, foldControl } from '../../src/control/control-state.ts';
import type { DatabaseFacts, FleetFacts, Found } from '../../src/fleet/status/fleet-facts.ts';
import { isUninitialised, judgeStatus } from '../../src/fleet/status/judge-status.ts';
import type { NodeStatus } from '../../src/fleet/status/node-status.ts';
import { at, lsn } from '../support/builders.ts';
import {
  active,
  claim,
  commitMicros,
  control,
  facts,
  follower,
  found,
  identity,
  leader,
  nodesOf,
  nowMs,
  slot,
  time,
} from '../support/fleet-facts.ts';

const status = suite('judgeStatus');

status('a sound fleet', () => {
  assert.equal(judgeStatus(facts()), {
    cluster: 'shop',
    stream: 'stream-1',
    epoch: 1,
    leader: 'a',
    durability: 'async',
    topic: 'shop.changes',
    unfinished: [],
    damage: [],
    nodes: [
      {
        name: 'a',
        role: 'leader',
        state: 'streaming',
        lsn: '1:0/3E8',
        lagBytes: 1_000_000,
        lagMs: null,
        exact: true,
        promotable: false,
        slot: {
          name: 'understudy_shop_1',
          walStatus: 'reserved',
          retainedBytes: 2_000_000,
          unpublishedBytes: 1_000_000,
          safeBytes: null,
        },
        agentError: null,
        schemaFormat: null,
        why: [],
      },
      {
        name: 'b',
        role: 'follower',
        state: 'streaming',
        lsn: '1:0/3E8',
        lagBytes: 0,
        lagMs: 0,
        exact: true,
        promotable: true,
        slot: null,
        agentError: null,
        schemaFormat: null,
        why: [],
      },
    ],
  });
});

status('partitions that only the leader has are named at the follower', () => {
  const a = leader({ partitions: ['public.high', 'public.low', 'public.mid'] });
  const [, lacks] = nodesOf(facts({ a, b: follower(1000, { partitions: ['public.mid'] }) }));
  assert.equal(lacks.why, [
    'it lacks partitions that the leader has: public.high, public.low; it stops at their first row',
  ]);
  const more = follower(1000, {
    partitions: ['public.high', 'public.low', 'public.mid', 'public.x'],
  });
  assert.equal(nodesOf(facts({ a, b: more }))[1].why, []);
});

status('the lag of a leader is what the topic does not have', () => {
  const withSlot = (unconfirmedBytes: number | null): NodeStatus =>
    nodesOf(facts({ a: leader({ slots: [{ ...slot, unconfirmedBytes }] }) }))[0];
  assert.equal([withSlot(0).lagBytes, withSlot(0).lagMs], [0, 0]);
  assert.equal([withSlot(210_000).lagBytes, withSlot(210_000).lagMs], [210_000, null]);
  assert.equal([withSlot(null).lagBytes, withSlot(null).lagMs], [null, null]);
});

status('while the slot is lost no follower streams, and none is promotable', () => {
  const lost = leader({ slots: [{ ...slot, active: false, walStatus: 'lost' }] });
  const [, b] = nodesOf(facts({ a: lost }));
  assert.equal([b.state, b.exact, b.promotable], ['waiting', true, false]);
  assert.match(b.why.join(), 'the stream of leader a has ended: its replication slot');
  const down = { name: 'a', database: { kind: 'missing', reason: 'gone' } } as const;
  const rest = facts({ nodes: [down, { name: 'b', database: found(follower(1000)) }] });
  const [, rescue] = judgeStatus(rest).nodes;
  assert.is(rescue?.promotable, true, 'a leader that is gone writes nothing more');
});

const agentError = { code: 'SLOT_MISMATCH', message: 'it is gone', time };

status('an agent that failed is shown with its error, whether it retries or has ended', () => {
  const stopped = nodesOf(
    facts({
      a: leader({ agentRuns: false, agentError }),
      b: follower(1000, { agentRuns: false, agentError }),
    }),
  );
  for (const { why, agentError: shown } of stopped) {
    assert.equal(why, [
      `no agent runs; the last one failed at ${time} with SLOT_MISMATCH: it is gone`,
    ]);
    assert.equal(shown, agentError);
  }
  const idle = [{ ...slot, active: false }];
  const [a, b] = nodesOf(
    facts({ a: leader({ slots: idle, agentError }), b: follower(1000, { agentError }) }),
  );
  assert.equal([a.state, b.state], ['stopped', 'waiting']);
  for (const { why } of [a, b]) assert.match(why.join(), 'retries, it failed at');
});

status('an init that was killed is no leader that released its epoch', () => {
  const [a] = nodesOf(facts({ control: found(control()) }));
  assert.is(a.state, 'stopped');
  assert.equal(a.why, ['init did not end: no node leads the cluster']);
});

status('a leader without agent, without slot, with an idle or a lost one has stopped', () => {
  const cases: readonly (readonly [Partial<DatabaseFacts>, RegExp])[] = [
    [{ agentRuns: false }, /no agent runs: understudy run a/],
    [{ slots: [] }, /slot is missing/],
    [{ slots: [{ ...slot, active: false, walStatus: 'lost' }] }, /has lost WAL/],
    [{ slots: [{ ...slot, active: false }] }, /does not read the WAL/],
  ];
  for (const [changes, why] of cases) {
    const [a] = nodesOf(facts({ a: leader(changes) }));
    assert.is(a.state, 'stopped');
    assert.is(a.role, 'leader');
    assert.match(a.why.join(), why);
  }
});

status('tables that are closed after a promotion are named until they take writes', () => {
  const names = ['t1', 't2', 't3', 't4', 't5', 't6'].map((name) => `public.${name}`);
  const [a] = nodesOf(facts({ a: leader({ closedTables: names }) }));
  assert.is(a.state, 'streaming');
  assert.match(a.why.join(), /no writes yet in public\.t1, .*public\.t5 and 1 more: its agent/);
  assert.equal(nodesOf(facts({ a: leader({ closedTables: [] }) }))[0].why, []);
});

status('a lost slot is reported while no agent runs, too', () => {
  for (const slots of [[], [{ ...slot, active: false, walStatus: 'lost' }]]) {
    const [a] = nodesOf(facts({ a: leader({ agentRuns: false, slots }) }));
    assert.is(a.state, 'stopped');
    assert.match(a.why[0] ?? '', /no agent runs/);
    assert.match(a.why[1] ?? '', /slot .*: its writes are not published/);
  }
});

status('WAL that is kept is reported with its size and its limit, with and without Kafka', () => {
  const waits = { ...slot, retainedBytes: 700 * 2 ** 20, unconfirmedBytes: 690 * 2 ** 20 };
  const slots = [{ ...waits, safeBytes: 300 * 2 ** 20 }];
  const away: Found<never> = { kind: 'missing', reason: 'Kafka is away' };
  for (const changes of [{}, { control: away, topic: away }]) {
    const [a] = nodesOf(facts({ a: leader({ slots }), ...changes }));
    assert.is(a.state, 'catching-up');
    assert.is(a.slot?.unpublishedBytes, 690 * 2 ** 20);
    assert.equal(a.why.slice(0, 2), [
      '690 MB of its WAL is not in the topic yet',
      'the slot understudy_shop_1 keeps 700 MB of WAL, and is invalidated after 300 MB more',
    ]);
  }
});

status('a leader that was replaced is fenced and no longer leads', () => {
  const b = follower(2000, {
    identity: identity('b', 'leader', 2),
    walLsn: lsn(2500),
    slots: active,
  });
  const input = facts({ control: found(control(claim(1, 'a'), claim(2, 'b'))), b });
  const result = judgeStatus(input);
  assert.is(result.leader, 'b');
  assert.is(result.epoch, 2);
  const [a, now] = nodesOf(input);
  assert.is(a.state, 'fenced');
  assert.is(a.role, 'follower');
  assert.is(a.promotable, false);
  assert.match(a.why.join(), 'it led epoch 1; node b is the leader of epoch 2');
  assert.is(now.role, 'leader');
  assert.is(now.state, 'streaming');
  assert.is(now.lsn, '2:0/9C4');
});

status('a node that has claimed and not begun is waiting', () => {
  const [, b] = nodesOf(facts({ control: found(control(claim(1, 'a'), claim(2, 'b'))) }));
  assert.is(b.role, 'leader');
  assert.is(b.state, 'waiting');
  assert.is(b.promotable, false);
  assert.match(b.why.join(), 'its promotion to leader of epoch 2 is not complete');
});

status('lag is to the leader’s WAL, else to the log, and never across epochs', () => {
  const wal = { a: leader({ walLsn: lsn(1500) }) };
  assert.is(nodesOf(facts({ ...wal, b: follower(900) }))[1].lagBytes, 600);
  const nodes = [
    { name: 'a', database: { kind: 'missing', reason: 'gone' } },
    { name: 'b', database: found(follower(900)) },
  ] as const;
  const [a, b] = nodesOf(facts({ nodes }));
  assert.is(b.lagBytes, 100);
  assert.is(a.state, 'down');
  assert.is(a.lsn, null);
  assert.is(a.promotable, false);
  assert.equal(a.why, ['gone']);
  const older = follower(900, { identity: identity('b', 'follower') });
  const newer = found({ at: at(2, 50), point: { commitTimeMicros: commitMicros } });
  assert.is(
    nodesOf(facts({ nodes: [{ name: 'b', database: found(older) }, nodes[0]], topic: newer }))[0]
      .lagBytes,
    null,
  );
});

status('streaming is at the end, or close behind it', () => {
  const behindBy = (ms: number, ageMs: number, upto = 900): FleetFacts => {
    const newest = BigInt(nowMs - ageMs) * 1000n;
    const position = { at: at(1, upto), commitTimeMicros: newest - BigInt(ms) * 1000n };
    return facts({
      a: leader({ walLsn: lsn(100_000_000) }),
      b: follower(upto, { position }),
      topic: found({ at: at(1, 100_000_000), point: { commitTimeMicros: newest } }),
    });
  };
  assert.is(nodesOf(behindBy(500, 60_000))[1].state, 'streaming');
  assert.is(nodesOf(behindBy(5_000, 60_000))[1].state, 'catching-up');
  assert.is(nodesOf(behindBy(5_000, 60_000))[1].lagMs, 5_000);
  // A first write after a quiet hour is on its way; a hundred megabytes are not.
  assert.is(nodesOf(behindBy(3_600_000, 100, 99_999_000))[1].state, 'streaming');
  assert.is(nodesOf(behindBy(3_600_000, 100))[1].state, 'catching-up');
  assert.is(nodesOf(facts({ b: follower(1000, { agentRuns: false }) }))[1].state, 'stopped');
});

status('while the topic is damaged no node is promotable', () => {
  const damage: ControlRecord = {
    kind: 'damage',
    id: 'd1',
    epoch: 1,
    at: null,
    reason: 'two records are missing',
    node: 'a',
    time,
  };
  const damaged = control(claim(1, 'a'), damage);
  const [a, b] = nodesOf(facts({ control: found(damaged) }));
  assert.is(b.state, 'damaged');
  assert.is(b.exact, false);
  assert.is(b.promotable, false);
  assert.match(a.why.join(), 'two records are missing');
  const repaired = foldControl(damaged, [
    { kind: 'repair', damage: 'd1', by: 'op@host', reason: 'x', time },
  ]);
  assert.is(nodesOf(facts({ control: found(repaired) }))[1].promotable, true);
});

status('damage that was closed is listed for ever, with who closed it and why', () => {
  const at1 = at(1, 16);
  const log = control(
    claim(1, 'a'),
    { kind: 'damage', id: 'd1', epoch: 1, at: at1, reason: 'a hole', node: 'b', time },
    { kind: 'repair', damage: 'd1', by: 'op@host', reason: 'INC-7', time },
  );
  assert.equal(judgeStatus(facts({ control: found(log) })).damage, [
    {
      ...{ id: 'd1', lsn: '1:0/10', reason: 'a hole', node: 'b', time },
      repair: { by: 'op@host', reason: 'INC-7', time },
    },
  ]);
});

status('a node whose rows are in doubt is damaged alone', () => {
  const doubts = [{ kind: 'different', what: 'verify found rows' }] as const;
  const [a, b] = nodesOf(facts({ b: follower(1000, { doubts }) }));
  assert.equal([b.state, b.exact, b.promotable], ['damaged', false, false]);
  assert.match(b.why.join(), 'its rows are in doubt: verify found rows');
  assert.is(a.state, 'streaming');
  assert.is(judgeStatus(facts({ b: follower(1000, { doubts }) })).damage?.length, 0);
});

status('where the leader stopped at a change, no follower is promotable before it leads', () => {
  const stopped = (code: string): ControlRecord => ({
    ...{ kind: 'stop', node: 'a', time },
    error: { code, message: 'public.item was rewritten', hint: 'x', exit: 4 },
  });
  const log = (...records: ControlRecord[]) => found(control(claim(1, 'a'), ...records));
  const a = leader({ agentRuns: false });
  const [, follows] = nodesOf(facts({ a, control: log(stopped('SCHEMA_CHANGED')) }));
  assert.is(follows.promotable, false);
  assert.match(follows.why.join(), 'the leader stopped at a change that the stream does not carry');
  const [, ready] = nodesOf(facts({ a, control: log(stopped('RECORD_TOO_LARGE')) }));
  assert.is(ready.promotable, true, 'its rows are those of its position');
  const again: ControlRecord = { kind: 'stop', node: 'a', error: null, time };
  const [, both] = nodesOf(facts({ control: log(stopped('SCHEMA_CHANGED'), again) }));
  assert.is(both.promotable, true);
});

status('a node that compaction may have left behind is not promotable', () => {
  const lag: ControlRecord = { kind: 'compaction-lag', ms: 100_000 };
  const log = found(control(claim(1, 'a'), lag));
  const away = (upto: number, awayMs: number, agentRuns = false): boolean | null => {
    const position = { at: at(1, upto), commitTimeMicros: commitMicros };
    const appendMs = [nowMs - awayMs, nowMs];
    const b = follower(upto, { agentRuns, position: { ...position, appendMs } });
    return nodesOf(facts({ control: log, b }))[1].promotable;
  };
  assert.is(away(900, 89_000), true, 'every change of that time is still there');
  assert.is(away(900, 91_000), false);
  assert.is(away(1000, 10_000_000), true, 'it lacks nothing: the log has ended');
  assert.is(away(900, 91_000, true), true, 'its agent reads what was written a moment ago');
});

status('without Kafka what is unknown is null, with the reason once', () => {
  const missing = { kind: 'missing', reason: 'no broker' } as const;
  const input = facts({ control: missing, topic: missing, b: follower(900) });
  const { epoch, leader: leads, durability, topic, stream: streamId } = judgeStatus(input);
  assert.equal([epoch, leads, durability, topic, streamId], [null, null, null, null, 'stream-1']);
  const [a, b] = nodesOf(input);
  assert.is(a.role, 'leader');
  assert.is(a.exact, null);
  assert.equal(b.why, ['no broker']);
  assert.equal([b.exact, b.promotable, b.lagMs], [null, null, null]);
  assert.is(b.lagBytes, 100, 'facts from the databases are still reported');
});

status(
  'a database without a node, of another cluster or of another stream is reported as such',
  () => {
    const other = { ...identity('b', 'follower'), cluster: 'other' };
    const renewed = { ...identity('b', 'follower'), streamId: 'stream-0' };
    for (const [who, why] of [
      [null, 'understudy run b'],
      [other, 'node b of cluster other'],
      [renewed, 'the stream stream-0'],
    ] as const) {
      const [, b] = nodesOf(facts({ b: follower(1000, { identity: who }) }));
      assert.is(b.state, 'stopped');
      assert.is(b.promotable, false);
      assert.match(b.why.join(), why);
    }
  },
);

status('no cluster differs from a cluster that is down', () => {
  const empty = { a: leader({ identity: null }), b: follower(0, { identity: null }) };
  const noStream = found(emptyControlState);
  assert.is(isUninitialised(facts({ ...empty, control: noStream })), true);
  assert.is(isUninitialised(facts({ ...empty })), false);
  assert.is(isUninitialised(facts({ b: empty.b, control: noStream })), false);
});

status('a follower that needs records that the topic does not hold is not promotable', () => {
  const [watermark] = [{ partition: 0, lowWatermark: 10n, lastStableOffset: 20n }];
  const point = { commitTimeMicros: commitMicros };
  const topic = found({ at: at(1, 1000), point, watermarks: [watermark] });
  const readingOn = (next: bigint, agentRuns: boolean): NodeStatus => {
    const checkpoint = { nextOffsets: [next] };
    const position = { at: at(1, 1000), commitTimeMicros: commitMicros, checkpoint };
    return nodesOf(facts({ topic, b: follower(1000, { agentRuns, position }) }))[1];
  };
  for (const [next, agentRuns, promotable] of [
    [9n, true, false],
    [10n, true, true],
    [10n, false, true],
    [20n, false, true],
    [21n, false, false],
    // It may have read more while the status was read.
    [21n, true, true],
  ] as const) {
    const { promotable: is, why } = readingOn(next, agentRuns);
    assert.is(is, promotable, `reading on at ${next}`);
    assert.is(
      why.some((one) => one.includes(`offset ${next} of partition 0`)),
      !promotable,
    );
  }
});

status.run();
