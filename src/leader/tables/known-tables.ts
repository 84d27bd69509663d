/**
 * The published tables as the leader knows them. Flows in: relation messages and this database's
 * catalog; flows out: the shape of each relation with its stream ids, columns in the order in which
 * Postgres sends them here. A table that is no longer what the stream says stops the leader; one
 * that is newly published, or a new partition, gets its ids when it is first seen. One that is
 * published and has no key stays outside the stream, and its changes in the WAL have no shape.
 */

import type { Client } from 'pg';
import { readTableAccess } from '../../catalog/column-access.ts';
import { hasOneSpelling, type KeyedTable, keyedTableOf } from '../../catalog/key-lookup.ts';
import {
  type KnownRelation,
  loadKnownRelation,
  loadKnownRelations,
} from '../../catalog/known-relations.ts';
import { readPublicationState } from '../../catalog/publication.ts';
import { matchingTables, readAllTables, readTable, readTree } from '../../catalog/read-catalog.ts';
import { compareWithTable, newShape } from '../../catalog/relation-ids.ts';
import { readSchemaChanges, type SchemaChange } from '../../catalog/schema-changes.ts';
import { displayName, rootOf, type TableShape } from '../../catalog/table.ts';
import type { RelationId, RelationShape, RowKey } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import { bug } from '../../errors/bug.ts';
import {
  changesNotSent,
  publicationChanged,
  tableChanged,
  tableNotPublished,
} from '../../errors/table.ts';
import { keyOfNoRow } from '../../errors/usage.ts';
import { sleep } from '../../waiting.ts';
import type { RelationMessage } from '../stream/pgoutput-decoder.ts';
import type { StreamTables } from '../stream/stages.ts';
import {
  enterTable,
  forgetToRead,
  oldPublicationProblem,
  tablesToRead,
  unreadPartitions,
  withPartitions,
} from './entering-tables.ts';
import { type OutsideProblem, OutsideTables, problemOfTree } from './outside-tables.ts';
import {
  inTableOrder,
  isSameOrder,
  messageDifference,
  recreated,
  renamed,
} from './table-difference.ts';

/** Together 5 s: far longer than a commit takes from its record in the WAL to being visible. */
const visiblePollsMax = 100;
const visiblePollMs = 50;

interface KnownTablesParts {
  readonly client: Client;
  readonly publication: string;
  /** Called for tables that need a backfill, before any change of them. */
  readonly onEnter: (relationId: RelationId) => void;
  /** Called for tables that are published and cannot enter the stream, once for each. */
  readonly onOutside: (table: string, problem: OutsideProblem) => void;
}

/** A table of the stream, as it is read here. */
export interface ReadableTable {
  readonly oid: number;
  readonly shape: RelationShape;
  readonly keyed: KeyedTable;
  /** Whether equal keys always have the same text. */
  readonly hasOneSpelling: boolean;
}

/** Tables that are not in the stream, by name, and changes of those that are. */
interface Checked {
  /** They match the configuration and are not published. */
  readonly unpublished: readonly string[];
  /** They are published and cannot enter the stream. */
  readonly outside: readonly string[];
  /** What the stream cannot carry, and does not stop it before the next row. */
  readonly changes: readonly SchemaChange[];
}

export class KnownTables implements StreamTables {
  readonly #client: Client;
  readonly #parts: KnownTablesParts;
  /** The last shape of each table that was compared with the catalog. */
  readonly #byOid = new Map<number, RelationShape>();
  readonly #known = new Map<RelationId, KnownRelation>();
  readonly #knownByOid = new Map<number, KnownRelation>();
  /** One after the other: `learn` and `check` may find the same new table. */
  #entering: Promise<void> = Promise.resolve();
  /** Named as unfinished by points that can be read. */
  readonly #named = new Set<RelationId>();
  readonly #outside: OutsideTables;
  /** Tables for which `onOutside` was called. */
  readonly #reported = new Set<number>();
  /** Relations whose changes are left out, as of their last message. */
  readonly #leftOut = new Set<number>();

