/**
 * Reads what decides how tables without a usable identity can get one: the tables above and below
 * each, whether columns of its unique indexes hold NULL, and, when asked for, which columns no two
 * rows share. Every look at rows is bounded by a statement timeout, all of them by a time and the
 * last by the size of the table; what was not found out is unknown. No writer waits for it.
 */
import type { Client } from 'pg';
import {
  candidatesOf,
  type KeyFacts,
  nullableColumns,
  type TableTree,
} from '../../catalog/identity-ways.ts';
import { qualifiedName, quoteIdentifier } from '../../catalog/postgres-session.ts';
import type { TableShape } from '../../catalog/table.ts';
import { problemsOf } from '../../catalog/table-problems.ts';

/** A look at one table: an index or a scan of some hundred megabytes; a search sorts them. */
const lookMaxMs = 1_000;
const searchMaxMs = 10_000;
/** All looks together: a person waits for the answer. */
const looksMaxMs = 10_000;
/** All of them where the rows are searched, which is done on request. */
export const searchesMaxMs = 120_000;
/** A larger table is not searched for columns that are unique in it. */
const searchedBytesMax = 256 * 1024 ** 2;
/** Columns that are tried alone, and the first of them in pairs. */
const aloneMax = 12;
const pairedMax = 5;

const treeQuery = `
  SELECT json_build_object('oid', c.oid::bigint,
    'bytes', pg_relation_size(c.oid), 'isTyped', c.reloftype <> 0,
    'partitionColumns', coalesce((
      SELECT json_agg(DISTINCT a.attname) FROM keys k
      JOIN pg_attribute a ON a.attrelid = k.oid AND a.attnum = k.attnum
      WHERE k.root = c.oid), '[]'),
    'hasExpression', EXISTS (SELECT FROM keys k WHERE k.root = c.oid AND k.attnum = 0),
    'holdsNullThere', false,
    'parents', coalesce((
      SELECT json_agg(i.inhparent::bigint ORDER BY i.inhseqno)
      FROM pg_inherits i WHERE i.inhrelid = c.oid), '[]'),
    'hasChildren', EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid),
    'columnsBelow', coalesce((
      SELECT json_agg(DISTINCT a.attname) FROM below b JOIN pg_attribute a ON a.attrelid = b.oid
      WHERE b.root = c.oid AND a.attnum > 0), '[]'),
    'hasPrimaryBelow', EXISTS (
      SELECT FROM below b JOIN pg_index x ON x.indrelid = b.oid
      JOIN pg_class p ON p.oid = b.oid AND p.relispartition
      WHERE b.root = c.oid AND x.indisprimary))
  FROM pg_class c WHERE c.oid = ANY ($1::oid[])`;

const treesQuery = `
  WITH RECURSIVE below (root, oid) AS (
    SELECT inhparent, inhrelid FROM pg_inherits WHERE inhparent = ANY ($1::oid[])
    UNION SELECT b.root, i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid
  ), keys (root, oid, attnum) AS (
    SELECT t.root, t.oid, unnest((p.partattrs::int2[])[0:p.partnatts - 1])
    FROM (SELECT * FROM below UNION SELECT o, o FROM unnest($1::oid[]) AS o) AS t (root, oid)
    JOIN pg_partitioned_table p ON p.partrelid = t.oid)
  ${treeQuery}`;

type TreeRow = TableTree & { readonly oid: number; readonly bytes: number };

