/**
 * The stream's tables as this node stores them in its `understudy` schema, so that a promoted node
 * continues with the same ids: relation shapes, and the tables and columns of this node that they
 * describe, by OID and attnum. An id that was used is never deleted here.
 */

import { isDeepStrictEqual } from 'node:util';
import type { Client } from 'pg';
import type { ColumnId, RelationId, RelationShape } from '../change/change.ts';
import { type Lsn, parseLsn } from '../change/lsn.ts';
import { bug } from '../errors/bug.ts';
import type { TableShape } from './table.ts';

export interface KnownRelation {
  readonly shape: RelationShape;
  /** null where this node has no such table, for instance because it was dropped. */
  readonly tableOid: number | null;
  /** The end of the WAL when the table entered the stream with rows; null where it had none. */
  readonly enteredLsn: Lsn | null;
  readonly attnums: ReadonlyMap<ColumnId, number>;
  /** Including dropped columns: their ids are never reused. */
  readonly usedColumnIds: ReadonlySet<ColumnId>;
}

interface KnownColumnRow {
  readonly id: string;
  readonly attnum: number | null;
  readonly name: string;
  readonly type: string;
  readonly nullable: boolean;
  readonly missing: string | null;
  /** null for a dropped column. */
  readonly ordinal: number | null;
}

interface KnownRelationRow {
  readonly id: string;
  readonly tableOid: number | null;
  readonly schema: string;
  readonly name: string;
  readonly identity: readonly string[];
  readonly dropped: boolean;
  readonly enteredLsn: string | null;
  readonly columns: readonly KnownColumnRow[];
}

const relationsQuery = (condition: string): string => `
  SELECT json_build_object(
    'id', r.relation_id, 'tableOid', r.table_oid::bigint, 'schema', r.schema_name,
    'name', r.table_name, 'identity', r.identity, 'dropped', r.dropped,
    'enteredLsn', r.entered_lsn,
    'columns', (
      SELECT coalesce(json_agg(json_build_object(
        'id', c.column_id, 'attnum', c.attnum, 'name', c.name, 'type', c.type,
        'nullable', c.nullable, 'missing', c.missing, 'ordinal', c.ordinal)
        ORDER BY c.ordinal), '[]')
      FROM understudy.columns c WHERE c.relation_id = r.relation_id))
  FROM understudy.relations r ${condition}`;

export async function loadKnownRelations(client: Client): Promise<KnownRelation[]> {
  const { rows } = await client.query<[string]>({
    text: relationsQuery('ORDER BY r.relation_id'),
    rowMode: 'array',
  });
  return rows.map(([json]) => knownRelationOf(JSON.parse(json) as KnownRelationRow));
}

/** One of them; null for an id that this node does not know. */
export async function loadKnownRelation(
  client: Client,
  id: RelationId,
): Promise<KnownRelation | null> {
  const { rows } = await client.query<[string]>({
    name: 'understudy relation',
    text: relationsQuery('WHERE r.relation_id = $1'),
    values: [id],
    rowMode: 'array',
  });
  const [row] = rows;
  return row === undefined ? null : knownRelationOf(JSON.parse(row[0]) as KnownRelationRow);
}

/** Whether any relation of this node has ended. */
export async function hasEndedRelation(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ found: string }>(
    'SELECT EXISTS (SELECT FROM understudy.relations WHERE dropped) AS found',
  );
  return rows[0]?.found === 't';
}

function knownRelationOf(row: KnownRelationRow): KnownRelation {
  const present = row.columns.filter((column) => column.ordinal !== null);
  return {
    shape: {
      id: row.id,
      schema: row.schema,
      name: row.name,
      columns: present.map(({ id, name, type, nullable, missing }) => ({
        id,
        name,
        type,
        nullable,
        missing,
      })),
      identity: row.identity,
      dropped: row.dropped,
    },
    tableOid: row.tableOid,
    enteredLsn: row.enteredLsn === null ? null : parseLsn(row.enteredLsn),
    attnums: new Map(
      present.flatMap((column) => (column.attnum === null ? [] : [[column.id, column.attnum]])),
    ),
    usedColumnIds: new Set(row.columns.map((column) => column.id)),
  };
}

