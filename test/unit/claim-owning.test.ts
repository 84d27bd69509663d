/**
 * The way to an epoch and out of it, step by step. Events flow in, actions are looked at; what may
 * overtake what is the part of the model test.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ControlRecord } from '../../src/control/control-records.ts';
import { emptyControlState, foldControl } from '../../src/control/control-state.ts';
import {
  notOwning,
  type Owning,
  type OwningEvent,
  type OwningStep,
  stepOwning,
} from '../../src/control/owning.ts';

const time = '2026-03-01T10:00:00.000Z';
const first: ControlRecord = {
  kind: 'claim',
  id: 'a1',
  epoch: 1,
  node: 'a',
  predecessor: null,
  time,
};
const second: ControlRecord = { ...first, id: 'b1', epoch: 2, node: 'b', predecessor: 'a1' };
const mine = foldControl(emptyControlState, [first]);
const theirs = foldControl(mine, [second]);

/** Feeds events, each with the ticket of the moment. */
function run(owning: Owning, ...events: readonly object[]): OwningStep {
  let step: OwningStep = { owning, actions: [] };
  for (const event of events) {
    const ticket = step.owning.ticket;
    step = stepOwning(step.owning, { ticket, ...event } as OwningEvent);
  }
  return step;
}

const toLead = [
  { kind: 'start', mayClaim: null },
  { kind: 'verified', control: mine },
  { kind: 'inited' },
  { kind: 'verified', control: mine },
  { kind: 'drained', found: 'not-begun', control: mine },
  { kind: 'begun' },
];

function actionsAfter(count: number, ...more: readonly object[]): string[] {
  const { actions } = run(notOwning('a'), ...toLead.slice(0, count), ...more);
  return actions.map(({ kind }) => kind);
}

test('a start that finds the epoch mine does one thing after the other', () => {
  const expected = [['discard-producer', 'verify'], ['discard-producer', 'init'], ['verify']];
  const after = [...expected, ['drain'], ['begin'], ['lead']];
  assert.equal(
    toLead.map((_, index) => actionsAfter(index + 1)),
    after,
  );
});

test('an epoch whose begin is there is led on without another', () => {
  assert.equal(actionsAfter(4, { kind: 'drained', found: 'begun', control: mine }), ['lead']);
});

test('a torn batch makes a new epoch of my own', () => {
  const { owning, actions } = run(notOwning('a'), ...toLead.slice(0, 4), {
    kind: 'drained',
    found: 'over',
    control: mine,
  });
  assert.equal(actions[0], { kind: 'claim', claim: { epoch: 2, predecessor: 'a1' } });
  assert.is(actions[1]?.kind, 'verify');
  assert.equal(owning.phase, { kind: 'claiming', epoch: 2 });
});

test('without being asked to lead, an agent claims nothing', () => {
  const checked = { kind: 'verified', control: theirs };
  assert.equal(actionsAfter(1, checked), ['discard-producer', 'step-down']);
});

test('who is asked to lead claims, and a lost claim is the end of it', () => {
  const asked = [
    { kind: 'start', mayClaim: 3 },
    { kind: 'verified', control: theirs },
  ];
  const claiming = run(notOwning('c'), ...asked);
  assert.equal(claiming.actions[0], { kind: 'claim', claim: { epoch: 3, predecessor: 'b1' } });
  const lost = run(claiming.owning, { kind: 'verified', control: theirs });
  assert.equal(lost.owning.phase, { kind: 'stepped-down' });
});

test('a request for an epoch that another node has claimed since is the end of it', () => {
  const late = [
    { kind: 'start', mayClaim: 2 },
    { kind: 'verified', control: theirs },
  ];
  assert.equal(run(notOwning('c'), ...late).owning.phase, { kind: 'stepped-down' });
});

test('from init on, another’s claim ends the reign wherever it stands', () => {
  for (let count = 2; count <= toLead.length; count += 1) {
    const seen = { kind: 'control', control: theirs };
    assert.equal(actionsAfter(count, seen), ['discard-producer', 'step-down'], String(count));
  }
});

test('the verification after init ends it too, without another init', () => {
  const verified = { kind: 'verified', control: theirs };
  assert.equal(actionsAfter(3, verified), ['discard-producer', 'step-down']);
});

test('my own release ends it as well', () => {
  const release: ControlRecord = { kind: 'release', claim: 'a1', request: 'r', node: 'a', time };
  const released = { kind: 'control', control: foldControl(mine, [release]) };
  assert.equal(actionsAfter(6, released), ['discard-producer', 'step-down']);
});

test('after an error of the producer everything is checked before it is re-created', () => {
  for (let count = 2; count <= toLead.length; count += 1) {
    assert.equal(actionsAfter(count, { kind: 'failed' }), ['discard-producer', 'verify']);
  }
});

test('a reply to an earlier action changes nothing, whatever it says', () => {
  for (let count = 1; count <= toLead.length; count += 1) {
    const { owning } = run(notOwning('a'), ...toLead.slice(0, count));
    for (const event of [...toLead.slice(1), { kind: 'failed' }]) {
      const late = run(owning, { ...event, ticket: owning.ticket - 1 });
      assert.equal(late, { owning, actions: [] });
    }
  }
});

test.run();
