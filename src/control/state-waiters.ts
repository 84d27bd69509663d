/**
 * Waits for a state of the control log. Each wait ends exactly once: with the first state for which
 * its predicate holds, with the error of the log, with the abort of its signal, or with TIMED_OUT.
 * Every wait has a time limit, so no waiter is kept for ever.
 */
import { controlLogTimeout } from '../errors/timed-out.ts';
import type { UnderstudyError } from '../errors/understudy-error.ts';
import { interruptible, withTimeout } from '../waiting.ts';
import type { ControlState } from './control-state.ts';

interface Waiter {
  readonly predicate: (state: ControlState) => boolean;
  readonly resolve: (state: ControlState) => void;
  readonly reject: (reason: unknown) => void;
}

export class StateWaiters {
  readonly #waiters = new Set<Waiter>();
  #ended: UnderstudyError | null = null;

  /** `state` is the present one: a wait for what it holds already ends at once. */
  async wait(
    state: ControlState,
    predicate: Waiter['predicate'],
    timeoutMs: number,
    signal: AbortSignal = new AbortController().signal,
  ): Promise<ControlState> {
    signal.throwIfAborted();
    if (this.#ended !== null) throw this.#ended;
    if (predicate(state)) return state;
    let waiter: Waiter | undefined;
    const outcome = new Promise<ControlState>((resolve, reject) => {
      waiter = { predicate, resolve, reject };
      this.#waiters.add(waiter);
    });
    try {
      const timedOut = (): UnderstudyError => controlLogTimeout(timeoutMs);
      return await withTimeout(interruptible(outcome, signal), timeoutMs, timedOut);
    } finally {
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  /** Judges every wait by this state, at once: no later state can take its place. */
  settle(state: ControlState): void {
    for (const { predicate, resolve, reject } of this.#waiters) {
      try {
        if (predicate(state)) resolve(state);
      } catch (error) {
        reject(error);
      }
    }
  }

  /** For a failure that may pass: later waits begin as usual. */
  rejectAll(error: UnderstudyError): void {
    for (const { reject } of this.#waiters) reject(error);
  }

  /** Ends all present and later waits. */
  end(error: UnderstudyError): void {
    this.#ended = error;
    this.rejectAll(error);
  }
}
