/**
 * The steps of a long command on stderr, for people: each as it begins, and every few seconds how
 * long it has lasted, so that a command that waits is not taken for one that hangs. It takes the
 * work and gives its result. With --json the time is not shown.
 */
import type { CommandContext } from './command.ts';
import { durationText } from './status.ts';

const showEveryMs = 1_000;

type Shown = Pick<CommandContext, 'now' | 'people' | 'progress'>;

export async function withSteps<Result>(
  { now, people, progress }: Shown,
  work: (onStep: (line: string) => void) => Promise<Result>,
): Promise<Result> {
  let step: { readonly line: string; readonly fromMs: number } | null = null;
  // The line decides how often it is written where stderr is no terminal.
  const timer = setInterval(() => {
    if (step !== null) progress(`${step.line}, for ${durationText(now() - step.fromMs)}`);
  }, showEveryMs);
  try {
    return await work((line) => {
      step = { line, fromMs: now() };
      people(line);
    });
  } finally {
    clearInterval(timer);
  }
}
