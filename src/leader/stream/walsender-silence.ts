/**
 * When a status goes to the walsender, and when its silence means that the link is dead. An idle
 * server sends nothing by itself as long as it gets statuses, so a status requests a reply where
 * nothing came since the one before. Counted in statuses, not in time: a process that was suspended
 * finds one of them due, and not the end of its link. Decisions only; the caller has the timer.
 */

/** Where the server has none, and would itself wait for ever. */
const usualTimeoutMs = 60_000;
/** A server that is busy for as long as this is not taken for dead, whatever its own timeout. */
const silenceMinMs = 30_000;
const statusesPerTimeout = 3;

export class WalsenderSilence {
  /** Milliseconds between two statuses. */
  readonly statusEveryMs: number;
  readonly #unansweredMax: number;
  #heard = true;
  #unanswered = 0;

  /** Takes the server's wal_sender_timeout in milliseconds; 0 is none. */
  constructor(walSenderTimeoutMs: number) {
    const timeoutMs = walSenderTimeoutMs > 0 ? walSenderTimeoutMs : usualTimeoutMs;
    this.statusEveryMs = Math.max(1, Math.floor(timeoutMs / statusesPerTimeout));
    this.#unansweredMax = Math.ceil(Math.max(timeoutMs, silenceMinMs) / this.statusEveryMs);
  }

  /** Bytes came. */
  heard(): void {
    this.#heard = true;
  }

  /** When a status is due: whether it requests a reply, or the link is dead. */
  next(): 'status' | 'request' | 'dead' {
    this.#unanswered = this.#heard ? 0 : this.#unanswered + 1;
    this.#heard = false;
    if (this.#unanswered === 0) return 'status';
    return this.#unanswered > this.#unansweredMax ? 'dead' : 'request';
  }
}
