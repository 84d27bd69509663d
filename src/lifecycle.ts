/**
 * How a process runs, retries and stops: which failures a loop retries and after which delay, what
 * ends it, and in which order opened resources are closed. Clock, sleep and randomness are handed
 * in; every wait here has a bound.
 */

import { bug } from './errors/bug.ts';
import { UnderstudyError } from './errors/understudy-error.ts';
import type { Logger } from './logger.ts';
import {
  type Backoff,
  backoffCeilingMs,
  backoffDelayMs,
  isAbortOf,
  type Sleep,
  sleepOrAbort,
  withTimeout,
} from './waiting.ts';

interface RunBackoff extends Backoff {
  /** After a run of this length the next failure counts as the first. */
  readonly steadyMs: number;
}

/** The first retry is nearly immediate; the cap bounds how late the end of an outage is noticed. */
const defaultBackoff: RunBackoff = { baseMs: 100, capMs: 30_000, steadyMs: 60_000 };

const warnFromMs = 1000;
const errorFromMs = 10_000;

/**
 * By the ceiling, not by the delay that was drawn: a hiccup is logged as information, a lasting
 * outage as a warning, and the level must not vary with the jitter.
 */
export function levelOfDelay(ceilingMs: number): 'info' | 'warn' | 'error' {
  if (ceilingMs < warnFromMs) return 'info';
  return ceilingMs < errorFromMs ? 'warn' : 'error';
}

/** Socket and name errors, and the SQLSTATEs of a server that is starting, stopping or full. */
const connectionCodes: ReadonlySet<string> = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND'],
  ...['EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'ENETDOWN', 'EHOSTDOWN'],
  ...['57P01', '57P02', '57P03', '53300', '08000', '08001', '08003', '08004', '08006'],
]);

/**
 * SQLSTATEs that do not depend on the statement: connection, rollback, a timeout that ended the
 * transaction, resources, a lock or a slot in use, an operator's intervention, the system. An
 * agent that stopped at a full disk would keep WAL and fill it further.
 */
const passingStates = /^(08|25P|40|53|57|58)[0-9A-Z]{2,3}$|^55(P03|006)$/;

/** The pg client gives these errors no code; the texts are its own and complete. */
const connectionMessages: ReadonlySet<string> = new Set([
  'Connection terminated',
  'Connection terminated unexpectedly',
  'Connection terminated due to connection timeout',
  'timeout expired',
  'Client has encountered a connection error and is not queryable',
  'Client was closed and is not queryable',
]);

/** Whether the same step may succeed later without intervention. */
export function isRetriable(error: unknown): boolean {
  if (error instanceof UnderstudyError) return error.retry;
  if (!(error instanceof Error)) return false;
  if (error instanceof AggregateError && error.errors.length > 0) {
    return error.errors.every(isRetriable);
  }
  // A missing Unix socket is ENOENT; with any code, the server was not reached.
  if ('syscall' in error && error.syscall === 'connect') return true;
  if ('code' in error && connectionCodes.has(String(error.code))) return true;
  if ('code' in error && passingStates.test(String(error.code))) return true;
  return connectionMessages.has(error.message);
}

interface RunUntilStopped {
  /** Names the loop in the log. */
  readonly name: string;
  readonly signal: AbortSignal;
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
  readonly backoff?: RunBackoff;
  readonly sleep: Sleep;
  readonly random: () => number;
  readonly now: () => number;
  /**
   * After which failures an attempt is a cheap probe: it is retried every second, and its pause
   * only says when the next failure is logged.
   */
  readonly probes?: (error: unknown) => boolean;
}

const probeEveryMs = 1000;

/**
 * Runs `attempt` until it returns or the signal is aborted, and retries after every failure that
 * may pass by itself. Any other failure is rethrown at once. After an abort the call resolves, also
 * where the attempt failed with such a failure or with the reason of the abort.
 *
 * An attempt calls `working` once it does its work. The time until it fails proves nothing: a
 * server that accepts connections and never answers makes every attempt a long one.
 */
