/**
 * Published tables that cannot be in the stream, because they have no key. Takes tables as the
 * catalog has them; gives the reason, and remembers which tables they are, also once they are
 * dropped or unpublished: their changes stay in the WAL. The stream promises nothing about such a
 * table: points name it as uncovered, followers have no row of it, and when it enters, all of its
 * rows are read.
 */
import type { Client } from 'pg';
import type { TableShape } from '../../catalog/table.ts';
import { problemsOf } from '../../catalog/table-problems.ts';

/** Why it cannot enter, and the remedy. */
export interface OutsideProblem {
  readonly message: string;
  readonly hint: string;
}

export class OutsideTables {
  readonly #client: Client;
  readonly #oids: Set<number>;

  private constructor(client: Client, oids: Set<number>) {
    this.#client = client;
    this.#oids = oids;
  }

  static async open(client: Client): Promise<OutsideTables> {
    const { rows } = await client.query<{ oid: string }>(
      'SELECT table_oid::bigint AS oid FROM understudy.outside',
    );
    return new OutsideTables(client, new Set(rows.map(({ oid }) => Number(oid))));
  }

  has(oid: number): boolean {
    return this.#oids.has(oid);
  }

  /** Saved before any change of them is left out. */
  async add(tables: readonly TableShape[]): Promise<void> {
    const oids = tables.map(({ oid }) => oid).filter((oid) => !this.#oids.has(oid));
    if (oids.length === 0) return;
    await this.#client.query(
      'INSERT INTO understudy.outside SELECT unnest($1::oid[]) ON CONFLICT DO NOTHING',
      [oids],
    );
    for (const oid of oids) this.#oids.add(oid);
  }

  /** They have entered the stream. */
  async remove(tables: readonly TableShape[]): Promise<void> {
    const oids = tables.map(({ oid }) => oid).filter((oid) => this.#oids.has(oid));
    if (oids.length === 0) return;
    await this.#client.query('DELETE FROM understudy.outside WHERE table_oid = ANY ($1::oid[])', [
      oids,
    ]);
    for (const oid of oids) this.#oids.delete(oid);
  }
}

/** A tree of partitions enters whole or not at all. */
export function problemOfTree(tree: readonly TableShape[]): OutsideProblem | null {
  const [problem] = tree.flatMap((table) => problemsOf(table));
  return problem ?? null;
}
