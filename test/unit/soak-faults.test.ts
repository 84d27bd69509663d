/**
 * The mix of faults of the soak: a seed draws the same faults again, each of them comes as often as
 * its weight says, and two at once never take the same part.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { drawFault, type Fault, faults, nodesMet } from '../../scripts/soak/faults.ts';
import type { Scene } from '../../scripts/soak/scene.ts';
import { seeded } from '../support/seed.ts';

const draws = 20_000;
const mix = suite('mix of faults');

function drawn(seed: number, taken: ReadonlySet<Fault['part']> = new Set()): readonly Fault[] {
  const random = seeded(seed);
  return Array.from({ length: draws }, () => drawFault(random, taken)).filter(
    (one) => one !== null,
  );
}

mix('every fault is drawn, as often as its weight says', () => {
  const all = drawn(1);
  assert.is(all.length, draws);
  const total = faults.reduce((sum, { weight }) => sum + weight, 0);
  for (const fault of faults) {
    const share = all.filter((one) => one === fault).length / draws;
    const wanted = fault.weight / total;
    assert.ok(share > wanted * 0.8 && share < wanted * 1.2, `${fault.name}: ${share}`);
  }
});

mix('the same seed draws the same faults, another seed others', () => {
  assert.equal(drawn(7), drawn(7));
  assert.not.equal(drawn(7), drawn(8));
});

mix('what is taken is not drawn again, and when all is taken nothing is', () => {
  const parts = new Set(faults.map(({ part }) => part));
  for (const part of parts) {
    assert.not(drawn(3, new Set([part])).some((one) => one.part === part));
  }
  assert.is(drawFault(seeded(3), parts), null);
});

mix('names are unique, and times are in order', () => {
  assert.is(new Set(faults.map(({ name }) => name)).size, faults.length);
  for (const { name, holdMs } of faults) assert.ok(holdMs[0] < holdMs[1], name);
});

mix('faults meet the leader, one of the followers, or all', () => {
  const run = { leader: 'b', nodes: ['a', 'b', 'c'], followers: ['a', 'c'] };
  const scene = { run, random: seeded(5) } as unknown as Scene;
  const met = (meets: Fault['meets']): string =>
    String(nodesMet({ ...faults[0], meets } as Fault, scene));
  assert.is(met('leader'), 'b');
  assert.is(met('all'), 'a,b,c');
  const followers = new Set(Array.from({ length: 50 }, () => met('follower')));
  assert.equal([...followers].sort(), ['a', 'c']);
});

mix.run();
