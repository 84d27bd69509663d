/**
 * Waiting: for a time, for an abort, for a timeout, for a change, and before a retry. Every wait
 * has a bound or a signal, and none keeps a timer or a listener once it is over.
 */

export type Sleep = (ms: number, signal?: AbortSignal) => Promise<void>;

/** Handed in, so that a test can run a night in a millisecond. */
export interface Clock {
  readonly nowMs: () => number;
  readonly sleep: (delayMs: number) => Promise<unknown>;
  /** From 0 up to 1. */
  readonly random: () => number;
}

/** Long work is logged this often: a line while it goes on, not one for each step. */
export const progressLogEveryMs = 10_000;

/** Rejects with the signal's reason as soon as it is aborted. */
export const sleep: Sleep = (ms, signal) =>
  new Promise<void>((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });

export const systemClock: Clock = { nowMs: Date.now, sleep, random: Math.random };

/** For loops that check the signal themselves: an abort ends the wait and is no error. */
export async function sleepOrAbort(
  ms: number,
  signal: AbortSignal,
  sleepFor: Sleep = sleep,
): Promise<void> {
  await sleepFor(ms, signal).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

/**
 * The work, or the signal's reason as soon as it is aborted. The work itself continues: its caller
 * ends it. After an abort its own failure is ignored.
 */
export async function interruptible<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const over = new AbortController();
  const aborted = new Promise<never>((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { signal: over.signal });
  });
  // After an abort nothing waits for the work, and its failure has no other handler.
  work.catch(() => undefined);
  try {
    return await Promise.race([aborted, work]);
  } finally {
    over.abort();
  }
}

/**
 * The same where an abort is no error: it resolves to undefined then. A server that does not answer
 * must not delay the end of a run that failed elsewhere.
 */
export async function unlessAborted<T>(
  work: Promise<T>,
  signal: AbortSignal,
): Promise<T | undefined> {
  return interruptible(work, signal).catch((error: unknown) => {
    if (isAbortOf(error, signal)) return undefined;
    throw error;
  });
}

/** Whether the error only says that the signal was aborted. */
export function isAbortOf(error: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted) return false;
  return error === signal.reason || (error instanceof Error && error.name === 'AbortError');
}

/**
 * Rejects with `makeError()` when `promise` is not settled in time; its own end is then ignored.
 */
export async function withTimeout<T>(
  promise: Promise<T>,
  timeoutMs: number,
  makeError: () => Error,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(makeError()), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Works on all items, so many at a time. After a failure no other item is begun, and the first
 * failure is thrown once all work has ended: its caller can undo what was done.
 */
export async function someAtATime<Item>(
  items: Iterable<Item>,
  atATimeMax: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const left = items[Symbol.iterator]();
  const failures: unknown[] = [];
  const worker = async (): Promise<void> => {
    while (failures.length === 0) {
      const next = left.next();
      if (next.done === true) return;
      await work(next.value).catch((error: unknown) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: atATimeMax }, worker));
  if (failures.length > 0) throw failures[0];
}

/**
 * The loops of one object sleep here until its state has changed. `wake` ends every sleep, and each
 * loop then checks its own condition. A loop that checks and sleeps without awaiting in between
 * misses no change.
 */
export class WakeUp {
  readonly #sleepers = new Set<() => void>();

  /** Resolves at the next `wake`, or after `maxMs` where that is given. */
  sleep(maxMs: number | null = null): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#sleepers.delete(end);
        resolve();
      };
      const timer = maxMs === null ? undefined : setTimeout(end, maxMs);
      this.#sleepers.add(end);
    });
  }

  get hasSleepers(): boolean {
    return this.#sleepers.size > 0;
  }

  wake(): void {
    for (const end of [...this.#sleepers]) end();
  }
}

/**
 * One rule for all retries: doubling up to a cap, with jitter, so that the agents of a fleet do not
 * return to a server in one wave.
 */
export interface Backoff {
  readonly baseMs: number;
  readonly capMs: number;
}

/** The longest wait before the retry after the given number of failures in a row, from 1. */
export function backoffCeilingMs(failures: number, { baseMs, capMs }: Backoff): number {
  return Math.min(capMs, baseMs * 2 ** (failures - 1));
}

/** Full jitter: anything up to the ceiling. For retries without an end. */
export function backoffDelayMs(failures: number, backoff: Backoff, random: () => number): number {
  return Math.floor(random() * backoffCeilingMs(failures, backoff));
}

/**
 * At least half of the ceiling. For a bounded number of tries, which together have to last as long
 * as the event that they wait for: an election, the restart of a server.
 */
export function boundedDelayMs(tries: number, backoff: Backoff, random: () => number): number {
  return Math.floor(((1 + random()) / 2) * backoffCeilingMs(tries, backoff));
}
