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

interface Destroyed {
  readonly code: number | null;
  readonly stderr: string;
  // biome-ignore lint/suspicious/noExplicitAny: the answer of the verb.
  readonly json: any;
}

/** What a test has left may be more, or less, than what its configuration leads to. */
export async function destroyCluster(
  destroy: (...words: readonly string[]) => Promise<Destroyed>,
): Promise<Destroyed> {
  const answer = await destroy('--yes');
  if (answer.json?.error?.code !== 'NEEDS_STREAM_ID') return answer;
  const { json } = await destroy();
  return destroy('--stream', json.stream);
}
