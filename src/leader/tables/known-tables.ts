/**
 * The published tables as the leader knows them. Flows in: relation messages and this database's
 * catalog; flows out: the shape of each relation with its stream ids, columns in the order in which
 * Postgres sends them here. A table that is no longer what the stream says stops the leader; one
 * that is published now, or a new partition of one, gets its ids on first sight. One that is
 * published and has no key stays outside, and the WAL's changes of it have no shape.
 */

import type { Client } from 'pg';
import { readTableAccess } from '../../catalog/column-access.ts';
import { hasOneSpelling, keyedTableOf } from '../../catalog/key-lookup.ts';
import { type KnownRelation, loadKnownRelations } from '../../catalog/known-relations.ts';
import { readPublicationState } from '../../catalog/publication.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import { compareWithTable, newShape } from '../../catalog/relation-ids.ts';
import { displayName, rootOf, type TableShape } from '../../catalog/table.ts';
import type { RelationId, RelationShape } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import { bug } from '../../errors/bug.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { sleep } from '../../waiting.ts';
import type { RowKey } from '../backfill/row-overlay.ts';
import type { ReadableTable } from '../backfill/row-reader.ts';
import type { RelationMessage } from '../stream/pgoutput-decoder.ts';
import {
  enterTable,
  forgetToRead,
  keepsOldPublication,
  tablesToRead,
  unreadPartitions,
  withPartitions,
} from './entering-tables.ts';
import { type OutsideProblem, OutsideTables, problemOfTree } from './outside-tables.ts';
import {
  changed,
  inTableOrder,
  messageDifference,
  recreated,
  renamed,
} from './table-difference.ts';

const allTables = ['*.*'];
/** Together 5 s: far longer than from the record of a commit to its being seen. */
const visibleLooksMax = 100;
const visiblePauseMs = 50;

interface KnownTablesParts {
  readonly client: Client;
  readonly publication: string;
  /** Hears of tables whose rows are to be read, before any change of them. */
  readonly onEnter: (relationId: RelationId) => void;
  /** Hears of tables that are published and cannot enter the stream, each once. */
  readonly onOutside: (table: string, problem: OutsideProblem) => void;
}

/** What the stream does not have, by name. */
interface Uncovered {
  /** The configuration asks for them, and they came later. */
  readonly unpublished: readonly string[];
  readonly outside: readonly string[];
}

export class KnownTables {
  readonly #client: Client;
  readonly #parts: KnownTablesParts;
  readonly #byOid = new Map<number, RelationShape>();
  readonly #known: KnownRelation[];
  /** One after the other: two looks may see the same new table. */
  #entering: Promise<void> = Promise.resolve();
  /** Named as unfinished by points that can be read. */
  readonly #named = new Set<RelationId>();

  readonly #outside: OutsideTables;
  /** Published tables that were told to be outside. */
  readonly #told = new Set<number>();
  /** Relations whose last message was of no relation of the stream. */
  readonly #passedOver = new Set<number>();

  private constructor(parts: KnownTablesParts, known: KnownRelation[], outside: OutsideTables) {
    this.#client = parts.client;
    this.#parts = parts;
    this.#known = known;
    this.#outside = outside;
  }

  static async open(parts: KnownTablesParts): Promise<KnownTables> {
    const { client, onEnter } = parts;
    const outside = await OutsideTables.open(client);
    const tables = new KnownTables(parts, await loadKnownRelations(client), outside);
    for (const relation of await tablesToRead(client)) onEnter(relation);
    return tables;
  }

  /** A point that can be read says that these are unfinished. */
  named(relations: readonly RelationId[]): void {
    for (const relation of relations) this.#named.add(relation);
  }

  /**
   * Takes a relation message before its rows, in a transaction that commits at `commitLsn`:
   * compares, or gives ids to a table that is new. What it was before it could enter the stream is
   * passed over: every transaction that commits below is seen by whoever reads its rows.
   */
  async learn(message: RelationMessage, commitLsn: Lsn): Promise<void> {
    const table = await this.#tableOf(message.oid);
    const known =
      this.#knownOf(message.oid) ?? (table === undefined ? null : await this.#enter(table));
    if (known === null) {
      this.#requireOutside(message, table);
      this.#passedOver.add(message.oid);
      return;
    }
    const name = `${known.shape.schema}.${known.shape.name}`;
    if (table === undefined) throw changed(name, 'it was dropped');
    const { shape, enteredLsn } = known;
    const difference =
      renamed(shape, table) ?? recreated(known, table) ?? compareWithTable(shape, table);
    if (difference !== null) throw changed(name, difference);
    const sent = messageDifference(message, table);
    const isBefore = enteredLsn !== null && commitLsn < enteredLsn;
    if (sent !== null && !isBefore) throw changed(name, sent);
    if (sent === null) this.#passedOver.delete(message.oid);
    else this.#passedOver.add(message.oid);
    this.#byOid.set(message.oid, inTableOrder(shape, table));
  }