export async function runUntilStopped(
  attempt: (signal: AbortSignal, working: () => void) => Promise<void>,
  options: RunUntilStopped,
): Promise<void> {
  const { name, signal, log, now, random, backoff = defaultBackoff } = options;
  const probes = options.probes ?? (() => false);
  let failures = 0;
  /** The rest of a pause, during which a probe fails unlogged. */
  let restMs = 0;
  while (!signal.aborted) {
    let workingFromMs: number | null = null;
    try {
      await attempt(signal, () => {
        workingFromMs ??= now();
      });
      return;
    } catch (error) {
      if (signal.aborted && isEndOfAbort(error, signal)) return;
      if (!isRetriable(error)) throw error;
      const isProbe = probes(error);
      if (!isProbe || restMs <= 0 || workingFromMs !== null) {
        const workedMs = workingFromMs === null ? 0 : now() - workingFromMs;
        failures = workedMs >= backoff.steadyMs ? 1 : failures + 1;
        restMs = backoffDelayMs(failures, backoff, random);
        const level = levelOfDelay(backoffCeilingMs(failures, backoff));
        log[level]({ loop: name, failures, delayMs: restMs, error }, 'failed, retrying');
      }
      const pauseMs = isProbe ? Math.min(restMs, probeEveryMs) : restMs;
      await sleepOrAbort(pauseMs, signal, options.sleep);
      restMs = isProbe ? restMs - pauseMs : 0;
    }
  }
}

function isEndOfAbort(error: unknown, signal: AbortSignal): boolean {
  return isAbortOf(error, signal) || isRetriable(error);
}

type StopSignal = 'SIGTERM' | 'SIGINT' | 'SIGPIPE';

/** Numbers as the shell adds them to 128 when a signal ended a process. */
const signalNumbers: Readonly<Record<StopSignal, number>> = { SIGINT: 2, SIGPIPE: 13, SIGTERM: 15 };

/** The reason of an abort that came from outside. It is not a failure. */
export class Stopped extends Error {
  readonly stopSignal: StopSignal;

  constructor(stopSignal: StopSignal) {
    super(`stopped by ${stopSignal}`);
    this.name = 'Stopped';
    this.stopSignal = stopSignal;
  }

  get exit(): number {
    return 128 + signalNumbers[this.stopSignal];
  }
}

/** The part of a process that delivers signals. */
interface SignalSource {
  on(event: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
  off(event: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
}

const forcedExit = 130;

/**
 * The first SIGTERM or SIGINT asks everything to drain, by aborting `controller`; the second ends
 * the process at once. Returns the function that stops listening.
 */
export function onSignals(options: {
  readonly source: SignalSource;
  readonly controller: AbortController;
  readonly exit: (code: number) => void;
  readonly notice: (line: string) => void;
}): () => void {
  const { source, controller, exit, notice } = options;
  let seen = 0;
  const listen = (signal: 'SIGTERM' | 'SIGINT') => (): void => {
    seen += 1;
    if (seen > 1) {
      exit(forcedExit);
      return;
    }
    notice(`${signal}: stopping; a second signal exits at once`);
    controller.abort(new Stopped(signal));
  };
  const onTerm = listen('SIGTERM');
  const onInt = listen('SIGINT');
  source.on('SIGTERM', onTerm);
  source.on('SIGINT', onInt);
  return () => {
    source.off('SIGTERM', onTerm);
    source.off('SIGINT', onInt);
  };
}

/** A server that has not closed a connection within this time is not going to. */
export const closeTimeoutMs = 5000;

interface Closer {
  readonly name: string;
  readonly close: () => void | Promise<void>;
}

/** The closers of all that was opened; each runs once, the last opened first. */
export class Releasers {
  readonly #closers: Closer[] = [];
  readonly #timeoutMs: number;
  #closed = false;

  constructor(timeoutMs: number = closeTimeoutMs) {
    this.#timeoutMs = timeoutMs;
  }

  /** The returned function removes the closer, for a resource that was closed otherwise. */
  push(name: string, close: () => void | Promise<void>): () => void {
    if (this.#closed) {
      throw bug(`${name} was opened after the end`);
    }
    const closer: Closer = { name, close };
    this.#closers.push(closer);
    return () => {
      const at = this.#closers.indexOf(closer);
      if (at !== -1) this.#closers.splice(at, 1);
    };
  }

  /** Closes all, also after one failed, and returns the failures, each with the name. */
  async close(): Promise<readonly Error[]> {
    const failures: Error[] = [];
    for (let closer = this.#closers.pop(); closer !== undefined; closer = this.#closers.pop()) {
      const { name, close } = closer;
      try {
        const closing = Promise.resolve().then(close);
        await withTimeout(closing, this.#timeoutMs, () => {
          return new Error(`not closed within ${this.#timeoutMs} ms`);
        });
      } catch (cause) {
        failures.push(new Error(`closing ${name} failed`, { cause }));
      }
    }
    this.#closed = true;
    return failures;
  }
}
