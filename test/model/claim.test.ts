/**
 * Whether an epoch can have two owners. Small worlds are explored whole: every order in which
 * requests of two or three nodes can land, be read, time out or die with their sender. Larger ones
 * are walked at random. The same worlds with one rule of the protocol broken have to show the harm
 * that the rule prevents, or the model would prove nothing.
 */
// time-limit: 120s
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { nextWorlds } from './claim-steps.ts';
import { type Budget, firstWorld, type Mutation, nameOf, type World } from './claim-world.ts';

/** A world this large would take minutes: the budget is wrong, not the protocol. */
const worldsMax = 400_000;

interface Explored {
  readonly broken: string | null;
  readonly worlds: number;
  readonly epochs: number;
}

/** Visits every world that can be reached, or stops at the first in which a rule is broken. */
function explore(budget: Budget, mutation: Mutation | null): Explored {
  const first = firstWorld(budget, mutation);
  const seen = new Set([nameOf(first)]);
  const open = [first];
  let epochs = 0;
  for (let world = open.pop(); world !== undefined; world = open.pop()) {
    epochs = Math.max(epochs, world.begun?.epoch ?? 0);
    for (const next of nextWorlds(world)) {
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

const base = { starts: [1, 1], rows: 1, foreignClaim: false };
/** The verification alone has to do: nodes notice nothing else in time. */
const plain: Budget = { ...base, faults: 1, watches: false };

test('one fault anywhere: no stale record after a newer epoch begin', () => {
  const { broken, worlds, epochs } = explore(plain, null);
  assert.is(broken, null);
  assert.ok(epochs >= 3, `only ${epochs} epochs were begun`);
  assert.ok(worlds > 10_000, `only ${worlds} worlds`);
});

test('the lead goes to and fro, and a claim of an older topic lands anywhere', () => {
  const { broken, epochs } = explore(
    { starts: [2, 1], rows: 1, faults: 0, foreignClaim: true, watches: true },
    null,
  );
  assert.is(broken, null);
  assert.is(epochs, 3);
});

test('three nodes, many faults, at random', () => {
  const crowd = { starts: [2, 2, 2], rows: 6, faults: 4, foreignClaim: true };
  let epochs = 0;
  const steps = fc.array(fc.nat(), { minLength: 60, maxLength: 160 });
  const walk = fc.property(fc.boolean(), steps, (watches, choices) => {
    const budget: Budget = { ...crowd, watches };
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
  fc.assert(walk, { numRuns: 600 });
  assert.ok(epochs >= 3, `only ${epochs} epochs were begun`);
});

const stale = 'a stale record after a newer epoch begin';

test('found when the verification after init is left out', () => {
  assert.is(explore(plain, 'verify-left-out').broken, stale);
});

test('found when any nonce of the process counts, also one from before init', () => {
  assert.is(explore(plain, 'old-nonce-counts').broken, stale);
});

// With a verification after it, an early init costs no record: what it costs is that whoever asks
// for the lead and does not get it stops a leader that nobody has deposed.
test('found when init comes before the claim', () => {
  const { broken } = explore(plain, 'init-before-claim');
  assert.is(broken, 'a node that never won a claim fenced the owner');
});

test('found when predecessors are not checked', () => {
  const budget: Budget = { ...base, faults: 0, foreignClaim: true, watches: true };
  assert.is(explore(budget, null).broken, null);
  assert.is.not(explore(budget, 'predecessor-unchecked').broken, null);
});

test.run();
