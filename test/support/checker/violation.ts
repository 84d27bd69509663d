/**
 * A broken invariant with what proves it. Flows in: what judges found, in the order of happening;
 * flows out: one violation for each kind of harm, with its first pieces of evidence and the number
 * of all, so that a report names the first harm and does not drown it.
 */

export const invariants = {
  I1: 'no acknowledged write is lost',
  I2: 'nothing is there twice, comes back, or goes back',
  I3: 'at a common point all nodes hold the same rows',
  I4: 'a transaction is seen whole or not at all',
  I5: 'an epoch has one leader, and nobody appends for a lower one after it has begun',
  I6: 'what was rolled back is never seen',
  I7: 'status tells the truth',
  I8: 'memory and kept WAL have a limit',
  I9: 'once everything is healed, nobody lags',
  I10: 'what does not add up is not passed over',
} as const;

export type Invariant = keyof typeof invariants;

export interface Violation {
  readonly invariant: Invariant;
  readonly what: string;
  readonly evidence: readonly string[];
  /** How many pieces of evidence there were. */
  readonly count: number;
}

const evidenceMax = 5;

/** Collects evidence; the same `what` of an invariant is one violation. */
export class Findings {
  readonly #found = new Map<string, { invariant: Invariant; what: string; evidence: string[] }>();
  readonly #counts = new Map<string, number>();

  add(invariant: Invariant, what: string, evidence: string): void {
    const key = `${invariant} ${what}`;
    const found = this.#found.get(key) ?? { invariant, what, evidence: [] };
    this.#found.set(key, found);
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    if (found.evidence.length < evidenceMax) found.evidence.push(evidence);
  }

  get violations(): readonly Violation[] {
    return [...this.#found].map(([key, found]) => ({
      ...found,
      count: this.#counts.get(key) ?? 0,
    }));
  }
}

export function describe(violations: readonly Violation[]): string {
  return violations
    .map(({ invariant, what, evidence, count }) => {
      const more = count > evidence.length ? [`… and ${count - evidence.length} more`] : [];
      const lines = [...evidence, ...more].map((line) => `    ${line}`);
      return [`${invariant} (${invariants[invariant]}): ${what}`, ...lines].join('\n');
    })
    .join('\n');
}