/** What a relation record says, and this node's table of it; null where it has none. */
interface RelationOfTable {
  readonly shape: RelationShape;
  readonly table: TableShape | null;
}

/** Whether saving it would change nothing. */
export function isSaved(known: KnownRelation | null, { shape, table }: RelationOfTable): boolean {
  if (known === null || known.tableOid !== (table?.oid ?? null)) return false;
  const attnums = new Map(table?.columns.map(({ name, attnum }) => [name, attnum]));
  return (
    isDeepStrictEqual(known.shape, shape) &&
    shape.columns.every(({ id, name }) => known.attnums.get(id) === attnums.get(name))
  );
}

/** Bounds the parameters of one statement. */
const savedAtOnceMax = 500;

/**
 * Saves the present shapes. Columns are matched with the table's by name once, here; afterwards by
 * OID and attnum. Call it in the transaction that creates or changes the tables on this node.
 */
export async function saveRelations(
  client: Client,
  relations: readonly RelationOfTable[],
): Promise<void> {
  for (let first = 0; first < relations.length; first += savedAtOnceMax) {
    await saveSome(client, relations.slice(first, first + savedAtOnceMax));
  }
}

async function saveSome(client: Client, relations: readonly RelationOfTable[]): Promise<void> {
  for (const { shape, table } of relations) {
    if (!shape.dropped || table === null) continue;
    throw bug(`the dropped relation ${shape.id} cannot have a table`);
  }
  const saved = relations.map(({ shape, table }) => {
    const { id, schema, name, identity, dropped } = shape;
    return { id, oid: table?.oid ?? null, schema, name, identity, dropped };
  });
  const ids = saved.map(({ id }) => id);
  await client.query(
    `INSERT INTO understudy.relations AS r
       (relation_id, table_oid, schema_name, table_name, identity, dropped)
     SELECT id, oid, schema, name, identity, dropped
     FROM json_to_recordset($1) AS x
       (id text, oid oid, schema text, name text, identity text[], dropped boolean)
     ON CONFLICT (relation_id) DO UPDATE SET
       table_oid = excluded.table_oid, schema_name = excluded.schema_name,
       table_name = excluded.table_name, identity = excluded.identity, dropped = excluded.dropped`,
    [JSON.stringify(saved)],
  );
  await client.query(
    `UPDATE understudy.columns SET attnum = NULL, ordinal = NULL
     WHERE relation_id = ANY ($1) AND ordinal IS NOT NULL`,
    [ids],
  );
  await client.query(
    `INSERT INTO understudy.columns AS c
       (relation_id, column_id, attnum, name, type, nullable, missing, ordinal)
     SELECT relation, id, attnum, name, type, nullable, missing, ordinal
     FROM json_to_recordset($1) AS x
       (relation text, id text, attnum int2, name text, type text, nullable boolean,
        missing text, ordinal int)
     ON CONFLICT (relation_id, column_id) DO UPDATE SET
       attnum = excluded.attnum, name = excluded.name, type = excluded.type,
       nullable = excluded.nullable, missing = excluded.missing, ordinal = excluded.ordinal`,
    [JSON.stringify(relations.flatMap(savedColumns))],
  );
  const oids = relations.flatMap(({ table }) => table?.oid ?? []);
  await client.query('SELECT understudy.remember_types($1)', [oids]);
}

function savedColumns({ shape, table }: RelationOfTable) {
  const attnums = new Map(table?.columns.map((column) => [column.name, column.attnum]));
  return shape.columns.map((column, ordinal) => ({
    ...column,
    relation: shape.id,
    attnum: attnums.get(column.name) ?? null,
    ordinal,
  }));
}

/**
 * The table has another shape than the stream: its relation ends here, and the table enters as a
 * new one. In a transaction, and before any new relation takes one of these tables.
 */
export async function endRelation(
  client: Client,
  { shape, tableOid }: KnownRelation,
): Promise<void> {
  await saveRelations(client, [{ shape: { ...shape, dropped: true }, table: null }]);
  await client.query('SELECT understudy.forget_shape($1::oid)', [tableOid]);
}
