/**
 * How this database finds a row by its key, and how it reads text as a value: for each key column
 * the operators of the identity's index, and for each column whether a cast from text is the type's
 * own input function. Our sessions have an empty search_path, so operators of an extension's type
 * have to be named with their schema. A row must be found exactly when the index takes its key for
 * equal, by its operator and its collation.
 */
import type { Client } from 'pg';
import { castFromText, identityWithoutOrder } from '../errors/table.ts';
import { quoteIdentifier } from './postgres-session.ts';
import { displayName, identityIndexOf, type TableShape, type UniqueIndex } from './table.ts';

export interface KeyOperators {
  /** As SQL takes it between two operands: `OPERATOR("public".=)`. */
  readonly equal: string;
  readonly less: string;
  readonly greater: string;
  /** As SQL takes it after COLLATE; null where the type has none. */
  readonly collation: string | null;
}

/** A cast may be a user's function; an element of an array always uses the input function. */
export type TextInput = 'cast' | 'array element';

export interface TableAccess {
  /** By attnum, of the identity's columns. */
  readonly keys: ReadonlyMap<number, KeyOperators>;
  /** Whether INSERT … ON CONFLICT accepts the identity's columns. */
  readonly upsertable: boolean;
  /** By attnum, of columns whose text is not simply cast. */
  readonly inputs: ReadonlyMap<number, TextInput>;
}

/** By the tables' OIDs. */
export async function readTableAccess(
  client: Client,
  tables: readonly TableShape[],
): Promise<ReadonlyMap<number, TableAccess>> {
  const oids = tables.map(({ oid }) => oid);
  const indexes = byTable(await readJson<IndexRow>(client, 'operators', operatorsQuery, oids));
  const casts = byTable(await readJson<CastRow>(client, 'casts', castsQuery, oids));
  const access = new Map<number, TableAccess>();
  for (const table of tables) {
    const identity = identityIndexOf(table.replicaIdentity, table.uniqueIndexes);
    const index = indexes.get(table.oid)?.find(({ name }) => name === identity?.name);
    const columns = index?.columns ?? [];
    access.set(table.oid, {
      keys: new Map(columns.map((row) => [row.attnum, operatorsOf(table, row)])),
      upsertable: identity !== null && index?.plain === true && !hasDeferrableTwin(table, identity),
      inputs: inputsOf(table, casts.get(table.oid) ?? []),
    });
  }
  return access;
}

interface KeyRow {
  readonly attnum: number;
  /** As SQL takes them; null where the index has no order. */
  readonly equal: string | null;
  readonly less: string | null;
  readonly greater: string | null;
  readonly collationSchema: string | null;
  readonly collation: string | null;
}

interface IndexRow {
  readonly tableOid: number;
  readonly name: string;
  readonly plain: boolean;
  readonly columns: readonly KeyRow[];
}

interface CastRow {
  readonly tableOid: number;
  readonly attnum: number;
  readonly type: string;
  readonly isElement: boolean;
}

/**
 * Strategies 1, 3 and 5 of a btree are less, equal and greater. Other kinds of unique index
 * (WITHOUT OVERLAPS, from PostgreSQL 18 on) number them otherwise: for those the default btree
 * operator class of the type is used.
 */
