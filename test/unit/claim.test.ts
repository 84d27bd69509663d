/**
 * The owner of an epoch: which claims, releases and aborts are valid, and what they change in the
 * folded state.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type ClaimState,
  foldClaim,
  isDeposed,
  isMine,
  nextClaim,
  noClaims,
  ownerOf,
} from '../../src/control/claim.ts';
import type { ControlRecord } from '../../src/control/control-records.ts';

const time = '2026-03-01T10:00:00.000Z';

function claim(epoch: number, id: string, predecessor: string | null): ControlRecord {
  return { kind: 'claim', id, epoch, node: id.charAt(0), predecessor, time };
}

function release(of: string, request: string, node = of.charAt(0)): ControlRecord {
  return { kind: 'release', claim: of, request, node, time };
}

function abort(of: string, request: string, node = of.charAt(0)): ControlRecord {
  return { kind: 'abort', claim: of, request, node, reason: 'x', time };
}

function fold(...records: readonly ControlRecord[]): ClaimState {
  return records.reduce(foldClaim, noClaims);
}

const first = claim(1, 'a1', null);

test('an empty log has no owner, and any node may claim epoch 1', () => {
  assert.is(ownerOf(noClaims), null);
  assert.equal(nextClaim(noClaims, 'b'), { epoch: 1, node: 'b', predecessor: null });
  assert.not(isMine(noClaims, 'a', 0));
});

test('of two claims for one epoch the first in the log wins', () => {
  const state = fold(first, claim(2, 'b1', 'a1'), claim(2, 'c1', 'a1'));
  assert.equal(ownerOf(state), { epoch: 2, node: 'b', claimId: 'b1' });
  assert.equal(nextClaim(state, 'c'), { epoch: 3, node: 'c', predecessor: 'b1' });
  assert.ok(isMine(state, 'b', 2));
  assert.not(isMine(state, 'a', 1), 'an epoch that is over has no owner');
});

for (const [why, late] of [
  ['names another predecessor', claim(2, 'b1', 'a0')],
  ['names none', claim(2, 'b1', null)],
  ['leaves an epoch out', claim(3, 'b1', 'a1')],
  ['is for an epoch that is taken', claim(1, 'b1', null)],
] as const) {
  test(`a claim that ${why} is void`, () => {
    assert.equal(fold(first, late), fold(first));
  });
}

test('a claim that names the loser is void too', () => {
  const won = fold(first, claim(2, 'b1', 'a1'), claim(2, 'c1', 'a1'));
  assert.equal(foldClaim(won, claim(3, 'c2', 'c1')), won);
});

test('a release leaves no owner, and a claim has to name the released one', () => {
  const state = fold(first, release('a1', 'r1'));
  assert.is(ownerOf(state), null);
  assert.not(isMine(state, 'a', 1));
  assert.equal(nextClaim(state, 'b').predecessor, 'a1');
  assert.ok(isMine(foldClaim(state, claim(2, 'a2', 'a1')), 'a', 2), 'its own claim brings it back');
});

test('only the owner releases or aborts, and only its present claim', () => {
  const state = fold(first, claim(2, 'b1', 'a1'));
  for (const record of [release('a1', 'r1'), release('b1', 'r1', 'a'), abort('a1', 'r1')]) {
    assert.equal(foldClaim(state, record), state);
  }
});

test('of release and abort of one switchover the first in the log is valid', () => {
  assert.ok(isMine(fold(first, abort('a1', 'r1'), release('a1', 'r1')), 'a', 1));
  assert.not(isMine(fold(first, release('a1', 'r1'), abort('a1', 'r1')), 'a', 1));
});

test('another switchover may release after one was aborted', () => {
  assert.is(ownerOf(fold(first, abort('a1', 'r1'), release('a1', 'r2'))), null);
});

test('a node is deposed by a later claim of another node, once it is read', () => {
  const state = fold(first, claim(2, 'b2', 'a1'));
  assert.is(isDeposed(state, 'a', 1), true);
  assert.is(isDeposed(state, 'b', 2), false);
  assert.is(isDeposed(state, 'a', 3), false, 'the claim of epoch 3 is not read yet');
  assert.is(isDeposed(noClaims, 'a', 1), false);
  const back = foldClaim(state, claim(3, 'a3', 'b2'));
  assert.is(isDeposed(back, 'a', 1), false, 'it has superseded the other');
  assert.is(isDeposed(back, 'b', 2), true);
});

test.run();
