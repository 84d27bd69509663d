/**
 * Chance that can be played again. Flows in: UNDERSTUDY_SEED, or nothing, and then a fresh number
 * that is printed; flows out: the seed of this process, and generators of numbers made from seeds.
 */

/** The same seed gives the same numbers. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

let chosen: number | null = null;

/** One seed for everything in this process; it is printed once. */
export function seedOfRun(): number {
  if (chosen !== null) return chosen;
  const wanted = process.env['UNDERSTUDY_SEED'] ?? '';
  if (!/^[0-9]{0,10}$/.test(wanted)) throw new Error(`UNDERSTUDY_SEED is no number: ${wanted}`);
  chosen = wanted === '' ? Math.floor(Math.random() * 1e9) : Number(wanted);
  process.stderr.write(`seed: UNDERSTUDY_SEED=${chosen} plays this again\n`);
  return chosen;
}

/** A whole number from `low` to `high`, both included. */
export function between(random: () => number, low: number, high: number): number {
  return low + Math.floor(random() * (high - low + 1));
}

/** Different members, in no order. */
export function someOf<T>(random: () => number, all: readonly T[], count: number): T[] {
  const left = [...all];
  const taken: T[] = [];
  while (taken.length < count && left.length > 0) {
    taken.push(...left.splice(Math.floor(random() * left.length), 1));
  }
  return taken;
}
