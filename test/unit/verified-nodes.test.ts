/**
 * Whom a verification compares: followers of now, with the rest named; and that nothing compared is
 * not taken for everything equal.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ControlRecord } from '../../src/control/control-records.ts';
import { emptyControlState, foldControl } from '../../src/control/control-state.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { chooseNodes } from '../../src/fleet/operations/judge-verified-nodes.ts';
import { at } from '../support/builders.ts';

const time = '2026-03-01T10:00:00.000Z';
const claim: ControlRecord = {
  ...{ kind: 'claim', id: 'c1', epoch: 1, node: 'a', predecessor: null, time },
} as const;

function choose(
  delayed: readonly string[],
  detached: readonly string[],
  named: readonly string[] = [],
): ReturnType<typeof chooseNodes> | string {
  const records = detached.map((node): ControlRecord => {
    return { kind: 'detach', id: node, node, at: at(1, 16), time };
  });
  const state = foldControl(emptyControlState, [claim, ...records]);
  const delayMs = (node: string): number => (delayed.includes(node) ? 900_000 : 0);
  const cluster = { name: 'shop', settings: { nodeNames: ['a', 'b', 'c'], delayMs } };
  try {
    return chooseNodes(state, cluster, named);
  } catch (error) {
    if (error instanceof UnderstudyError) return error.code;
    throw error;
  }
}

const leader = { leader: 'a', epoch: 1 };

test('all followers are compared; one that is named alone', () => {
  assert.equal(choose([], []), { ...leader, followers: ['b', 'c'], leftOut: [] });
  assert.equal(choose(['c'], ['c'], ['b']), { ...leader, followers: ['b'], leftOut: [] });
});

test('a delayed node and a detached one are left out, with the reason', () => {
  const why = 'delayed by 15m: it applies nothing younger';
  const delayed = { ...leader, followers: ['c'], leftOut: [{ name: 'b', why }] };
  assert.equal(choose(['b'], []), delayed);
  const leftOut = [{ name: 'c', why: 'detached at 1:0/10' }];
  assert.equal(choose([], ['c']), { ...leader, followers: ['b'], leftOut });
});

test('a node that is left out is refused when it is named, and when there is no other', () => {
  assert.is(choose(['b'], [], ['c', 'b']), 'PREREQUISITE');
  assert.is(choose([], ['b'], ['b']), 'DETACHED');
  assert.is(choose(['b', 'c'], []), 'PREREQUISITE');
  assert.is(choose([], ['b', 'c']), 'DETACHED');
});

test.run();
