/**
 * Random runs that can be repeated. Flows in: a property and how often to try it; flows out: a
 * passed test, or the seed and the smallest history that breaks it. UNDERSTUDY_SEED=n repeats a
 * run; with UNDERSTUDY_TEST_FULL there are twenty times as many.
 */
import fc from 'fast-check';
import * as assert from 'uvu/assert';

export const isFull = Boolean(process.env['UNDERSTUDY_TEST_FULL']);
const fullFactor = 20;
const triesMax = 40;
const givenSeed = process.env['UNDERSTUDY_SEED'];
const seed = givenSeed === undefined ? Math.trunc(Math.random() * 2 ** 31) : Number(givenSeed);

console.log(`UNDERSTUDY_SEED=${seed}`);

/** The property holds in all runs. */
export async function holds<Case>(
  property: fc.IAsyncProperty<Case> | fc.IProperty<Case>,
  runs: number,
): Promise<void> {
  const numRuns = isFull ? runs * fullFactor : runs;
  await fc.assert(property, { seed, numRuns, includeErrorInReport: true });
}

/**
 * A rule was left out: some history shows the harm, and `harm` says which it has to be. Others may
 * show another harm first; then the search goes on.
 */
export async function breaks<Case>(
  property: fc.IAsyncProperty<Case> | fc.IProperty<Case>,
  runsMax: number,
  harm: RegExp,
): Promise<void> {
  let message = '';
  for (let tries = 0; tries < triesMax; tries += 1) {
    const from = { seed: seed + tries, numRuns: runsMax, endOnFailure: true };
    const { failed, errorInstance: error, numRuns } = await fc.check(property, from);
    assert.ok(failed, `${numRuns} histories without harm`);
    message = error instanceof Error ? error.message : String(error);
    if (harm.test(message)) return;
  }
  assert.unreachable(`not ${harm}: ${message}`);
}
