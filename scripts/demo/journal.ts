/**
 * The shop's own record of its commits, for the proof. A writer adds each commit before it sends
 * it, and its token when it was acknowledged. The journal is in memory and in no database, so that
 * it is independent evidence.
 */
import { compareEpochLsn, type EpochLsn, parseEpochLsn } from '../../src/change/position.ts';

/** An order after a commit. */
export interface OrderState {
  readonly status: 'placed' | 'cancelled';
  readonly lines: number;
  readonly pieces: number;
  /** Numeric text, as Postgres prints it. */
  readonly total: string;
}

export interface Commit {
  readonly orderId: string;
  /** Of the customer that the same transaction created. */
  readonly newCustomerId: string | null;
  readonly state: OrderState;
}

/** null: the connection was lost before the answer, so the outcome of the commit is unknown. */
export type Acknowledgement = {
  /** understudy.token() directly after the commit: at or after its end, never before. */
  readonly token: string;
  readonly at: EpochLsn;
  readonly atMs: number;
} | null;

export interface JournalEntry extends Commit {
  acknowledgement: Acknowledgement;
}

export class Journal {
  readonly entries: JournalEntry[] = [];
  #latest: { readonly orderId: string; readonly token: string } | null = null;
  #acknowledged = 0;

  /** Called before COMMIT is sent. */
  pending(commit: Commit): JournalEntry {
    const entry = { ...commit, acknowledgement: null };
    this.entries.push(entry);
    return entry;
  }

  acknowledge(entry: JournalEntry, token: string, atMs: number): void {
    const at = parseEpochLsn(token);
    if (at === null) throw new Error(`understudy.token() returned ${JSON.stringify(token)}`);
    entry.acknowledgement = { token, at, atMs };
    this.#latest = { orderId: entry.orderId, token };
    this.#acknowledged += 1;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** The newest acknowledged commit, for readers that read their own writes. */
  get latest(): { readonly orderId: string; readonly token: string } | null {
    return this.#latest;
  }

  /** The token of an epoch that covers every commit acknowledged in it. */
  lastToken(epoch: number): string | null {
    let last: Exclude<Acknowledgement, null> | null = null;
    for (const { acknowledgement } of this.entries) {
      if (acknowledgement?.at.epoch !== epoch) continue;
      if (last === null || compareEpochLsn(acknowledgement.at, last.at) > 0) last = acknowledgement;
    }
    return last?.token ?? null;
  }

  /** From the last acknowledgement of one epoch to the first of the next: the outage of callers. */
  pauseBetweenMs(epoch: number, next: number): number | null {
    const times = (wanted: number): number[] =>
      this.entries.flatMap(({ acknowledgement }) =>
        acknowledgement?.at.epoch === wanted ? [acknowledgement.atMs] : [],
      );
    const before = times(epoch);
    const after = times(next);
    if (before.length === 0 || after.length === 0) return null;
    return Math.min(...after) - Math.max(...before);
  }
}
