/**
 * The tables a follower writes to. Flows in: relation records of the stream and this database's
 * catalog; flows out: the target of each relation id. A table that is not as the stream describes
 * it stops the follower: a column without values, or a value without a column, would be a
 * difference that is not noticed.
 */
import type { Client } from 'pg';
import { readTableAccess, type TableAccess } from '../../catalog/column-access.ts';
import { hasOneSpelling, keyedTableOf } from '../../catalog/key-lookup.ts';
import {
  endRelation,
  hasEndedRelation,
  isSaved,
  type KnownRelation,
  loadKnownRelation,
  loadKnownRelations,
  saveRelations,
} from '../../catalog/known-relations.ts';
import { addToPublication } from '../../catalog/publication.ts';
import { readAllTables, readRoot, readTable, readTableByName } from '../../catalog/read-catalog.ts';
import { alterationOf, compareWithTable } from '../../catalog/relation-ids.ts';
import type { TableShape } from '../../catalog/table.ts';
import { readNode } from '../../catalog/understudy-schema.ts';
import type { RelationId, RelationShape } from '../../change/change.ts';
import {
  rowColumnsDiffer,
  tableMissingHere,
  tableNotAltered,
  tableNotCreated,
  tableNotMatched,
  tablePartitionedHere,
  tableUnlikeLeader,
} from '../../errors/row.ts';
import { publicationName } from '../../topic/records/layout.ts';
import { Resnapshots } from './resnapshots.ts';
import { RowFunctions, type RowOwner } from './row-functions.ts';
import type { ApplyTarget } from './row-writer.ts';

export class ApplyTargets {
  /** Which of them are under resnapshot; committed and rolled back with them. */
  readonly resnapshots: Resnapshots;
  /** How their rows are read and written; committed and rolled back with them. */
  readonly functions: RowFunctions;
  readonly #client: Client;
  readonly #publication: string;
  #committed = new Map<RelationId, ApplyTarget>();
  #pending: Map<RelationId, ApplyTarget>;
  readonly #replacements = new WeakMap<ApplyTarget, ApplyTarget>();
  readonly #orders = new WeakMap<readonly string[], WeakMap<ApplyTarget, readonly number[]>>();

  private constructor(
    client: Client,
    publication: string,
    functions: RowFunctions,
    resnapshots: Resnapshots,
  ) {
    this.functions = functions;
    this.resnapshots = resnapshots;
    this.#client = client;
    this.#publication = publication;
    this.#pending = new Map();
  }

  static async open(client: Client): Promise<ApplyTargets> {
    const node = await readNode(client);
    const publication = publicationName(node?.cluster ?? '');
    const functions = await RowFunctions.open(client);
    const resnapshots = await Resnapshots.open(client, functions);
    const targets = new ApplyTargets(client, publication, functions, resnapshots);
    const known = (await loadKnownRelations(client)).filter(({ shape }) => !shape.dropped);
    const oids = new Set(known.map(({ tableOid }) => tableOid));
    const tables = (await readAllTables(client)).filter(({ oid }) => oids.has(oid));
    const byOid = new Map(tables.map((table) => [table.oid, table]));
    const access = await readTableAccess(client, tables);
    const owners = await functions.owners(tables);
    for (const { shape, tableOid } of known) {
      const table = byOid.get(tableOid ?? 0);
      // A table that has changed does not stop the start of the node, but a row for it.
      if (table === undefined || differenceOf(shape, table) !== null) continue;
      const target = targetOf(shape, table, access.get(table.oid), owners.get(table.oid));
      targets.#committed.set(shape.id, target);
    }
    targets.#pending = new Map(targets.#committed);
    return targets;
  }

  /** The transaction that changed targets is committed. */
  committed(): void {
    this.#committed = new Map(this.#pending);
    this.resnapshots.committed();
    this.functions.committed();
  }

  forgetUncommitted(): void {
    this.#pending = new Map(this.#committed);
    this.resnapshots.forgetUncommitted();
    this.functions.forgetUncommitted();
  }

  get(id: RelationId): ApplyTarget {
    const target = this.#pending.get(id);
    if (target !== undefined) return target;
    throw tableNotMatched(id);
  }

