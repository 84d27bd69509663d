/**
 * A failover before anything is changed: the nodes that the control log excludes, the plan of a dry
 * run, and the loss that has to be allowed.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ControlRecord } from '../../src/control/control-records.ts';
import { emptyControlState, foldControl } from '../../src/control/control-state.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  needsAllowDataLoss,
  planFailover,
  requireCandidate,
} from '../../src/fleet/operations/judge-failover.ts';
import { at } from '../support/builders.ts';
import { claim, control, time } from '../support/fleet-facts.ts';

const state = control(claim(1, 'a'));
const candidate = {
  position: { at: at(1, 16), unfinished: [] },
  open: null,
  notValid: [],
  doubts: [],
};

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof UnderstudyError) return error.code;
    throw error;
  }
  return 'none';
}

test('the owner, a detached node and every node of a damaged topic are no candidates', () => {
  const detach: ControlRecord = { kind: 'detach', id: 'd', node: 'b', at: at(1, 16), time };
  const damage: ControlRecord = {
    ...{ kind: 'damage', id: 'x', epoch: 1, at: null, reason: 'a hole', node: 'a', time },
  };
  const cases = [
    [emptyControlState, 'b', 'NOT_INITIALISED'],
    [state, 'a', 'NOT_PROMOTABLE'],
    [foldControl(state, [detach]), 'b', 'DETACHED'],
    [foldControl(state, [damage]), 'b', 'NOT_PROMOTABLE'],
    [state, 'b', 'none'],
  ] as const;
  for (const [facts, node, code] of cases) {
    assert.is(
      codeOf(() => requireCandidate(facts, 'shop', node)),
      code,
      `${node}: ${code}`,
    );
  }
});

test('the plan names the epoch, the leader it ends and the position', () => {
  assert.equal(planFailover(state, 'b', candidate), {
    ...{ node: 'b', dryRun: true, epoch: 2, leader: 'a', lsn: '1:0/10' },
    ...{ unfinished: [], lacks: [] },
  });
});

test('a schema that is being built refuses the node, unless it waits for missing rows', () => {
  const open = { phase: 'post-data', done: 1, total: 5, refused: [] } as const;
  assert.is(
    codeOf(() => planFailover(state, 'b', { ...candidate, open })),
    'NOT_PROMOTABLE',
  );
  const position = { at: at(1, 16), unfinished: ['public.t'] };
  assert.equal(planFailover(state, 'b', { ...candidate, open, position }).unfinished, ['public.t']);
});

test('a node whose rows are in doubt is refused, with what status shows', () => {
  const doubts = ['its rows are in doubt: verify found rows', 'it needs the offset 5'];
  assert.throws(
    () => planFailover(state, 'b', { ...candidate, doubts }),
    (error: unknown) => {
      assert.instance(error, UnderstudyError);
      const { code, message, hint } = error as UnderstudyError;
      assert.equal([code, message.includes(doubts.join('; '))], ['NOT_PROMOTABLE', true]);
      assert.match(hint, 'understudy rebuild b');
      return true;
    },
  );
});

test('the plan names a change at which the leader stopped, and which would be lost', () => {
  const error = { code: 'SCHEMA_CHANGED', message: 'public.t was rewritten', hint: 'x', exit: 4 };
  const stopped = foldControl(state, [{ kind: 'stop', node: 'a', error, time }]);
  const { lacks } = planFailover(stopped, 'b', candidate);
  assert.match(lacks.join(), 'does not carry: public.t was rewritten');
});

test('the refusal names the largest loss and the command that allows it', () => {
  const plan = planFailover(state, 'b', candidate);
  const messages = [
    needsAllowDataLoss({ ...plan, unfinished: ['public.t'], lacks: ['an index'] }),
    needsAllowDataLoss({ ...plan, lacks: ['an index'] }),
    needsAllowDataLoss(plan),
  ];
  for (const { code, hint } of messages) {
    assert.is(code, 'NEEDS_ALLOW_DATA_LOSS');
    assert.match(hint, 'understudy failover b --allow-data-loss --reason');
  }
  assert.match(messages[0]?.message ?? '', 'node b is backfilling public.t');
  assert.match(messages[1]?.message ?? '', 'without parts of the schema: an index');
  assert.match(messages[2]?.message ?? '', 'transactions that a acknowledged');
});

test.run();
