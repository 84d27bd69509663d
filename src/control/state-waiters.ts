/**
 * Those who wait for the control log to say something. Flow in: states, in log order, and errors.
 * Flows out: each wait's end, exactly once: the first state its predicate holds for, the error, the
 * abort of its signal, or TIMED_OUT. Nobody waits without a limit, so nothing is kept for ever.
 */
import { controlLogTimeout } from '../errors/timed-out.ts';
import type { UnderstudyError } from '../errors/understudy-error.ts';
import type { ControlState } from './control-state.ts';

interface Waiter {
  readonly predicate: (state: ControlState) => boolean;
  readonly resolve: (state: ControlState) => void;
  readonly reject: (reason: unknown) => void;
}

export class StateWaiters {
  readonly #waiters = new Set<Waiter>();
  readonly #sleep: (delayMs: number, signal?: AbortSignal) => Promise<void>;
  #ended: UnderstudyError | null = null;

  constructor(sleep: (delayMs: number, signal?: AbortSignal) => Promise<void>) {
    this.#sleep = sleep;
  }

  async wait(
    state: ControlState,
    predicate: Waiter['predicate'],
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<ControlState> {
    signal?.throwIfAborted();
    if (this.#ended !== null) throw this.#ended;
    if (predicate(state)) return state;
    const over = new AbortController();
    let waiter: Waiter | undefined;
    const outcome = new Promise<ControlState>((resolve, reject) => {
      waiter = { predicate, resolve, reject };
      this.#waiters.add(waiter);
      signal?.addEventListener('abort', () => reject(signal.reason), { signal: over.signal });
      this.#sleep(timeoutMs, over.signal).then(
        () => reject(controlLogTimeout(timeoutMs)),
        // Ended by `over`, when the wait has ended in another way; else the sleep itself failed.
        reject,
      );
    });
    try {
      return await outcome;
    } finally {
      over.abort();
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  settle(state: ControlState): void {
    for (const { predicate, resolve, reject } of this.#waiters) {
      try {
        if (predicate(state)) resolve(state);
      } catch (error) {
        reject(error);
      }
    }
  }

  /** For a failure that may pass: those who come later wait as usual. */
  rejectAll(error: UnderstudyError): void {
    for (const { reject } of this.#waiters) reject(error);
  }

  end(error: UnderstudyError): void {
    this.#ended = error;
    this.rejectAll(error);
  }
}
