/**
 * A follower of the model's table: the real portions, folding and ends of readings, over rows that
 * are a map. Flows in: batches, and how far to go; flows out: its rows, and an error where they are
 * not the leader's although points say that the table is whole, where a change leaves out a value
 * that it cannot have, and where a reading takes a row away that is there.
 */
import type { Lsn } from '../../src/change/lsn.ts';
import type { EpochLsn } from '../../src/change/position.ts';
import {
  type ApplyLimit,
  nextPortion,
  positionAfter,
  unfinishedDuring,
} from '../../src/follower/apply/apply-portion.ts';
import { coalesce } from '../../src/follower/apply/coalesce.ts';
import type { finishedAt, rowsSeen } from '../../src/follower/apply/resnapshots.ts';
import type { rowActions } from '../../src/follower/apply/row-actions.ts';
import type { AlignedBatch, ApplyStep } from '../../src/follower/apply/stages.ts';
import type { FollowerPosition } from '../../src/follower/state/follower-state.ts';
import { streamId } from '../support/builders.ts';
import { applyRows, type ModelStore } from './model-tables.ts';
import { type Row, relationId } from './model-writes.ts';

export type Rows = ReadonlyMap<string, Row>;

/** What a wrongly built follower does; the functions may be those of a module without a rule. */
export interface FollowerRules {
  readonly finishedAt: typeof finishedAt;
  readonly rowsSeen: typeof rowsSeen;
  readonly rowActions: typeof rowActions;
  /** Whether what came in an earlier reading counts in the next one. */
  readonly keepsSeen: boolean;
}

/**
 * The leader's rows at each end of a transaction; null where some of their changes were not sent.
 */
export type Truths = ReadonlyMap<Lsn, Rows | null>;

export class ModelFollower {
  readonly #rules: FollowerRules;
  readonly #truths: Truths;
  readonly #rows = new Map<string, Row>();
  /** Keys that a resnapshot published so far; null while there is none. */
  #seen: Set<string> | null = null;
  #position: FollowerPosition;
  readonly #waiting: AlignedBatch[] = [];
  #isTampered = false;

  constructor(rules: FollowerRules, truths: Truths, at: EpochLsn, isUnfinished: boolean) {
    this.#rules = rules;
    this.#truths = truths;
    const unfinished = isUnfinished ? [relationId] : [];
    const checkpoint = { at, nextOffsets: [0n] };
    this.#position = { streamId, at, checkpoint, commitTimeMicros: 0n, appendMs: [0], unfinished };
  }

  get isTampered(): boolean {
    return this.#isTampered;
  }

  take(batch: AlignedBatch): void {
    this.#waiting.push(batch);
  }

  /** A session writes past the guard. */
  tamper(key: string, row: Row | null): void {
    this.#isTampered = true;
    if (row === null) this.#rows.delete(key);
    else this.#rows.set(key, row);
  }

  /** One transaction; `clears`: unseen rows conflict with a written one. */
  apply(limit: ApplyLimit, clears: boolean): void {
    const from = this.#position;
    const portion = nextPortion(this.#waiting, from.at, limit);
    if (portion === null) return;
    const to = positionAfter(from, portion);
    // A follower that lacks an unsent change would stop here; the resnapshot comes before that.
    const isHurt = this.#isTampered || this.#hasUnsent(from.at.lsn, to.at.lsn);
    const mayLack = isHurt || unfinishedDuring(from, portion).has(relationId);
    const window = { from: from.at, to: portion.stopAt };
    if (clears) this.#removeUnseen();
    for (const step of coalesce(portion.batches, window, () => isHurt)) {
      this.#apply(step, mayLack, clears);
    }
    this.#finish(to);
    this.#position = to;
    this.#waiting.splice(0, portion.batches.length - (portion.stopAt === null ? 0 : 1));
    this.#checkWhole();
  }

  #hasUnsent(from: Lsn, to: Lsn): boolean {
    return [...this.#truths].some(([lsn, truth]) => truth === null && lsn >= from && lsn <= to);
  }

  #finish(to: FollowerPosition): void {
    const open = this.#seen === null ? [] : [relationId];
    if (this.#rules.finishedAt(to, open).length === 0) return;
    const before = new Map(this.#rows);
    this.#removeUnseen();
    this.#seen = null;
    const truth = this.#truths.get(to.at.lsn);
    if (truth == null || this.#isTampered) return;
    for (const [key, { small }] of before) {
      if (this.#rows.has(key) || truth.get(key)?.small !== small) continue;
      throw new Error(`a follower removes ${key}, which is there`);
    }
  }

  #removeUnseen(): void {
    if (this.#seen === null) return;
    for (const key of [...this.#rows.keys()]) if (!this.#seen.has(key)) this.#rows.delete(key);
  }

  #apply(step: ApplyStep, mayLack: boolean, clears: boolean): void {
    switch (step.kind) {
      case 'relation':
        return;
      case 'truncate':
        this.#rows.clear();
        return;
      case 'reread':
        this.#seen = new Set(this.#rules.keepsSeen ? this.#seen : []);
        this.#isTampered = false;
        if (clears) this.#removeUnseen();
        return;
      case 'rows':
        applyRows(this.#store, {
          tables: step.tables,
          columns: ['id', 'small', 'large'],
          replace: clears,
          replaceOnly: () => this.#seen !== null,
          mayLackBase: () => mayLack,
          actions: this.#rules.rowActions,
        });
    }
  }

  readonly #store: ModelStore = {
    values: ({ value }) => JSON.parse(String(value)) as string[],
    read: (_, key) => {
      const row = this.#rows.get(key);
      return row === undefined ? null : [key, row.small, row.large];
    },
    delete: (_, key) => this.#rows.delete(key),
    write: (_, [key, small, large]) => {
      this.#rows.set(key ?? '', { small: small ?? '', large: large ?? '' });
    },
    end: (rows) => {
      for (const { identity } of this.#rules.rowsSeen(rows)) this.#seen?.add(identity.join());
    },
  };

  /** A follower of a complete table has the leader's rows, at any stop. */
  #checkWhole(): void {
    const { at, unfinished } = this.#position;
    const truth = this.#truths.get(at.lsn);
    if (truth != null && unfinished.length === 0 && !this.#isTampered) this.check(truth);
  }

  check(truth: Rows): void {
    const shown = (rows: Rows): string => {
      return JSON.stringify([...rows].sort(([a], [b]) => (a < b ? -1 : 1)));
    };
    if (shown(this.#rows) === shown(truth)) return;
    throw new Error(`a follower holds ${shown(this.#rows)}, not ${shown(truth)}`);
  }
}
