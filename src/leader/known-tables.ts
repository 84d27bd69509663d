/**
 * The published tables as the leader knows them. Flows in: relation messages and this database's
 * catalog; flows out: the shape of each relation with its stream ids, columns in the order in which
 * Postgres sends them here. A table that is no longer what the stream says stops the leader; one
 * that is published now, or a new partition of one, gets its ids on first sight.
 */
import type { Client } from 'pg';
import { readTableAccess } from '../catalog/column-access.ts';
import { hasOneSpelling, keyedTableOf } from '../catalog/key-lookup.ts';
import { type KnownRelation, loadKnownRelations } from '../catalog/known-relations.ts';
import { readPublicationState } from '../catalog/publication.ts';
import { readTables } from '../catalog/read-catalog.ts';
import { compareWithTable, newShape } from '../catalog/relation-ids.ts';
import { displayName, rootOf, type TableShape } from '../catalog/table.ts';
import type { RelationId, RelationShape } from '../change/change.ts';
import { UnderstudyError } from '../errors.ts';
import { sleep } from '../lifecycle.ts';
import {
  enterTable,
  forgetToRead,
  keepsOldPublication,
  tablesToRead,
  withPartitions,
} from './entering-tables.ts';
import type { RelationMessage } from './pgoutput-decoder.ts';
import type { RowKey } from './row-overlay.ts';
import type { ReadableTable } from './row-reader.ts';

const allTables = ['*.*'];
/** Together 5 s: far longer than from the record of a commit to its being seen. */
const visibleLooksMax = 100;
const visiblePauseMs = 50;

export class KnownTables {
  readonly #client: Client;
  readonly #byOid = new Map<number, RelationShape>();
  readonly #known: KnownRelation[];
  readonly #onEnter: (relationId: RelationId) => void;
  /** One after the other: two looks may see the same new table. */
  #entering: Promise<void> = Promise.resolve();
  /** Named as unfinished by points that can be read. */
  readonly #named = new Set<RelationId>();

  private constructor(
    client: Client,
    known: KnownRelation[],
    onEnter: (relationId: RelationId) => void,
  ) {
    this.#client = client;
    this.#known = known;
    this.#onEnter = onEnter;
  }

  /** `onEnter` hears of tables whose rows are to be read, before any change of them. */
  static async open(
    client: Client,
    onEnter: (relationId: RelationId) => void,
  ): Promise<KnownTables> {
    const tables = new KnownTables(client, await loadKnownRelations(client), onEnter);
    for (const relation of await tablesToRead(client)) onEnter(relation);
    return tables;
  }

  /** A point that can be read says that these are unfinished. */
  named(relations: readonly RelationId[]): void {
    for (const relation of relations) this.#named.add(relation);
  }

  /** Takes a relation message before its rows: compares, or gives ids to a new partition. */
  async learn(message: RelationMessage): Promise<void> {
    const table = await this.#tableOf(message.oid);
    if (table === undefined) {
      throw changed(`${message.schema}.${message.name}`, 'it was dropped');
    }
    const known = this.#knownOf(message.oid) ?? (await this.#enter(table));
    const { shape } = known;
    const difference =
      renamed(shape, table) ??
      recreated(known, table) ??
      compareWithTable(shape, table) ??
      messageDifference(message, table);
    if (difference !== null) throw changed(`${shape.schema}.${shape.name}`, difference);
    this.#byOid.set(message.oid, inTableOrder(shape, table));
  }

  /** A commit is decoded before other sessions see it: a table made by it comes a moment later. */
  async #tableOf(oid: number): Promise<TableShape | undefined> {
    for (let looks = 1; ; looks += 1) {
      const tables = await readTables(this.#client, allTables);
      const table = tables.find((one) => one.oid === oid);
      if (table !== undefined || looks === visibleLooksMax) return table;
      await sleep(visiblePauseMs);
    }
  }

  /** Throws at a key that no row of the stream can have. */
  requireKey({ relationId, identity }: RowKey): void {
    const shape = this.#known.find(({ shape: { id } }) => id === relationId)?.shape;
    if (shape !== undefined && shape.identity.length === identity.length && identity.length > 0) {
      return;
    }
    throw new UnderstudyError(
      'USAGE',
      `${relationId} has no rows with a key of ${identity.length} columns`,
      'Run the version of pg-understudy that the leader runs; rows without a key are not repaired.',
    );
  }

  /** Of the relation's table here; null for one that this node never had. */
  oidOf(relationId: RelationId): number | null {
    return this.#known.find(({ shape: { id } }) => id === relationId)?.tableOid ?? null;
  }

