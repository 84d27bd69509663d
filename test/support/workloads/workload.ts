/**
 * What a workload is: tables, transactions that writers play on the leader, and what must hold of
 * its rows. Flows in: a client inside of a transaction and chance; flows out: what the transaction
 * did, for the journal. What must hold is SQL, so that one reader looks at every workload alike:
 * in any snapshot of any node while it runs, and at the end.
 */
import type pg from 'pg';

export interface Turn {
  readonly client: pg.Client;
  readonly writer: number;
  /** Counts the transactions of the writer from 1. */
  readonly n: number;
  readonly random: () => number;
}

/** What a transaction did, if it was committed. */
export interface Written {
  /** Things that are there exactly once from now on: `entry/3/17`, `list/5/3.17`. */
  readonly adds?: readonly string[];
  /** Counters raised by one, once for each mention: `version/7`. */
  readonly raises?: readonly string[];
  /** Lists as this transaction left them: they may only ever grow at their end. */
  readonly reads?: readonly { readonly list: string; readonly elements: readonly string[] }[];
  /** The writer wants it undone: nothing of it may ever be seen. */
  readonly rollback?: boolean;
}

export interface Workload {
  readonly name: string;
  /** Run on every node before init. */
  readonly tables: string;
  readonly tableNames: readonly string[];
  /** Run on the leader after init, in one transaction. */
  readonly rows?: string;
  /** SQLSTATEs that its transactions may meet in a race with each other. */
  readonly mayFail?: readonly string[];
  /** Between BEGIN and COMMIT. */
  write(turn: Turn): Promise<Written>;
  /** Gives one row `wrong` for everything that no snapshot of any node may show. */
  readonly wrong?: string;
  /** Gives `name` and `value`; on one node no value ever goes down. */
  readonly climbing?: string;
  /** Gives `thing`, once for each that is there. */
  readonly things?: string;
  /** Gives `counter` and `value`. */
  readonly counters?: string;
  /** Gives `list` and `elements`, the elements joined with commas. */
  readonly lists?: string;
}

/** Stands in values that were rolled back: it may be in no row and in no committed record. */
export const neverMark = 'never-committed';