  private constructor(parts: KnownTablesParts, known: KnownRelation[], outside: OutsideTables) {
    this.#client = parts.client;
    this.#parts = parts;
    for (const relation of known) this.#remember(relation);
    this.#outside = outside;
  }

  static async open(parts: KnownTablesParts): Promise<KnownTables> {
    const { client, onEnter } = parts;
    const outside = await OutsideTables.open(client);
    const tables = new KnownTables(parts, await loadKnownRelations(client), outside);
    for (const relation of await tablesToRead(client)) onEnter(relation);
    return tables;
  }

  /** A point that can be read names these as unfinished. */
  named(relations: readonly RelationId[]): void {
    for (const relation of relations) this.#named.add(relation);
  }

  /**
   * A relation message precedes its rows, in a transaction that commits at `commitLsn`. A form that
   * the table had before it could enter the stream is left out: the reads of its backfill see every
   * transaction that commits below that LSN.
   */
  async learn(message: RelationMessage, commitLsn: Lsn): Promise<void> {
    const table = await this.#tableOf(message.oid);
    const known =
      this.#knownOf(message.oid) ?? (table === undefined ? null : await this.#enter(table));
    if (known === null) {
      this.#requireOutside(message, table);
      this.#leftOut.add(message.oid);
      return;
    }
    const name = `${known.shape.schema}.${known.shape.name}`;
    if (table === undefined) throw tableChanged(name, 'it was dropped');
    const { shape, enteredLsn } = known;
    const difference =
      renamed(shape, table) ?? recreated(known, table) ?? compareWithTable(shape, table);
    if (difference !== null) throw tableChanged(name, difference);
    const sent = messageDifference(message, table);
    // rule: skipped-only-before-entry
    const isBefore = enteredLsn !== null && commitLsn < enteredLsn;
    if (sent !== null && !isBefore) throw tableChanged(name, sent);
    if (sent === null) this.#leftOut.delete(message.oid);
    else this.#leftOut.add(message.oid);
    this.#shapeHere(known, table);
  }

  /** Any other table may have been a partition, whose rows belong to a table of the stream. */
  #requireOutside({ oid, schema, name }: RelationMessage, table: TableShape | undefined): void {
    if (this.#outside.has(oid)) return;
    const what = table === undefined ? 'it was dropped' : 'it is no longer published';
    throw tableChanged(`${schema}.${name}`, what);
  }

  /** A commit is decoded before other sessions see it, and so is a table that it created. */
  async #tableOf(oid: number): Promise<TableShape | undefined> {
    for (let polls = 1; ; polls += 1) {
      const table = await readTable(this.#client, oid);
      if (table !== undefined || polls === visiblePollsMax) return table;
      await sleep(visiblePollMs);
    }
  }

  /**
   * Throws if no row of the stream can have this key: it would be read in vain, again and again.
   */
  requireKey({ relationId, identity }: RowKey): void {
    const shape = this.#known.get(relationId)?.shape;
    if (shape !== undefined && shape.identity.length === identity.length && identity.length > 0) {
      return;
    }
    throw keyOfNoRow(relationId, identity.length);
  }

  /** The OID of the relation's table here; null for one that this node never had. */
  oidOf(relationId: RelationId): number | null {
    return this.#known.get(relationId)?.tableOid ?? null;
  }