const operatorsQuery = `
  WITH used AS MATERIALIZED (
    SELECT x.indexrelid, k.n, x.indkey[k.n] AS attnum, x.indclass[k.n] AS class,
      x.indcollation[k.n] AS collation
    FROM pg_index x CROSS JOIN LATERAL generate_series(0, x.indnkeyatts - 1) AS k (n)
    WHERE x.indisunique AND x.indrelid = ANY ($1::oid[])
  ), operators AS MATERIALIZED (
    -- Of each operator class once: thousands of tables have few of them.
    SELECT oc.oid AS class, (
        SELECT array_agg(format('OPERATOR(%s.%s)', p.oprnamespace::regnamespace, p.oprname)
          ORDER BY f.amopstrategy)
        FROM pg_amop f JOIN pg_operator p ON p.oid = f.amopopr
        WHERE f.amopstrategy IN (1, 3, 5)
          AND f.amopfamily = CASE WHEN am.amname = 'btree' THEN oc.opcfamily ELSE d.opcfamily END
          AND f.amoplefttype = oc.opcintype AND f.amoprighttype = oc.opcintype) AS names
    FROM pg_opclass oc
    JOIN pg_am am ON am.oid = oc.opcmethod
    LEFT JOIN pg_opclass d ON am.amname <> 'btree' AND d.opcdefault
      AND d.opcintype = oc.opcintype
      AND d.opcmethod = (SELECT b.oid FROM pg_am b WHERE b.amname = 'btree')
    WHERE oc.oid IN (SELECT u.class FROM used u)
  ), keys AS (
    SELECT u.indexrelid, json_agg(json_build_object(
        'attnum', u.attnum, 'less', o.names[1], 'equal', o.names[2], 'greater', o.names[3],
        'collationSchema', cn.nspname, 'collation', c.collname) ORDER BY u.n) AS columns
    FROM used u
    JOIN operators o ON o.class = u.class
    LEFT JOIN pg_collation c ON c.oid = u.collation
    LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
    GROUP BY u.indexrelid
  )
  SELECT json_build_object(
    'tableOid', x.indrelid::bigint, 'name', ic.relname,
    -- ON CONFLICT refuses a table with rules for updates, even rules that do not fire.
    'plain', am.amname = 'btree' AND NOT x.indisexclusion AND NOT EXISTS (
      SELECT FROM pg_rewrite w WHERE w.ev_class = x.indrelid AND w.ev_type = '2'),
    'columns', k.columns)
  FROM keys k
  JOIN pg_index x ON x.indexrelid = k.indexrelid
  JOIN pg_class ic ON ic.oid = x.indexrelid
  JOIN pg_am am ON am.oid = ic.relam`;

/** Columns whose type, below any domains, has a cast from text that is a function. */
const castsQuery = `
  WITH RECURSIVE based AS (
    SELECT a.attrelid, a.attnum, a.atttypid AS type
    FROM pg_attribute a
    WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attrelid, b.attnum, t.typbasetype
    FROM based b JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd')
  SELECT json_build_object(
    'tableOid', b.attrelid::bigint, 'attnum', b.attnum, 'type', format_type(t.oid, NULL),
    'isElement', t.typarray <> 0 AND t.typdelim = ',')
  FROM based b
  JOIN pg_type t ON t.oid = b.type
  JOIN pg_cast c ON c.casttarget = t.oid AND c.castsource = 'text'::regtype AND c.castmethod = 'f'`;

/** One table is read for each of its relation records: the session plans the statement once. */
async function readJson<Row>(
  client: Client,
  what: string,
  text: string,
  oids: readonly number[],
): Promise<Row[]> {
  const name = oids.length === 1 ? { name: `understudy ${what} of a table` } : {};
  const { rows } = await client.query<[string]>({
    ...{ ...name, text, values: [oids] },
    rowMode: 'array',
  });
  return rows.map(([json]) => JSON.parse(json) as Row);
}

function byTable<Row extends { readonly tableOid: number }>(
  rows: readonly Row[],
): ReadonlyMap<number, readonly Row[]> {
  const tables = new Map<number, Row[]>();
  for (const row of rows) {
    const known = tables.get(row.tableOid);
    if (known === undefined) tables.set(row.tableOid, [row]);
    else known.push(row);
  }
  return tables;
}

function operatorsOf(table: TableShape, row: KeyRow): KeyOperators {
  const { equal, less, greater } = row;
  if (equal === null || less === null || greater === null) {
    throw identityWithoutOrder(displayName(table));
  }
  return {
    ...{ equal, less, greater },
    collation:
      row.collation === null
        ? null
        : `${quoteIdentifier(row.collationSchema ?? '')}.${quoteIdentifier(row.collation)}`,
  };
}

/** ON CONFLICT considers every unique index over the columns, and refuses a deferrable one. */
function hasDeferrableTwin(table: TableShape, identity: UniqueIndex): boolean {
  const columns = (index: UniqueIndex): string => [...new Set(index.attnums)].sort().join();
  return table.uniqueIndexes.some((index) => {
    return !index.immediate && columns(index) === columns(identity);
  });
}

function inputsOf(table: TableShape, own: readonly CastRow[]): Map<number, TextInput> {
  for (const { type, isElement } of own) {
    if (isElement) continue;
    throw castFromText(displayName(table), type);
  }
  return new Map(own.map(({ attnum }) => [attnum, 'array element']));
}
