/**
 * The stream's tables as this node stores them in its `understudy` schema, so that a promoted node
 * continues with the same ids: relation shapes, and the tables and columns of this node that they
 * describe, by OID and attnum. An id that was used is never deleted here.
 */

import type { Client } from 'pg';
import type { ColumnId, RelationShape } from '../change/change.ts';
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

export async function loadKnownRelations(client: Client): Promise<KnownRelation[]> {
  const { rows } = await client.query<[string]>({
    text: `
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
      FROM understudy.relations r ORDER BY r.relation_id`,
    rowMode: 'array',
  });
  return rows.map(([json]) => knownRelationOf(JSON.parse(json) as KnownRelationRow));
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

/**
 * Saves the present shape. Its columns are matched with the table's by name once, here; afterwards
 * by OID and attnum. Call it in the transaction that creates or changes the table on this node.
 */
export async function saveRelation(
  client: Client,
  shape: RelationShape,
  table: TableShape | null,
): Promise<void> {
  if (shape.dropped && table !== null) {
    throw bug(`the dropped relation ${shape.id} cannot have a table`);
  }
  await client.query(
    `INSERT INTO understudy.relations AS r
       (relation_id, table_oid, schema_name, table_name, identity, dropped)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (relation_id) DO UPDATE SET
       table_oid = excluded.table_oid, schema_name = excluded.schema_name,
       table_name = excluded.table_name, identity = excluded.identity, dropped = excluded.dropped`,
    [shape.id, table?.oid ?? null, shape.schema, shape.name, shape.identity, shape.dropped],
  );
  await client.query(
    `UPDATE understudy.columns SET attnum = NULL, ordinal = NULL
     WHERE relation_id = $1 AND ordinal IS NOT NULL`,
    [shape.id],
  );
  const attnums = new Map(table?.columns.map((column) => [column.name, column.attnum]));
  const columns = shape.columns.map((column, ordinal) => ({
    ...column,
    attnum: attnums.get(column.name) ?? null,
    ordinal,
  }));
  await client.query(
    `INSERT INTO understudy.columns AS c
       (relation_id, column_id, attnum, name, type, nullable, missing, ordinal)
     SELECT $1, id, attnum, name, type, nullable, missing, ordinal
     FROM json_to_recordset($2) AS x
       (id text, attnum int2, name text, type text, nullable boolean, missing text, ordinal int)
     ON CONFLICT (relation_id, column_id) DO UPDATE SET
       attnum = excluded.attnum, name = excluded.name, type = excluded.type,
       nullable = excluded.nullable, missing = excluded.missing, ordinal = excluded.ordinal`,
    [shape.id, JSON.stringify(columns)],
  );
  await client.query('SELECT understudy.remember_types()');
}

/**
 * The table has another shape than the stream: its relation ends here, and the table enters as a
 * new one. In a transaction, and before any new relation takes one of these tables.
 */
export async function endRelation(
  client: Client,
  { shape, tableOid }: KnownRelation,
): Promise<void> {
  await saveRelation(client, { ...shape, dropped: true }, null);
  await client.query('SELECT understudy.forget_shape($1::oid)', [tableOid]);
}