  /**
   * The table that holds the rows itself: of partitions, a DELETE FROM ONLY would find none. One
   * under resnapshot may hold a key in another spelling, which an upsert would keep.
   */
  getOfRows(id: RelationId): ApplyTarget {
    const target = this.get(id);
    // rule: resnapshot-replaces-rows
    if (!target.partitioned) return this.resnapshots.has(id) ? this.#replacing(target) : target;
    throw tablePartitionedHere(id);
  }

  #replacing(target: ApplyTarget): ApplyTarget {
    const known = this.#replacements.get(target);
    if (known !== undefined) return known;
    const replacing = { ...target, replaceOnly: true };
    this.#replacements.set(target, replacing);
    return replacing;
  }

  /** Takes a relation record: this node's table must be the one it describes. */
  async relation(shape: RelationShape): Promise<void> {
    if (shape.dropped) {
      await this.#end(shape);
      return;
    }
    const known = await loadKnownRelation(this.#client, shape.id);
    // A table that the leader has altered comes as a new relation, after its former one has ended.
    const isAltered = known === null && (await hasEndedRelation(this.#client));
    const table = await this.#tableOf(shape, known, isAltered);
    const difference = differenceOf(shape, table);
    if (difference !== null) {
      const name = `${shape.schema}.${shape.name}`;
      if (!isAltered) throw tableUnlikeLeader(name, difference);
      throw tableNotAltered(name, difference, alterationOf(shape, table));
    }
    if (!isSaved(known, { shape, table })) await saveRelations(this.#client, [{ shape, table }]);
    // A promoted node publishes what the leader published.
    const root = await readRoot(this.#client, table);
    await addToPublication(this.#client, this.#publication, root);
    const access = await readTableAccess(this.#client, [table]);
    const owners = await this.functions.owners([table]);
    const target = targetOf(shape, table, access.get(table.oid), owners.get(table.oid));
    this.#pending.set(shape.id, target);
  }

  /** Its table, if it is still there, belongs to a relation that follows, or to none. */
  async #end(shape: RelationShape): Promise<void> {
    await this.resnapshots.forget(shape.id);
    const known = await loadKnownRelation(this.#client, shape.id);
    if (known !== null && !known.shape.dropped) await endRelation(this.#client, known);
    this.#pending.delete(shape.id);
  }

  async #tableOf(
    shape: RelationShape,
    known: KnownRelation | null,
    isAltered: boolean,
  ): Promise<TableShape> {
    const { schema, name } = shape;
    const table =
      known?.tableOid == null
        ? await readTableByName(this.#client, schema, name)
        : await readTable(this.#client, known.tableOid);
    if (table !== undefined) return table;
    throw isAltered ? tableNotCreated(`${schema}.${name}`) : tableMissingHere(`${schema}.${name}`);
  }

  /** For each column of the target, the index of its value in a row with these columns. */
  columnOrder(target: ApplyTarget, columnIds: readonly string[]): readonly number[] {
    let orders = this.#orders.get(columnIds);
    if (orders === undefined) {
      orders = new WeakMap();
      this.#orders.set(columnIds, orders);
    }
    let order = orders.get(target);
    if (order === undefined) {
      order = orderOf(target, columnIds);
      orders.set(target, order);
    }
    return order;
  }
}

/** A crash empties an unlogged table, and the position would still cover its rows. */
function differenceOf(shape: RelationShape, table: TableShape): string | null {
  if (table.persistence !== 'permanent') return `it is ${table.persistence} here`;
  return compareWithTable(shape, table);
}

function orderOf(target: ApplyTarget, columnIds: readonly string[]): number[] {
  const order = target.columns.map(({ id }) => columnIds.indexOf(id));
  if (order.length === columnIds.length && !order.includes(-1)) return order;
  const own = target.columns.map(({ id }) => id);
  throw rowColumnsDiffer(target.relationId, columnIds, own);
}

function targetOf(
  shape: RelationShape,
  table: TableShape,
  access: TableAccess | undefined,
  owner: RowOwner | undefined,
): ApplyTarget {
  const keyed = keyedTableOf(shape, table, access);
  const key = new Set(shape.identity);
  const names = new Set(shape.columns.flatMap(({ id, name }) => (key.has(id) ? [] : [name])));
  const hasAlways = table.columns.some(({ name, identity }) => {
    return names.has(name) && identity === 'always';
  });
  return {
    ...keyed,
    partitioned: table.kind === 'partitioned',
    owner: owner ?? null,
    replaceOnly: hasAlways || access?.upsertable !== true,
    oneSpelling: hasOneSpelling(keyed),
  };
}
