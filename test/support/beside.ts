/**
 * Work with writers or readers beside it: they repeat their step until the work ends, whether it
 * succeeds or not, so that none of them outlives a test that failed.
 */

/** Gives what the work gives; the error of the work comes before that of a step. */
export async function beside<Result>(
  steps: readonly ((n: number) => Promise<unknown>)[],
  work: () => Promise<Result>,
): Promise<Result> {
  let isOver = false;
  const repeated = async (step: (n: number) => Promise<unknown>): Promise<void> => {
    for (let n = 1; !isOver; n += 1) await step(n);
  };
  const end = (): void => {
    isOver = true;
  };
  const loops = Promise.allSettled(steps.map(repeated));
  const [worked] = await Promise.allSettled([work().finally(end)]);
  if (worked.status === 'rejected') throw worked.reason;
  for (const loop of await loops) if (loop.status === 'rejected') throw loop.reason;
  return worked.value;
}