  /** Else it may have been a partition, whose rows belong to a table of the stream. */
  #requireOutside({ oid, schema, name }: RelationMessage, table: TableShape | undefined): void {
    if (this.#outside.has(oid)) return;
    const what = table === undefined ? 'it was dropped' : 'it is not published any more';
    throw changed(`${schema}.${name}`, what);
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

  /** The shape of a relation that `learn` has taken; null where it is outside of the stream. */
  shapeOf(message: RelationMessage): RelationShape | null {
    if (this.#passedOver.has(message.oid)) return null;
    const shape = this.#byOid.get(message.oid);
    if (shape !== undefined) return shape;
    throw bug(`${message.name} was not learnt`);
  }

  /**
   * Looks whether the published tables are still those of the stream: one that was dropped and made
   * again would go on under the old id with rows that no delete ever removed.
   */
  async check(patterns: readonly string[]): Promise<Uncovered> {
    const { publication } = this.#parts;
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
    const outside: string[] = [];
    for (const table of tables) {
      if (!published.has(table.oid) || this.#knownOf(table.oid) !== undefined) continue;
      if ((await this.#enter(table)) === null) outside.push(displayName(table));
    }
    const unread = await unreadPartitions(this.#client);
    for (const table of tables) {
      if (unread.has(table.oid) && this.#knownOf(table.oid) === undefined) await this.#enter(table);
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
    return { unpublished: missing.map(displayName), outside };
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

  /** Null where it cannot be in the stream. */
  async #enter(table: TableShape): Promise<KnownRelation | null> {
    const entered = this.#entering.then(() => this.#enterOnce(table));
    this.#entering = entered.then(
      () => undefined,
      () => undefined,
    );
    await entered;
    return this.#knownOf(table.oid) ?? null;
  }

  /**
   * A new partition comes alone, and empty, unless its root was read anew without it; a table that
   * was added, with its rows.
   */
  async #enterOnce(table: TableShape): Promise<void> {
    if (this.#knownOf(table.oid) !== undefined) return;
    const parent = table.isPartition ? this.#knownOf(table.parentOid ?? 0) : undefined;
    if (parent !== undefined) {
      const keyless = parent.shape.identity.length === 0 ? 'append' : 'refuse';
      const isToRead =
        table.kind === 'ordinary' && (await unreadPartitions(this.#client)).has(table.oid);
      await this.#take(table, newShape(table, this.#usedIds(), keyless), isToRead);
      return;
    }
    if (!(await this.#isPublished(table))) return;
    const tables = await readTables(this.#client, allTables);
    const tree = withPartitions(rootOf(table, tables), tables);
    const problem = problemOfTree(tree) ?? (await this.#oldPublicationProblem(table));
    if (problem !== null) {
      await this.#outside.add(tree);
      if (!this.#told.has(table.oid)) this.#parts.onOutside(displayName(table), problem);
      this.#told.add(table.oid);
      return;
    }
    for (const added of tree) {
      if (this.#knownOf(added.oid) !== undefined) continue;
      const shape = newShape(added, this.#usedIds(), 'refuse');
      await this.#take(added, shape, added.kind === 'ordinary');
    }
    await this.#outside.remove(tree);
  }

  /** Itself, or what it is a partition of. */
  async #isPublished({ oid }: TableShape): Promise<boolean> {
    const { rows } = await this.#client.query(
      `SELECT FROM pg_catalog.pg_publication_rel r
       JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
       WHERE p.pubname = $1 AND (r.prrelid = $2::oid OR r.prrelid IN (
         SELECT relid FROM pg_catalog.pg_partition_ancestors($2::oid::regclass)))`,
      [this.#parts.publication, oid],
    );
    return rows.length > 0;
  }

  #usedIds(): Set<RelationId> {
    return new Set(this.#known.map(({ shape }) => shape.id));
  }

  async #take(table: TableShape, shape: RelationShape, isToRead: boolean): Promise<void> {
    await enterTable(this.#client, shape, table, isToRead);
    const known = await loadKnownRelations(this.#client);
    this.#known.push(...known.filter((one) => one.shape.id === shape.id));
    if (isToRead) this.#parts.onEnter(shape.id);
  }

  async #oldPublicationProblem(table: TableShape): Promise<OutsideProblem | null> {
    const { rows } = await this.#client.query<{ version: string }>(
      `SELECT pg_catalog.current_setting('server_version_num') AS version`,
    );
    if (!keepsOldPublication(Number(rows[0]?.version))) return null;
    return {
      message:
        `${displayName(table)} was added to the publication, and this version of Postgres may ` +
        'leave out changes of it',
      hint: 'Install 15.13, 16.9, 17.5 or a later release of Postgres, then start the agent again.',
    };
  }
}
