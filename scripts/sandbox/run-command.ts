/**
 * Runs a command to its end, within the caller's time limit, and returns its output, or an error
 * with the last lines of it.
 */
import { spawn } from 'node:child_process';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import type { OsUser } from './process-ledger.ts';

export interface RunOptions {
  readonly timeoutMs: number;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly user?: OsUser | undefined;
  /** Called with every line of output as it arrives. */
  readonly onLine?: (line: string) => void;
}

/** Enough to find the reason of a failure. */
const keptLinesMax = 400;
const shownLinesMax = 12;

export interface CommandResult {
  readonly ok: boolean;
  readonly output: string;
}

/** Never rejects: a command that cannot be found has `ok` false. */
export function tryCommand(
  file: string,
  args: readonly string[],
  options: RunOptions,
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const lines: string[] = [];
    let rest = '';
    const take = (chunk: string): void => {
      const parts = (rest + chunk).split(/\r?\n/);
      rest = parts.pop() ?? '';
      for (const line of parts) {
        lines.push(line);
        if (lines.length > keptLinesMax) lines.shift();
        options.onLine?.(line);
      }
    };
    const child = spawn(file, args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: options.timeoutMs,
      killSignal: 'SIGKILL',
      ...options.user,
    });
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
    child.once('error', (error) => resolve({ ok: false, output: error.message }));
    child.once('close', (code, signal) => {
      if (rest !== '') lines.push(rest);
      if (signal !== null) lines.push(`killed by ${signal} (limit ${options.timeoutMs / 1000} s)`);
      resolve({ ok: code === 0, output: lines.join('\n') });
    });
  });
}

export async function runCommand(
  file: string,
  args: readonly string[],
  options: RunOptions & { readonly hint: string },
): Promise<string> {
  const result = await tryCommand(file, args, options);
  if (!result.ok) {
    const shown = result.output.trim().split('\n').slice(-shownLinesMax).join('\n');
    throw new UnderstudyError(
      'PREREQUISITE',
      `${file} ${args[0] ?? ''} failed: ${shown}`,
      options.hint,
    );
  }
  return result.output;
}