/** Of the tables without a usable identity, by OID. */
export async function readKeys(
  client: Client,
  tables: readonly TableShape[],
  searchesRows: boolean,
  nowMs: () => number,
): Promise<ReadonlyMap<number, KeyFacts>> {
  const lacking = new Map(
    tables.filter((table) => problemsOf(table).length > 0).map((table) => [table.oid, table]),
  );
  if (lacking.size === 0) return new Map();
  const { rows } = await client.query<[string]>({
    ...{ text: treesQuery, values: [[...lacking.keys()]], rowMode: 'array' },
  });
  const deadlineMs = nowMs() + (searchesRows ? searchesMaxMs : looksMaxMs);
  const mayLook = (): boolean => nowMs() < deadlineMs;
  await client.query(`SET statement_timeout = ${searchesRows ? searchMaxMs : lookMaxMs}`);
  const keys = new Map<number, KeyFacts>();
  for (const [json] of rows) {
    const { oid, bytes, ...tree } = JSON.parse(json) as TreeRow;
    const table = lacking.get(oid);
    if (table === undefined) continue;
    const nulls = new Map<string, 'none' | 'some' | 'unknown'>();
    for (const index of candidatesOf(table)) {
      const nullable = nullableColumns(table, index);
      const isLooked = nullable.length > 0 && mayLook();
      if (isLooked) nulls.set(index.name, await holdsNulls(client, table, tree, nullable));
    }
    const { partitionColumns } = tree;
    const holdsNullThere =
      partitionColumns.length > 0 &&
      mayLook() &&
      (await holdsNulls(client, table, tree, partitionColumns)) === 'some';
    const isSearched = searchesRows && mayLook() && Number(bytes) <= searchedBytesMax;
    const uniqueColumns = isSearched ? await searchColumns(client, table, tree) : [];
    keys.set(oid, { tree: { ...tree, holdsNullThere }, nulls, uniqueColumns });
  }
  await client.query('RESET statement_timeout');
  return keys;
}

/** SET NOT NULL is inherited, and so are partitions. */
function from(table: TableShape, { hasChildren }: TableTree): string {
  const only = hasChildren ? '' : 'ONLY ';
  return `FROM ${only}${qualifiedName(table.schema, table.name)}`;
}

async function holdsNulls(
  client: Client,
  table: TableShape,
  tree: TableTree,
  columns: readonly string[],
): Promise<'none' | 'some' | 'unknown'> {
  const isNull = columns.map((column) => `${quoteIdentifier(column)} IS NULL`);
  const found = await look(
    client,
    `SELECT EXISTS (SELECT ${from(table, tree)} WHERE ${isNull.join(' OR ')})::int`,
  );
  if (found === null) return 'unknown';
  return found[0] === '1' ? 'some' : 'none';
}

/** Types whose values are often keys, and for which = means the same in every index. */
const keyTypes =
  /^(smallint|integer|bigint|uuid|text|date|character varying(\(\d+\))?|timestamp .*)$/;

/** Columns without NULL first alone, then in pairs; of an empty table nothing is known. */
async function searchColumns(
  client: Client,
  table: TableShape,
  tree: TableTree,
): Promise<string[][]> {
  const columns = table.columns
    .filter(({ type, generated }) => generated === 'no' && keyTypes.test(type))
    .slice(0, aloneMax)
    .map(({ name }) => name);
  if (columns.length === 0) return [];
  const tail = from(table, tree);
  const counts = columns.flatMap((column) => {
    const name = quoteIdentifier(column);
    return [`count(${name})`, `count(DISTINCT ${name})`];
  });
  const alone = await look(client, `SELECT count(*), ${counts.join(', ')} ${tail}`);
  const rows = alone?.[0];
  if (alone === null || rows === undefined || rows === '0') return [];
  const full = columns.filter((_, at) => alone[2 * at + 1] === rows);
  const unique = columns.filter(
    (column, at) => full.includes(column) && alone[2 * at + 2] === rows,
  );
  if (unique.length > 0) return unique.slice(0, 1).map((column) => [column]);
  const paired = full.slice(0, pairedMax);
  for (const [at, first] of paired.entries()) {
    for (const second of paired.slice(at + 1)) {
      const pair = `${quoteIdentifier(first)}, ${quoteIdentifier(second)}`;
      const distinct = await look(client, `SELECT count(DISTINCT (${pair})) ${tail}`);
      if (distinct === null) return [];
      if (distinct[0] === rows) return [[first, second]];
    }
  }
  return [];
}

/** Cancelled by the timeout, locked, or not permitted. */
const notFoundOut: ReadonlySet<string> = new Set(['57014', '55P03', '42501']);

async function look(client: Client, text: string): Promise<string[] | null> {
  try {
    const { rows } = await client.query<string[]>({ text, rowMode: 'array' });
    return rows[0] ?? null;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (notFoundOut.has(code)) return null;
    throw error;
  }
}
