/**
 * The tables of the stream in a node's snapshot, ready to be read: every ordinary table of the
 * stream, with its columns by column id, locked so that no session rewrites or drops it while it is
 * read. After TRUNCATE and ALTER TABLE an older snapshot sees an empty table: a change between the
 * snapshot and the lock is detected and refused.
 */
import type { Client } from 'pg';
import { qualifiedName } from '../catalog/postgres-session.ts';
import { userTablesCondition } from '../catalog/read-catalog.ts';
import type { ColumnId, RelationId } from '../change/change.ts';
import { changedDuringVerify, identityColumnMissing } from '../errors/table.ts';
import { tableLockTimeout } from '../errors/timed-out.ts';

export interface PublishedTable {
  readonly relationId: RelationId;
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** Sorted by column id, so that nodes with another physical order read the same text. */
  readonly columns: readonly { readonly id: ColumnId; readonly name: string }[];
  /** Column ids of the replica identity, in the order of its index. */
  readonly identity: readonly ColumnId[];
  /** Pages of a heap; 0 where the table has to be read in one statement. */
  readonly pages: number;
}

interface TableRow extends PublishedTable {
  /** Rewritten, renamed or dropped by a transaction that is invisible in the snapshot. */
  readonly changed: boolean;
}

/** The catalog as the snapshot sees it, compared with its present state. */
const tablesQuery = `
  SELECT json_build_object(
    'relationId', r.relation_id, 'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname,
    'changed', c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)
      OR to_regclass(format('%I.%I', n.nspname, c.relname)) IS DISTINCT FROM c.oid::regclass,
    'pages', CASE WHEN m.amname = 'heap'
      THEN pg_relation_size(c.oid) / current_setting('block_size')::int ELSE 0 END,
    'identity', r.identity,
    'columns', (
      SELECT json_agg(json_build_object('id', k.column_id, 'name', a.attname)
        ORDER BY k.column_id COLLATE "C")
      FROM understudy.columns k
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum AND NOT a.attisdropped
      WHERE k.relation_id = r.relation_id AND k.ordinal IS NOT NULL))
  FROM understudy.relations r
  JOIN pg_class c ON c.oid = r.table_oid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_am m ON m.oid = c.relam
  WHERE NOT r.dropped AND c.relkind = 'r'
  ORDER BY r.relation_id COLLATE "C"`;

/** Names on this node, in the order of the given column ids. */
export function columnNames(table: PublishedTable, ids: readonly ColumnId[]): readonly string[] {
  const names = new Map(table.columns.map(({ id, name }) => [id, name]));
  return ids.map((id) => {
    const name = names.get(id);
    if (name !== undefined) return name;
    throw identityColumnMissing(`${table.schema}.${table.name}`, id);
  });
}

/** For a schema change that is running; a longer one is reported. */
const lockTimeoutMs = 10_000;

async function readTableRows(client: Client): Promise<TableRow[]> {
  const { rows } = await client.query<[string]>({ text: tablesQuery, rowMode: 'array' });
  return rows.map(([json]) => {
    const row = JSON.parse(json) as Omit<TableRow, 'columns'> & Partial<TableRow>;
    return { ...row, columns: row.columns ?? [] };
  });
}

export async function readPublishedTables(client: Client): Promise<readonly PublishedTable[]> {
  return readTableRows(client);
}

/** User tables with rows of their own that are not in the stream, as `schema.table`. */
export async function readOutsideTables(client: Client): Promise<readonly string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT format('%s.%s', n.nspname, c.relname) AS name
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE ${userTablesCondition} AND c.relkind = 'r' AND c.relpersistence <> 't'
       AND NOT EXISTS (
         SELECT FROM understudy.relations r WHERE r.table_oid = c.oid AND NOT r.dropped)
     ORDER BY 1`,
  );
  return rows.map(({ name }) => name);
}

/** Locks in the open transaction. Only schema changes and TRUNCATE wait for these locks. */
export async function lockTables(client: Client, tables: readonly PublishedTable[]): Promise<void> {
  if (tables.length === 0) return;
  const names = tables.map(({ schema, name }) => `ONLY ${qualifiedName(schema, name)}`);
  await client.query(`SET LOCAL lock_timeout = ${lockTimeoutMs}`);
  await explainChange(() => client.query(`LOCK TABLE ${names.join(', ')} IN ACCESS SHARE MODE`));
}

/** Reads the tables after they were locked, and refuses a changed or an additional one. */
export async function readLockedTables(
  client: Client,
  locked: readonly PublishedTable[],
): Promise<readonly PublishedTable[]> {
  const known = new Set(locked.map(({ oid }) => oid));
  const rows = await readTableRows(client);
  for (const { changed, oid, schema, name } of rows) {
    if (changed || !known.has(oid)) throw changedDuringVerify(`${schema}.${name}`);
  }
  return rows;
}

const undefinedTable = '42P01';
const undefinedColumn = '42703';
const invalidSchema = '3F000';
const lockNotAvailable = '55P03';

/**
 * Postgres resolves names in the present catalog, not in the snapshot's: a name that does not exist
 * was changed.
 */
export async function explainChange<Result>(step: () => Promise<Result>): Promise<Result> {
  try {
    return await step();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === undefinedTable || code === undefinedColumn || code === invalidSchema) {
      throw changedDuringVerify(null, error);
    }
    if (code === lockNotAvailable) {
      throw tableLockTimeout(lockTimeoutMs, error);
    }
    throw error;
  }
}
