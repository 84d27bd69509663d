/**
 * The journal of what clients did: one entry for each transaction that was tried, with what is
 * known of its end. Flows in: what writers report; flows out: entries for the checker. `unknown`
 * stands where a connection broke between COMMIT and its answer: then both ends are right, but
 * only one, and the same everywhere.
 */
import type { EpochLsn } from '../../src/change/position.ts';

export type Outcome = 'ok' | 'fail' | 'unknown';

export interface Entry {
  readonly workload: string;
  readonly writer: number;
  readonly n: number;
  /** Where the session was. */
  readonly node: string;
  readonly outcome: Outcome;
  /** At or after the end of the commit, never before; null when nobody could say. */
  readonly token: EpochLsn | null;
  readonly adds: readonly string[];
  readonly raises: readonly string[];
  readonly reads: readonly { readonly list: string; readonly elements: readonly string[] }[];
}

export function nameOf(entry: Entry): string {
  return `${entry.workload} ${entry.writer}.${entry.n}`;
}
