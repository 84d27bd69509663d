/**
 * Clean-up that hides nothing. What a hook throws takes the place of the failures that were found
 * before, and their messages are lost: a clean-up that fails is printed instead, and fails the file
 * by its exit code.
 */
import { inspect } from 'node:util';

export async function cleanUp(what: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    process.stderr.write(`clean-up failed: ${what}: ${inspect(error)}\n`);
    process.exitCode = 1;
  }
}
