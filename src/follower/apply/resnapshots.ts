/**
 * Tables under resnapshot. Flows in: the record where a resnapshot begins, and the rows written
 * since; flows out: once points no longer name the table as unfinished, the rows that were not
 * written again are deleted. Until then readers see them. The keys that were written are kept
 * beside the position, in the same transactions, in a table with the types of the key, so that they
 * are compared as the identity's index does.
 */
import type { Client } from 'pg';
import { identityColumns, keyMatch, quotedTable, unnestTexts } from '../../catalog/key-lookup.ts';
import { quoteIdentifier } from '../../catalog/postgres-session.ts';
import type { RelationId } from '../../change/change.ts';
import { compareEpochLsn } from '../../change/position.ts';
import type { RowRecord } from '../../topic/records/stream-record.ts';
import type { FollowerPosition } from '../state/follower-state.ts';
import type { RowFunctions } from './row-functions.ts';
import { type ApplyTarget, deleteAllSql } from './row-writer.ts';
import type { TableRows } from './stages.ts';

/** One array parameter per identity column. */
type Keys = readonly (readonly string[])[];

export class Resnapshots {
  readonly #client: Client;
  readonly #functions: RowFunctions;
  /** The number of each table's keys. */
  #committed: ReadonlyMap<RelationId, number>;
  #pending: Map<RelationId, number>;

  private constructor(
    client: Client,
    functions: RowFunctions,
    committed: ReadonlyMap<RelationId, number>,
  ) {
    this.#client = client;
    this.#functions = functions;
    this.#committed = committed;
    this.#pending = new Map(committed);
  }

  static async open(client: Client, functions: RowFunctions): Promise<Resnapshots> {
    const { rows } = await client.query<{ id: string; number: string }>(
      'SELECT relation_id AS id, number FROM understudy.rereads ORDER BY number',
    );
    const numbers = new Map(rows.map(({ id, number }) => [id, Number(number)]));
    return new Resnapshots(client, functions, numbers);
  }

  committed(): void {
    this.#committed = new Map(this.#pending);
  }

  forgetUncommitted(): void {
    this.#pending = new Map(this.#committed);
  }

  get open(): readonly RelationId[] {
    return [...this.#pending.keys()];
  }

  has(id: RelationId): boolean {
    return this.#pending.has(id);
  }

  /** Keys of an earlier resnapshot no longer count. */
  async begin(target: ApplyTarget): Promise<void> {
    const { relationId } = target;
    await this.#end(relationId);
    const { rows } = await this.#client.query<{ number: string }>(
      'INSERT INTO understudy.rereads (relation_id) VALUES ($1) RETURNING number',
      [relationId],
    );
    const number = Number(rows[0]?.number);
    const columns = identityColumns(target).map(
      ({ name }, i) => `${quoteIdentifier(name)} AS k${i}`,
    );
    await this.#client.query(
      `CREATE TABLE ${seenTable(number)} AS ` +
        `SELECT ${columns.join(', ')} FROM ONLY ${quotedTable(target)} WITH NO DATA`,
    );
    // Keys are values: default privileges of this database must not show them to anyone.
    await this.#client.query(`REVOKE ALL ON ${seenTable(number)} FROM PUBLIC`);
    if (target.owner !== null) {
      // Functions of its types run when it is written and analyzed, as its owner.
      await this.#client.query(
        `ALTER TABLE ${seenTable(number)} OWNER TO ${quoteIdentifier(target.owner.name)}`,
      );
    }
    this.#pending.set(relationId, number);
  }

  /** Rows with these keys were written; a later step may have deleted them. */
  async addSeen(target: ApplyTarget, keys: Keys): Promise<void> {
    const columns = identityColumns(target);
    const values = columns.map(({ type }, i) => `k.k${i}::${type}`);
    const text =
      `INSERT INTO ${this.#seenTable(target.relationId)} ` +
      `SELECT ${values.join(', ')} FROM ${unnestTexts('k', columns)}`;
    const run = await this.#functions.statement(target.owner, text);
    await this.#client.query({ text: run, values: [...keys] });
  }

  /** Deletes rows that were not written yet, before the end: one of them conflicts with a row. */
  async removeUnseen(target: ApplyTarget): Promise<void> {
    const seen = this.#seenTable(target.relationId);
    // It has no statistics yet, and the plan depends on its size.
    await this.#client.query(`ANALYZE ${seen}`);
    const text =
      `${deleteAllSql(target)} AS t ` +
      `WHERE NOT EXISTS (SELECT FROM ${seen} AS k WHERE ${keyMatch(target)})`;
    await this.#client.query(await this.#functions.statement(target.owner, text));
  }

  /** All rows of the table were written: the leader does not have the others. */
  async finish(target: ApplyTarget): Promise<void> {
    // rule: resnapshot-removes-unseen-rows
    await this.removeUnseen(target);
    await this.#end(target.relationId);
  }

  /** Deletes no rows: the tables are emptied. */
  async abandon(): Promise<void> {
    for (const id of this.open) await this.#end(id);
  }

  /** Deletes no rows: the relation has ended. */
  async forget(id: RelationId): Promise<void> {
    await this.#end(id);
  }

  async #end(id: RelationId): Promise<void> {
    if (!this.has(id)) return;
    await this.#client.query(`DROP TABLE ${this.#seenTable(id)}`);
    await this.#client.query('DELETE FROM understudy.rereads WHERE relation_id = $1', [id]);
    this.#pending.delete(id);
  }

  #seenTable(id: RelationId): string {
    const number = this.#pending.get(id);
    if (number === undefined) throw new RangeError(`${id} is not under resnapshot`);
    return seenTable(number);
  }
}

/** Deletes no rows: this node is promoted. In the caller's transaction. */
export async function abandonResnapshots(client: Client): Promise<void> {
  const { rows } = await client.query<{ number: string }>('SELECT number FROM understudy.rereads');
  for (const { number } of rows) await client.query(`DROP TABLE ${seenTable(Number(number))}`);
  await client.query('DELETE FROM understudy.rereads');
}

/** Those of `open` whose resnapshot is complete at the position. */
export function finishedAt(
  { at, checkpoint, unfinished }: Pick<FollowerPosition, 'at' | 'checkpoint' | 'unfinished'>,
  open: readonly RelationId[],
): RelationId[] {
  // Inside a batch it is unknown whether it begins another resnapshot of the table.
  // rule: resnapshot-ends-at-point
  if (compareEpochLsn(at, checkpoint.at) !== 0) return [];
  // rule: resnapshot-ends-when-unnamed
  return open.filter((id) => !unfinished.includes(id));
}

/** A partial row may hide a whole one, or its base was written before the resnapshot. */
export function rowsSeen({ upserts, partials }: TableRows): readonly RowRecord[] {
  // rule: partial-row-counts-as-seen
  return [...upserts, ...partials.map(({ layers }) => layers[0])];
}

function seenTable(number: number): string {
  return `understudy.seen_${number}`;
}
