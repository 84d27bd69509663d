/**
 * The built command as a process. `resultOf` gives both of its streams and its exit code once it
 * has ended; the code is null where a signal ended it, that of the time limit too.
 */
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The command as it is published: `npm run build` makes it. */
export const commandFile = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** No command of these tests takes longer on a busy machine. */
const commandMaxMs = 120_000;

export async function resultOf(child: ChildProcess): Promise<CommandResult> {
  const [out, err] = [collected(child.stdout), collected(child.stderr)];
  const timer = setTimeout(() => child.kill('SIGKILL'), commandMaxMs);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearTimeout(timer);
  return { code, stdout: out().trim(), stderr: err() };
}

function collected(stream: NodeJS.ReadableStream | null): () => string {
  let text = '';
  stream?.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  return () => text;
}