  /**
   * How the rows of a relation are read here, whether or not any came through the stream yet; null
   * for one that this node never had.
   */
  async readable(relationId: RelationId): Promise<ReadableTable | null> {
    const known = this.#known.find(({ shape: { id } }) => id === relationId);
    const tables = await readTables(this.#client, allTables);
    const table = tables.find(({ oid }) => oid === known?.tableOid);
    if (known === undefined) return null;
    if (table === undefined) throw changed(relationId, 'it was dropped');
    const difference = compareWithTable(known.shape, table);
    if (difference !== null) throw changed(displayName(table), difference);
    const shape = this.#byOid.get(table.oid) ?? inTableOrder(known.shape, table);
    this.#byOid.set(table.oid, shape);
    const access = await readTableAccess(this.#client, [table]);
    const keyed = keyedTableOf(shape, table, access.get(table.oid));
    return { oid: table.oid, shape, keyed, hasOneSpelling: hasOneSpelling(keyed) };
  }

  /** Of a relation whose rows can be read anew: one with a key, and rows of its own. */
  async rereadable(relationId: RelationId): Promise<RelationShape | null> {
    const known = this.#known.find(({ shape: { id } }) => id === relationId);
    if (known === undefined || known.shape.dropped || known.shape.identity.length === 0) {
      return null;
    }
    const tables = await readTables(this.#client, allTables);
    const table = tables.find(({ oid }) => oid === known.tableOid);
    if (table?.kind === 'partitioned') return null;
    return (await this.readable(relationId))?.shape ?? null;
  }

  /** The shape of a relation that `learn` has taken. */
  shapeOf(message: RelationMessage): RelationShape {
    const shape = this.#byOid.get(message.oid);
    if (shape !== undefined) return shape;
    throw new UnderstudyError('BUG', `${message.name} was not learnt`, 'Please report this.');
  }

  /**
   * Looks whether the published tables are still those of the stream: one that was dropped and made
   * again would go on under the old id with rows that no delete ever removed. Gives the names of
   * tables that the configuration asks for and the stream does not have, because they came later.
   */
  async check(publication: string, patterns: readonly string[]): Promise<string[]> {
    // A partition that enters while this looks is not in what was read of the catalog before.
    const present = [...this.#known];
    const tables = await readTables(this.#client, allTables);
    const { rows } = await this.#client.query<{ oid: string }>(
      `SELECT r.prrelid::bigint AS oid FROM pg_catalog.pg_publication_rel r
       JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1`,
      [publication],
    );
    const published = new Set(rows.map(({ oid }) => Number(oid)));
    await this.#checkPublication(publication);
    await this.#refuseUnseen();
    const named = new Set(this.#named);
    await forgetToRead(this.#client, named);
    for (const relation of named) this.#named.delete(relation);
    for (const table of tables) {
      if (published.has(table.oid) && this.#knownOf(table.oid) === undefined) {
        await this.#enter(table);
      }
    }
    for (const known of present) {
      const { shape, tableOid } = known;
      if (shape.dropped) continue;
      const table = tables.find(({ oid }) => oid === tableOid);
      const name = `${shape.schema}.${shape.name}`;
      if (table === undefined) throw changed(name, 'it was dropped, or dropped and made again');
      const difference = renamed(shape, table) ?? recreated(known, table);
      if (difference !== null) throw changed(name, difference);
      if (!published.has(table.oid) && !table.isPartition) {
        throw changed(name, `it is no longer in the publication ${publication}`);
      }
    }
    const wanted = await readTables(this.#client, patterns);
    const missing = wanted.filter(({ oid, persistence, isPartition }) => {
      return persistence === 'permanent' && !isPartition && !published.has(oid);
    });
    return missing.map(displayName);
  }

  /** Changes of rows that no row message tells of, as the event triggers have noted them. */
  async #refuseUnseen(): Promise<void> {
    const { rows } = await this.#client.query<{ name: string; what: string; curable: string }>(
      `SELECT coalesce(n.nspname || '.' || c.relname, 'a dropped table') AS name, u.what,
         r.relation_id IS NOT NULL AND u.what !~ 'identity' AS curable
       FROM understudy.unseen_changes u
       LEFT JOIN pg_catalog.pg_class c ON c.oid = u.table_oid
       LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       LEFT JOIN understudy.relations r ON r.table_oid = c.oid LIMIT 1`,
    );
    const [unseen] = rows;
    if (unseen === undefined) return;
    const { name, what } = unseen;
    throw new UnderstudyError(
      'SCHEMA_CHANGED',
      `rows of the published table ${name} changed and were not sent: ${what}`,
      unseen.curable === 't'
        ? `Make the table on followers as it is here, then have its rows read anew: ` +
            `understudy resnapshot ${name}`
        : 'What was not sent cannot be caught up: destroy the cluster and init it again.',
    );
  }

  async #checkPublication(publication: string): Promise<void> {
    const state = await readPublicationState(this.#client, publication);
    if (state === 'whole') return;
    throw new UnderstudyError(
      'SCHEMA_CHANGED',
      state === 'missing'
        ? `the publication ${publication} was dropped`
        : `the publication ${publication} no longer publishes every change of its tables`,
      'What was not sent has to be read anew, with all tables: understudy resnapshot --all',
    );
  }

  #knownOf(oid: number): KnownRelation | undefined {
    return this.#known.find(({ tableOid }) => tableOid === oid);
  }

  async #enter(table: TableShape): Promise<KnownRelation> {
    const entered = this.#entering.then(() => this.#enterOnce(table));
    this.#entering = entered.then(
      () => undefined,
      () => undefined,
    );
    await entered;
    const known = this.#knownOf(table.oid);
    if (known !== undefined) return known;
    throw changed(displayName(table), 'it is published and could not enter the stream');
  }

  /** A new partition comes alone, and empty; a table that was added, with its rows. */
  async #enterOnce(table: TableShape): Promise<void> {
    if (this.#knownOf(table.oid) !== undefined) return;
    const parent = table.isPartition ? this.#knownOf(table.parentOid ?? 0) : undefined;
    if (parent !== undefined) {
      const keyless = parent.shape.identity.length === 0 ? 'append' : 'refuse';
      await this.#take(table, newShape(table, this.#usedIds(), keyless), false);
      return;
    }
    await this.#requireNewPublication(table);
    const tables = await readTables(this.#client, allTables);
    for (const added of withPartitions(rootOf(table, tables), tables)) {
      if (this.#knownOf(added.oid) !== undefined) continue;
      const shape = newShape(added, this.#usedIds(), 'refuse');
      await this.#take(added, shape, added.kind === 'ordinary');
    }
  }

  #usedIds(): Set<RelationId> {
    return new Set(this.#known.map(({ shape }) => shape.id));
  }

  async #take(table: TableShape, shape: RelationShape, isToRead: boolean): Promise<void> {
    await enterTable(this.#client, shape, table, isToRead);
    const known = await loadKnownRelations(this.#client);
    this.#known.push(...known.filter((one) => one.shape.id === shape.id));
    if (isToRead) this.#onEnter(shape.id);
  }

  async #requireNewPublication(table: TableShape): Promise<void> {
    const { rows } = await this.#client.query<{ version: string }>(
      `SELECT pg_catalog.current_setting('server_version_num') AS version`,
    );
    if (!keepsOldPublication(Number(rows[0]?.version))) return;
    throw new UnderstudyError(
      'PREREQUISITE',
      `${displayName(table)} was added to the publication, and this version of Postgres may ` +
        'leave out changes of it',
      'Install 15.13, 16.9, 17.5 or a later release of Postgres, then start the agent again.',
    );
  }
}

/** Rows would still find their table by its id, but a follower keeps the name of init. */
function renamed(shape: RelationShape, table: TableShape): string | null {
  if (shape.schema === table.schema && shape.name === table.name) return null;
  return `it is called ${displayName(table)} now`;
}

/** A column of the same name that came anew holds other values in every row, and no row says so. */
function recreated({ shape, attnums }: KnownRelation, table: TableShape): string | null {
  for (const { id, name } of shape.columns) {
    const column = table.columns.find((one) => one.name === name);
    const attnum = attnums.get(id);
    if (column === undefined || attnum === undefined || column.attnum === attnum) continue;
    return `its column ${name} was dropped and made again`;
  }
  return null;
}

/** Postgres sends values in the order of its own attnums, which may differ between nodes. */
function inTableOrder(shape: RelationShape, table: TableShape): RelationShape {
  const order = new Map(table.columns.map(({ name }, index) => [name, index]));
  const columns = [...shape.columns].sort(
    (a, b) => (order.get(a.name) ?? 0) - (order.get(b.name) ?? 0),
  );
  return { ...shape, columns };
}

/**
 * The message tells the table as it was at that place of the WAL, the catalog as it is now, or was:
 * a commit is decoded before it is seen. A type that is wider by its modifier alone would have its
 * values cut off by a follower. Under another identity an update of ours is no key change, and
 * comes without the old key. With FULL every column is marked, and the old row tells the key.
 */
export function messageDifference(message: RelationMessage, table: TableShape): string | null {
  const columns = table.columns.filter(({ generated }) => generated === 'no');
  const alike =
    columns.length === message.columns.length &&
    columns.every(({ name, typeOid, typeModifier }, i) => {
      const sent = message.columns[i];
      const isSameType = sent?.typeOid === typeOid && sent.typeModifier === typeModifier;
      return isSameType && sent.name === name;
    });
  if (!alike) return 'its columns were changed';
  if (message.replicaIdentity === 'f') return null;
  const identity = new Set(table.identityAttnums);
  const isSame = columns.every(({ attnum }, i) => {
    return message.columns[i]?.partOfKey === identity.has(attnum);
  });
  return isSame ? null : 'its identity was another for a while';
}

function changed(table: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `the published table ${table} is not as it was at init: ${what}`,
    'Schema changes are not replicated in this version: undo the change, or destroy the ' +
      'cluster and init it again.',
  );
}
