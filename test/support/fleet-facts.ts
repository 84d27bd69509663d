/**
 * What was found of a fleet of two, a leading and b following, as `status` judges it. Flows in:
 * what a test cares about; flows out: facts that are sound in everything else.
 */

import type { NodeIdentity } from '../../src/catalog/understudy-schema.ts';
import type { ControlRecord } from '../../src/control/control-records.ts';
import {
  type ControlState,
  emptyControlState,
  foldControl,
} from '../../src/control/control-state.ts';
import type { DatabaseFacts, FleetFacts, Found } from '../../src/fleet/status/fleet-facts.ts';
import { judgeStatus } from '../../src/fleet/status/judge-status.ts';
import type { NodeStatus } from '../../src/fleet/status/node-status.ts';
import type { SlotWal } from '../../src/leader/stream/slot.ts';
import { at, lsn } from './builders.ts';

export const time = '2025-11-21T09:00:00.000Z';
export const stream: ControlRecord = {
  kind: 'stream',
  streamId: 'stream-1',
  cluster: 'shop',
  partitions: 1,
  topic: {},
  time,
};

export function claim(epoch: number, node: string): ControlRecord {
  const predecessor = epoch === 1 ? null : `claim-${epoch - 1}`;
  return { kind: 'claim', id: `claim-${epoch}`, epoch, node, predecessor, time };
}

export function control(...records: readonly ControlRecord[]): ControlState {
  return foldControl(emptyControlState, [stream, ...records]);
}

export function found<Value>(value: Value): Found<Value> {
  return { kind: 'found', value };
}

export function identity(name: string, role: 'leader' | 'follower', epoch = 1): NodeIdentity {
  return { cluster: 'shop', name, streamId: 'stream-1', role, epoch, startNumber: 1n };
}

export const nowMs = 1_000_000;
export const commitMicros = BigInt(nowMs - 100) * 1000n;
export const slot: SlotWal = {
  name: 'understudy_shop_1',
  active: true,
  walStatus: 'reserved',
  retainedBytes: 2_000_000,
  unconfirmedBytes: 1_000_000,
  safeBytes: null,
};
export const active = [slot];

export function leader(changes: Partial<DatabaseFacts> = {}): DatabaseFacts {
  return {
    identity: identity('a', 'leader'),
    position: null,
    walLsn: lsn(1000),
    agentRuns: true,
    slots: active,
    ...changes,
  };
}

export function follower(upto: number, changes: Partial<DatabaseFacts> = {}): DatabaseFacts {
  return {
    identity: identity('b', 'follower'),
    position: { at: at(1, upto), commitTimeMicros: commitMicros },
    walLsn: lsn(5),
    agentRuns: true,
    slots: [],
    ...changes,
  };
}

export function facts(
  changes: Partial<FleetFacts> & { a?: DatabaseFacts; b?: DatabaseFacts } = {},
): FleetFacts {
  const { a = leader(), b = follower(1000), ...rest } = changes;
  return {
    cluster: 'shop',
    topicName: 'shop.changes',
    control: found(control(claim(1, 'a'))),
    topic: found({ at: at(1, 1000), point: { commitTimeMicros: commitMicros } }),
    nodes: [
      { name: 'a', database: found(a) },
      { name: 'b', database: found(b) },
    ],
    nowMs,
    ...rest,
  };
}

export function nodesOf(input: FleetFacts): readonly [NodeStatus, NodeStatus] {
  const [a, b] = judgeStatus(input).nodes;
  if (a === undefined || b === undefined) throw new Error('there are two nodes');
  return [a, b];
}
