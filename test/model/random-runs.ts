/**
 * Random runs that can be repeated. Flows in: a property and how often to try it; flows out: a
 * passed test, or the seed and the smallest history that breaks it. UNDERSTUDY_SEED=n repeats a run;
 * with UNDERSTUDY_TEST_FULL there are twenty times as many.
 */
import fc from 'fast-check';
import * as assert from 'uvu/assert';

export const isFull = Boolean(process.env['UNDERSTUDY_TEST_FULL']);
const fullFactor = 20;
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

/** A rule was left out: some history shows the harm, and `harm` says which it has to be. */
export async function breaks<Case>(
  property: fc.IAsyncProperty<Case> | fc.IProperty<Case>,
  runsMax: number,
  harm: RegExp,
): Promise<void> {
  const details = await fc.check(property, { seed, numRuns: runsMax, endOnFailure: true });
  assert.ok(details.failed, `${details.numRuns} histories without harm`);
  const { errorInstance: error } = details;
  const message = error instanceof Error ? error.message : String(error);
  assert.ok(harm.test(message), `not ${harm}: ${message}`);
}
