/**
 * Whether an epoch can have two owners, or go on behind what was torn. Small worlds are explored
 * whole: every order in which requests of two or three nodes can land, land in half, be read, time
 * out or die with their sender. Larger ones are walked at random. The same worlds with one rule of
 * the protocol broken have to show the harm that it prevents, or the model would prove nothing.
 * Where nodes notice what they read, no world may come to rest with an epoch that was claimed and
 * is not begun: a claim may land long after its sender gave up.
 */
// time-limit: 400s
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isFull } from '../support/form.ts';
import { nextWorlds } from './claim-steps.ts';
import {
  type Budget,
  firstWorld,
  type Mutation,
  nameOf,
  restsWithoutLeader,
  type World,
} from './claim-world.ts';
import { holds } from './random-runs.ts';

/** A world this large would take minutes: the budget is wrong, not the protocol. */
const worldsMax = isFull ? 2_000_000 : 400_000;

interface Explored {
  readonly broken: string | null;
  readonly worlds: number;
  readonly epochs: number;
}

const leaderless = 'an epoch that was claimed, and that its owner never begins';

/** Visits every world that can be reached, or stops at the first in which a rule is broken. */
function explore(budget: Budget, mutation: Mutation | null): Explored {
  const first = firstWorld(budget, mutation);
  const seen = new Set([nameOf(first)]);
  const open = [first];
  let epochs = 0;
  for (let world = open.pop(); world !== undefined; world = open.pop()) {
    epochs = Math.max(epochs, world.begun?.epoch ?? 0);
    const following = nextWorlds(world);
    if (following.length === 0 && restsWithoutLeader(world)) {
      return { broken: leaderless, worlds: seen.size, epochs };
    }
    for (const next of following) {
      if (next.broken !== null) return { broken: next.broken, worlds: seen.size, epochs };
      const name = nameOf(next);
      if (seen.has(name)) continue;
      seen.add(name);
      open.push(next);
    }
    assert.ok(seen.size < worldsMax, 'the budget is too large to explore');
  }
  return { broken: null, worlds: seen.size, epochs };
}

/** The verification alone has to do: nodes notice nothing else in time. */
const plain: Budget = {
  starts: [1, 1],
  rows: 1,
  faults: 1,
  foreignClaim: false,
  watches: false,
  drainsLook: false,
};

test('one fault anywhere: no stale record after a newer epoch begin', () => {
  const { broken, worlds, epochs } = explore(plain, null);
  assert.is(broken, null);
  assert.ok(epochs >= 3, `only ${epochs} epochs were begun`);
  assert.ok(worlds > 10_000, `only ${worlds} worlds`);
});

test('the lead goes to and fro, and a claim of an older topic lands anywhere', () => {
  const budget = { ...plain, starts: [2, 1], faults: 0, foreignClaim: true, watches: true };
  const { broken, epochs } = explore(budget, null);
  assert.is(broken, null);
  assert.is(epochs, 3);
});

test('one node, many faults: batches and epoch begins that tear, one after the other', () => {
  const { broken, epochs } = explore({ ...plain, starts: [1, 0], rows: 2, faults: 3 }, null);
  assert.is(broken, null);
  assert.is(epochs, 4);
});

if (isFull) {
  test('three nodes race, every order', () => {
    const { broken, epochs } = explore({ ...plain, starts: [1, 1, 1], faults: 0 }, null);
    assert.is(broken, null);
    assert.is(epochs, 4);
  });
}

test('three nodes, many faults, at random', async () => {
  const crowd = { ...plain, starts: [2, 2, 2], rows: 6, faults: 4, foreignClaim: true };
  let epochs = 0;
  const steps = fc.array(fc.nat(), { minLength: 60, maxLength: 160 });
  const walk = fc.property(fc.boolean(), fc.boolean(), steps, (watches, drainsLook, choices) => {
    const budget: Budget = { ...crowd, watches, drainsLook };
    let world: World = firstWorld(budget, null);
    for (const choice of choices) {
      const worlds = nextWorlds(world);
      const next = worlds[choice % Math.max(1, worlds.length)];
      if (next === undefined) break;
      assert.is(next.broken, null);
      world = next;
    }
    epochs = Math.max(epochs, world.begun?.epoch ?? 0);
  });
  await holds(walk, 600);
  assert.ok(epochs >= 3, `only ${epochs} epochs were begun`);
});

const stale = 'a stale record after a newer epoch begin';

test('found when the verification after init is left out', () => {
  assert.is(explore(plain, 'verify-left-out').broken, stale);
});

test('found when any nonce of the process counts, also one from before init', () => {
  assert.is(explore(plain, 'old-nonce-counts').broken, stale);
});

test('found when a verified node inits once more', () => {
  assert.is(explore(plain, 'second-init').broken, stale);
});

test('a drain that sees the newest epoch begin is a second net under the verification', () => {
  assert.is(explore({ ...plain, drainsLook: true }, 'verify-left-out').broken, null);
});

// With a verification after it, an early init costs no record: what it costs is that whoever asks
// for the lead and does not get it stops a leader that nobody has deposed.
test('found when init comes before the claim', () => {
  const { broken } = explore(plain, 'init-before-claim');
  assert.is(broken, 'a node that never won a claim fenced the owner');
});

test('found when a request for one epoch claims whatever epoch comes next', () => {
  const { broken } = explore(plain, 'any-epoch-claimed');
  assert.is(broken, 'a claim of an epoch that no request named');
});

test('found when a node does not notice a claim of its own that lands late', () => {
  const budget: Budget = { ...plain, rows: 0, faults: 0, watches: true };
  assert.is(explore(budget, null).broken, null);
  assert.is(explore(budget, 'late-claim-unnoticed').broken, leaderless);
});

test('found when predecessors are not checked', () => {
  const budget: Budget = { ...plain, faults: 0, foreignClaim: true, watches: true };
  assert.is(explore(budget, null).broken, null);
  assert.is.not(explore(budget, 'predecessor-unchecked').broken, null);
});

test('found when the last claim of an epoch wins, not the first', () => {
  const { broken } = explore(plain, 'last-claim-wins');
  assert.is(broken, 'a record of a claim that was not valid');
});

test('found when an epoch goes on behind a torn batch', () => {
  const budget: Budget = { ...plain, starts: [1, 0], rows: 2 };
  assert.is(explore(budget, null).broken, null);
  const { broken } = explore(budget, 'torn-goes-on');
  assert.match(broken ?? '', /^a (row|begin) after a torn one/);
});

test('found when an epoch is begun again over a half begin of its own', () => {
  const budget: Budget = { ...plain, starts: [1, 0], rows: 0 };
  assert.is(explore(budget, null).broken, null);
  assert.is(
    explore(budget, 'torn-goes-on').broken,
    'a begin after a torn one, which nothing voids',
  );
});

test.run();
