/**
 * The statements that write rows, and a writer that collects rows into statements of bounded size.
 * A follower's table and rows, column by column, as text come in; SQL comes out that takes one text
 * array per column, so that a thousand rows are one statement and every value goes through the
 * type's own input. Names are quoted, values are parameters.
 */
import type { Client } from 'pg';
import {
  identityColumns,
  type KeyedTable,
  keyMatch,
  quotedTable,
  unnestTexts,
} from '../../catalog/key-lookup.ts';
import { quoteIdentifier } from '../../catalog/postgres-session.ts';
import type { PgText } from '../../change/change.ts';
import type { RowFunctions, RowOwner } from './row-functions.ts';

/** One table of this follower, in the columns of the stream. */
export interface ApplyTarget extends KeyedTable {
  readonly partitioned: boolean;
  /** As which its rows are read and written; null is the agent itself. */
  readonly owner: RowOwner | null;
  /**
   * Rows are deleted and inserted, never updated: a GENERATED ALWAYS identity column outside of the
   * key cannot be updated, ON CONFLICT does not take every unique index, and there are tables
   * without any.
   */
  readonly replaceOnly: boolean;
  /** Whether keys that are equal in Postgres always have the same bytes. */
  readonly oneSpelling: boolean;
}

/** Takes one text array per identity column. */
export function deleteSql(target: ApplyTarget): string {
  const keys = unnestTexts('k', identityColumns(target));
  return `DELETE FROM ONLY ${quotedTable(target)} AS t USING ${keys} WHERE ${keyMatch(target)}`;
}

/** Takes one text array per column. */
export function upsertSql(target: ApplyTarget): string {
  const key = new Set(target.identity);
  const updates = target.columns
    .filter((_, index) => !key.has(index))
    .map(({ name }) => `${quoteIdentifier(name)} = EXCLUDED.${quoteIdentifier(name)}`);
  const conflict = identityColumns(target).map(({ name }) => quoteIdentifier(name));
  const action = updates.length === 0 ? 'NOTHING' : `UPDATE SET ${updates.join(', ')}`;
  return `${insertSql(target)} ON CONFLICT (${conflict.join(', ')}) DO ${action}`;
}

/** Takes one text array per column; the table has no row of the same key. */
export function insertSql(target: ApplyTarget): string {
  const names = target.columns.map(({ name }) => quoteIdentifier(name));
  const values = target.columns.map(({ type }, i) => `v.v${i}::${type}`);
  return (
    `INSERT INTO ${quotedTable(target)} (${names.join(', ')}) OVERRIDING SYSTEM VALUE ` +
    `SELECT ${values.join(', ')} FROM ${unnestTexts('v', target.columns)}`
  );
}

/** A partitioned table has no rows of its own: its partitions are named beside it. */
export function truncateSql(targets: readonly ApplyTarget[]): string {
  const names = targets.map(
    (target) => `${target.partitioned ? '' : 'ONLY '}${quotedTable(target)}`,
  );
  return `TRUNCATE ${names.join(', ')}`;
}

export function deleteAllSql(target: ApplyTarget): string {
  return `DELETE FROM ${target.partitioned ? '' : 'ONLY '}${quotedTable(target)}`;
}

/** One statement takes at most this many rows and about this many characters of values. */
export const statementRowsMax = 4_000;
const statementCharsMax = 16 * 1024 * 1024;

/** Writes rows of one table, in the order in which they are added. */
export class RowWriter {
  readonly #client: Client;
  readonly #functions: RowFunctions;
  readonly #target: ApplyTarget;
  readonly #text: string;
  #columns: PgText[][];
  #count = 0;
  #chars = 0;

  /** `replace`: rows of the same keys are deleted already. */
  constructor(client: Client, functions: RowFunctions, target: ApplyTarget, replace: boolean) {
    this.#client = client;
    this.#functions = functions;
    this.#target = target;
    this.#text = replace || target.replaceOnly ? insertSql(target) : upsertSql(target);
    this.#columns = target.columns.map(() => []);
  }

  /**
   * `order` has for each column of the target the index of its value in `values`; true when it is
   * time to flush. Indexes only: this runs for every value of every row.
   */
  add(values: readonly PgText[], order: readonly number[]): boolean {
    for (let i = 0; i < order.length; i += 1) {
      const value = values[order[i] as number] ?? null;
      this.#columns[i]?.push(value);
      this.#chars += value?.length ?? 0;
    }
    this.#count += 1;
    return this.#count >= statementRowsMax || this.#chars >= statementCharsMax;
  }

  async flush(): Promise<void> {
    if (this.#count === 0) return;
    const values = this.#columns;
    this.#columns = this.#target.columns.map(() => []);
    this.#count = 0;
    this.#chars = 0;
    const text = await this.#functions.statement(this.#target.owner, this.#text);
    await this.#client.query({ text, values });
  }
}
