/**
 * Bases of partial rows that the deletes of a step remove, kept in temporary tables of the
 * applier's session until they are written: a step may move thousands of rows with large values,
 * and no more than a few of them are held in memory. Flows in: keys, before the deletes; flows out:
 * the rows that the table held under them, by their place, as text that is the table's own. They
 * end with the step, and with the transaction in any case.
 */
import type { Client } from 'pg';
import { rowsByKeySql } from '../../catalog/key-lookup.ts';
import type { PgText } from '../../change/change.ts';
import { bug } from '../../errors/bug.ts';
import {
  type BaseRows,
  type KeepQuery,
  type KeptQuery,
  type Layer,
  layerOf,
} from './partial-rows.ts';
import type { RowFunctions } from './row-functions.ts';
import type { ApplyTarget } from './row-writer.ts';

export class KeptBases {
  readonly #client: Client;
  readonly #functions: RowFunctions;
  readonly #names = new Map<ApplyTarget, string>();
  #count = 0;

  constructor(client: Client, functions: RowFunctions) {
    this.#client = client;
    this.#functions = functions;
  }

  /** `keys`: one array for each key column. */
  async keep(query: KeepQuery<ApplyTarget>, keys: readonly (readonly PgText[])[]): Promise<void> {
    const { table, columnIds, first } = query;
    const columns = columnIds.map((id) => table.columns.findIndex((column) => column.id === id));
    const values = columns.map((_, i) => `b${i}`).join(', ');
    if (first === 0) {
      this.#count += 1;
      this.#names.set(table, `understudy_bases_${this.#count}`);
      const texts = columns.map((_, i) => `b${i} text`).join(', ');
      await this.#client.query(
        `CREATE TEMPORARY TABLE ${this.#name(table)} (place bigint, ${texts}) ON COMMIT DROP`,
      );
    }
    const byKey = rowsByKeySql(table, columns);
    const held = await this.#functions.statement(table.owner, byKey, 1 + columns.length);
    await this.#client.query({
      text:
        `INSERT INTO pg_temp.${this.#name(table)} SELECT ${first} + place::bigint, ${values} ` +
        `FROM (${held}) AS held (place, ${values})`,
      values: [...keys],
    });
  }

  async read({ table, columnIds, first, count }: KeptQuery<ApplyTarget>): Promise<BaseRows> {
    const values = columnIds.map((_, i) => `b${i}`).join(', ');
    const { rows } = await this.#client.query<PgText[]>({
      text:
        `SELECT place, ${values} FROM pg_temp.${this.#name(table)} ` +
        'WHERE place > $1::bigint AND place <= $2::bigint',
      values: [first, first + count],
      rowMode: 'array',
    });
    const bases = new Array<Layer | null>(count).fill(null);
    for (const [place, ...texts] of rows) {
      bases[Number(place) - first - 1] = layerOf(columnIds, texts, null);
    }
    return bases;
  }

  /** The rows of the table are written. */
  async end(table: ApplyTarget): Promise<void> {
    if (!this.#names.has(table)) return;
    await this.#client.query(`DROP TABLE pg_temp.${this.#name(table)}`);
    this.#names.delete(table);
  }

  #name(table: ApplyTarget): string {
    const name = this.#names.get(table);
    if (name === undefined) throw bug(`no bases of ${table.relationId} were kept`);
    return name;
  }
}
