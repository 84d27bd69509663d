/**
 * How long to wait before something is tried again: one rule for the whole product. The number of
 * failures and a draw flow in, milliseconds flow out: doubling up to a cap, with jitter, so that a
 * fleet that lost the same server does not return to it in one wave. Pure.
 */
export interface Backoff {
  readonly baseMs: number;
  readonly capMs: number;
}

/** The longest wait before the retry after the given number of failures in a row, from 1. */
export function backoffCeilingMs(failures: number, { baseMs, capMs }: Backoff): number {
  return Math.min(capMs, baseMs * 2 ** (failures - 1));
}

/** Full jitter: anything up to the ceiling. For what is tried for ever. */
export function backoffDelayMs(failures: number, backoff: Backoff, random: () => number): number {
  return Math.floor(random() * backoffCeilingMs(failures, backoff));
}

/**
 * At least half of the ceiling. For a bounded number of tries, which are to last together as long
 * as what they wait for: an election, the restart of a server.
 */
export function boundedDelayMs(tries: number, backoff: Backoff, random: () => number): number {
  return Math.floor(((1 + random()) / 2) * backoffCeilingMs(tries, backoff));
}
