/**
 * The status of a follower that is behind on purpose, and of one that was detached.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ControlRecord } from '../../src/control/control-records.ts';
import type { NodeStatus } from '../../src/fleet/status/node-status.ts';
import { at } from '../support/builders.ts';
import {
  claim,
  control,
  facts,
  follower,
  found,
  identity,
  nodesOf,
  nowMs,
  time,
} from '../support/fleet-facts.ts';

const status = suite('judgeStatus');

/** Node b is delayed by 15 minutes; the newest point was committed so long ago. */
function delayedNode(ageMs: number, upto = 900): NodeStatus {
  const commitTimeMicros = BigInt(nowMs - ageMs) * 1000n;
  const position = { at: at(1, upto), commitTimeMicros: 0n };
  const input = facts({ b: follower(upto, { position }) });
  const nodes = input.nodes.map((node) => ({ ...node, delayMs: 900_000 }));
  const topic = found({ at: at(1, 1000), point: { commitTimeMicros } });
  return nodesOf({ ...input, nodes, topic })[1];
}

status('a delayed follower that is behind waits on purpose; it can be promoted', () => {
  const young = delayedNode(899_000);
  assert.is(young.state, 'waiting');
  assert.equal(young.why, ['delayed by 15m: it applies nothing younger']);
  assert.is(young.promotable, true);
  const current = delayedNode(899_000, 1000);
  assert.is(current.state, 'streaming');
  assert.equal(current.why, young.why);
  const late = delayedNode(903_000);
  assert.is(late.state, 'catching-up');
  assert.match(late.why.join(), /delayed by 15m.*it is applying transactions up to 1:0\/3E8/);
  const undelayed = facts({ b: follower(900, { position: null }) });
  assert.equal(nodesOf(undelayed)[0].why, []);
});

status('a detached node is reported as such, whatever its database is now', () => {
  const detach: ControlRecord = { kind: 'detach', id: 'x', node: 'b', at: at(1, 16), time };
  const again: ControlRecord = { ...detach, id: 'y', at: at(1, 17) };
  const state = found(control(claim(1, 'a'), detach, again));
  const other = { ...identity('b', 'follower'), cluster: 'other', streamId: 'stream-2' };
  for (const [who, rest] of [
    [null, []],
    [other, []],
    [identity('b', 'follower'), ['its detach is not complete: understudy detach b']],
  ] as const) {
    const [, b] = nodesOf(facts({ control: state, b: follower(1000, { identity: who }) }));
    assert.equal(b.why, ['detached at 1:0/10: a database of its own', ...rest]);
    assert.equal([b.role, b.state, b.lsn, b.promotable], [null, 'stopped', null, false]);
  }
});

status.run();