  /**
   * How the rows of a relation are read here, whether or not the stream has any of them yet; null
   * for a relation that this node never had.
   */
  async readable(relationId: RelationId): Promise<ReadableTable | null> {
    const known = this.#known.get(relationId);
    if (known === undefined || known.shape.dropped) return null;
    const table = await this.#present(known);
    if (table === undefined) throw tableChanged(relationId, 'it was dropped');
    const difference = compareWithTable(known.shape, table);
    if (difference !== null) throw tableChanged(displayName(table), difference);
    const shape = this.#shapeHere(known, table);
    const access = await readTableAccess(this.#client, [table]);
    const keyed = keyedTableOf(shape, table, access.get(table.oid));
    return { oid: table.oid, shape, keyed, hasOneSpelling: hasOneSpelling(keyed) };
  }

  /**
   * A relation with a key, and with rows of its own: those of a partitioned table are elsewhere; or
   * one that has ended, of which the stream says no more than that.
   */
  async forResnapshot(relationId: RelationId): Promise<RelationShape | null> {
    const known = this.#known.get(relationId);
    if (known?.shape.dropped === true) return known.shape;
    if (known === undefined || known.shape.identity.length === 0) return null;
    if ((await this.#present(known))?.kind === 'partitioned') return null;
    return (await this.readable(relationId))?.shape ?? null;
  }

  /** Of every table that is as the stream knows it, whether or not a row of it was streamed. */
  async shapes(): Promise<RelationShape[]> {
    return (await readAllTables(this.#client)).flatMap((table) => {
      const known = this.#knownOf(table.oid);
      if (known === undefined || table.kind === 'partitioned') return [];
      const isSame = compareWithTable(known.shape, table) === null;
      return isSame ? [this.#shapeHere(known, table)] : [];
    });
  }

  shapeOf(message: RelationMessage): RelationShape | null {
    if (this.#leftOut.has(message.oid)) return null;
    const shape = this.#byOid.get(message.oid);
    if (shape !== undefined) return shape;
    throw bug(`no relation message of ${message.name} was compared with the catalog`);
  }

  /**
   * Checks that the published tables are still those of the stream: one that was dropped and
   * re-created would continue under the old id, with rows that no delete ever removed.
   */
  async check(patterns: readonly string[]): Promise<Checked> {
    const { publication } = this.#parts;
    // A partition that enters during this check is not in what was read from the catalog before.
    const present = [...this.#known.values()];
    const tables = await readAllTables(this.#client);
    const { rows } = await this.#client.query<{ oid: string }>(
      `SELECT r.prrelid::bigint AS oid FROM pg_catalog.pg_publication_rel r
       JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1`,
      [publication],
    );
    const published = new Set(rows.map(({ oid }) => Number(oid)));
    await this.#checkPublication(publication);
    await this.#refuseUnsent();
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
    const byOid = new Map(tables.map((table) => [table.oid, table]));
    for (const known of present) {
      const { shape, tableOid } = known;
      if (shape.dropped) continue;
      const table = byOid.get(tableOid ?? 0);
      const name = `${shape.schema}.${shape.name}`;
      if (table === undefined)
        throw tableChanged(name, 'it was dropped, or dropped and re-created');
      const difference = renamed(shape, table) ?? recreated(known, table);
      if (difference !== null) throw tableChanged(name, difference);
      if (!published.has(table.oid) && !table.isPartition) {
        throw tableNotPublished(name, publication);
      }
    }
    const changes = await readSchemaChanges(this.#client);
    const [stop] = changes.filter(({ atOnce }) => atOnce);
    // rule: attached-table-stops
    if (stop !== undefined) throw tableChanged(stop.table, stop.what);
    const missing = matchingTables(tables, patterns).filter(({ oid, persistence, isPartition }) => {
      return persistence === 'permanent' && !isPartition && !published.has(oid);
    });
    return { unpublished: missing.map(displayName), outside, changes };
  }

  /** Changes of rows without a row message, as the event triggers have recorded them. */
  async #refuseUnsent(): Promise<void> {
    const { rows } = await this.#client.query<{
      name: string;
      what: string;
      cure: 'table' | 'all' | 'none';
    }>(
      `SELECT coalesce(n.nspname || '.' || c.relname, 'a dropped table') AS name, u.what,
         CASE WHEN r.relation_id IS NULL OR u.what ~ 'identity' THEN 'none'
           WHEN EXISTS (SELECT FROM understudy.altered_tables() a
             WHERE a.relation_id = r.relation_id) THEN 'all'
           ELSE 'table' END AS cure
       FROM understudy.unseen_changes u
       LEFT JOIN pg_catalog.pg_class c ON c.oid = u.table_oid
       LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       LEFT JOIN understudy.relations r ON r.table_oid = c.oid LIMIT 1`,
    );
    const [unsent] = rows;
    if (unsent === undefined) return;
    throw changesNotSent(unsent.name, unsent.what, unsent.cure);
  }

  async #checkPublication(publication: string): Promise<void> {
    const state = await readPublicationState(this.#client, publication);
    if (state === 'whole') return;
    throw publicationChanged(
      publication,
      state === 'missing' ? 'was dropped' : 'no longer publishes every change of its tables',
    );
  }

  #knownOf(oid: number): KnownRelation | undefined {
    return this.#knownByOid.get(oid);
  }

  #remember(relation: KnownRelation): void {
    this.#known.set(relation.shape.id, relation);
    const { tableOid } = relation;
    if (tableOid === null || this.#knownByOid.has(tableOid)) return;
    this.#knownByOid.set(tableOid, relation);
  }

  /** The shape as the table has it: the same object for as long as it is the same shape. */
  #shapeHere({ shape }: KnownRelation, table: TableShape): RelationShape {
    const before = this.#byOid.get(table.oid);
    const now = inTableOrder(shape, table);
    if (before?.id === now.id && isSameOrder(before, now)) return before;
    this.#byOid.set(table.oid, now);
    return now;
  }

  /** The table of a known relation as it is now; undefined where it was dropped. */
  async #present({ tableOid }: KnownRelation): Promise<TableShape | undefined> {
    return tableOid === null ? undefined : await readTable(this.#client, tableOid);
  }

  /** Null if the table cannot enter the stream. */
  async #enter(table: TableShape): Promise<KnownRelation | null> {
    const entered = this.#entering.then(() => this.#enterOnce(table));
    // The failure is thrown below; the next table does not depend on it.
    this.#entering = entered.catch(() => undefined);
    await entered;
    return this.#knownOf(table.oid) ?? null;
  }

  /**
   * A new partition enters alone, and empty, unless a resnapshot of its root was done without it; a
   * table that was added enters with its rows.
   */
  async #enterOnce(table: TableShape): Promise<void> {
    if (this.#knownOf(table.oid) !== undefined) return;
    const parent = table.isPartition ? this.#knownOf(table.parentOid ?? 0) : undefined;
    if (parent !== undefined) {
      const keyless = parent.shape.identity.length === 0 ? 'append' : 'refuse';
      // rule: new-partition-is-backfilled
      const isToRead =
        table.kind === 'ordinary' && (await unreadPartitions(this.#client)).has(table.oid);
      await this.#take(table, newShape(table, new Set(this.#known.keys()), keyless), isToRead);
      return;
    }
    if (!(await this.#isPublished(table))) return;
    const tables = await readTree(this.#client, table.oid);
    const byOid = new Map(tables.map((one) => [one.oid, one]));
    const tree = withPartitions(rootOf(table, byOid), tables);
    const problem = problemOfTree(tree) ?? (await oldPublicationProblem(this.#client, table));
    if (problem !== null) {
      await this.#outside.add(tree);
      if (!this.#reported.has(table.oid)) this.#parts.onOutside(displayName(table), problem);
      this.#reported.add(table.oid);
      return;
    }
    for (const added of tree) {
      if (this.#knownOf(added.oid) !== undefined) continue;
      const shape = newShape(added, new Set(this.#known.keys()), 'refuse');
      // rule: later-table-is-backfilled
      await this.#take(added, shape, added.kind === 'ordinary');
    }
    await this.#outside.remove(tree);
  }

  /** Whether it, or what it is a partition of, is published. */
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

  async #take(table: TableShape, shape: RelationShape, isToRead: boolean): Promise<void> {
    await enterTable(this.#client, shape, table, isToRead);
    const known = await loadKnownRelation(this.#client, shape.id);
    if (known !== null) this.#remember(known);
    if (isToRead) this.#parts.onEnter(shape.id);
  }
}
