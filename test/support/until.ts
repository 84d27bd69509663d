/**
 * The one way in which tests wait for something: a probe is repeated until it gives what is wanted.
 * The wait has a bound, the probe itself too, and the error names what was waited for, the value
 * seen last, and the evidence that the caller hands in.
 */
import { inspect } from 'node:util';

export interface UntilOptions<Value> {
  /** Whether the value is the wanted one; by default only `true` is. */
  readonly reached?: (value: Value) => boolean;
  /** Generous: a busy machine is no failure. */
  readonly timeoutMs?: number;
  readonly pollMs?: number;
  /** For the message of the error, such as the logs of the agents. */
  readonly evidence?: () => string;
  /** Why it cannot come any more, such as an agent that has ended; null while it can. */
  readonly hopeless?: () => string | null;
}

/** Starts, promotions and backfills take seconds; on a busy machine they take many times that. */
export const untilMs = 90_000;
const defaultPollMs = 50;

/** Gives the first value that is the wanted one. An error of the probe ends the wait. */
export async function until<Value>(
  what: string,
  probe: () => Value | Promise<Value>,
  options: UntilOptions<Value> = {},
): Promise<Value> {
  const { reached = isTrue, timeoutMs = untilMs, pollMs = defaultPollMs } = options;
  const { evidence = () => '', hopeless = () => null } = options;
  let seen = 'nothing: the probe has not answered';
  const failed = (why: string): Error => {
    return new Error(`${what}: ${why}; the last value seen is ${seen}\n${evidence()}`);
  };
  const deadlineMs = performance.now() + timeoutMs;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    // A probe that began in time has the same time again to answer.
    timer = setTimeout(() => reject(failed('the probe hangs')), 2 * timeoutMs);
  });
  try {
    for (;;) {
      const end = hopeless();
      const value = await Promise.race([late, probe()]);
      if (reached(value)) return value;
      seen = inspect(value, { breakLength: Number.POSITIVE_INFINITY, depth: 6 });
      if (end !== null) throw failed(end);
      if (performance.now() > deadlineMs) throw failed(`not within ${timeoutMs / 1000} s`);
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  } finally {
    clearTimeout(timer);
  }
}

function isTrue(value: unknown): boolean {
  return value === true;
}
