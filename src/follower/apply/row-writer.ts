/**
 * Collects rows of one table into statements of bounded size. Flows in: rows, column by column, as
 * text; flows out: inserts or upserts of up to some thousand rows each, in the order in which they
 * came.
 */
import type { Client } from 'pg';
import type { PgText } from '../../change/change.ts';
import { type ApplyTarget, insertSql, upsertSql } from './apply-sql.ts';

/** One statement takes at most this many rows and about this many characters of values. */
export const statementRowsMax = 4_000;
const statementCharsMax = 16 * 1024 * 1024;

export class RowWriter {
  readonly #client: Client;
  readonly #target: ApplyTarget;
  readonly #text: string;
  #columns: PgText[][];
  #count = 0;
  #chars = 0;

  /** `replace`: rows of the same keys are gone already. */
  constructor(client: Client, target: ApplyTarget, replace: boolean) {
    this.#client = client;
    this.#target = target;
    this.#text = replace || target.replaceOnly ? insertSql(target) : upsertSql(target);
    this.#columns = target.columns.map(() => []);
  }

  /**
   * `order` says for each column of the target where `values` has its value; true when it is time
   * to flush. Indexes only: this runs for every value of every row.
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
    await this.#client.query({ text: this.#text, values });
  }
}
