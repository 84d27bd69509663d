/**
 * Reads the shapes of tables, and the settings of the server that Understudy depends on. Everything
 * about tables is read by one statement, hence in one snapshot, and without a lock on them.
 */

import type { Client } from 'pg';
import { bug } from '../errors/bug.ts';
import { invalidTablePattern } from '../errors/usage.ts';
import {
  identityIndexOf,
  rootOf,
  type TableColumn,
  type TableShape,
  type UniqueIndex,
} from './table.ts';

/**
 * User tables: not of Postgres, not ours, not of an extension. The write guard covers the same
 * tables. The alias of pg_class is c, that of pg_namespace n.
 */
export const userTablesCondition = `
  c.relkind IN ('r', 'p')
  AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'understudy')
  AND NOT EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`;

/**
 * Of the index x: its operator families, without their schema, which the installer of an extension
 * chooses, and the locales of nondeterministic collations, whose names each database chooses. The
 * column of the locale has another name in each version from 15 to 17.
 */
const equalityQuery = `(
  SELECT json_agg(concat_ws(' ', f.opfname, s.locale) ORDER BY k.n)
  FROM generate_series(0, x.indnkeyatts - 1) AS k (n)
  JOIN pg_opclass o ON o.oid = x.indclass[k.n]
  JOIN pg_opfamily f ON f.oid = o.opcfamily
  LEFT JOIN LATERAL (
    SELECT concat_ws(' ', 'COLLATE', coalesce(to_jsonb(l) ->> 'colllocale',
      to_jsonb(l) ->> 'colliculocale', l.collcollate), to_jsonb(l) ->> 'collicurules') AS locale
    FROM pg_collation l
    WHERE l.oid = x.indcollation[k.n] AND NOT l.collisdeterministic) AS s ON true)`;

const tablesQuery = (condition: string): string => `
  SELECT json_build_object(
    'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
    'persistence', c.relpersistence, 'replicaIdentity', c.relreplident,
    'isPartition', c.relispartition,
    'parentOid', (SELECT i.inhparent::bigint FROM pg_inherits i
                  WHERE i.inhrelid = c.oid AND c.relispartition),
    'columns', (
      SELECT json_agg(json_build_object(
        'attnum', a.attnum, 'name', a.attname, 'typeOid', a.atttypid::bigint,
        'typeModifier', a.atttypmod,
        'type', format_type(a.atttypid, a.atttypmod), 'notNull', a.attnotnull,
        'generated', a.attgenerated, 'identity', a.attidentity) ORDER BY a.attnum)
      FROM pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'uniqueIndexes', (
      SELECT json_agg(json_build_object(
        'name', ic.relname, 'attnums', (x.indkey::int2[])[0:x.indnkeyatts - 1],
        'primary', x.indisprimary, 'immediate', x.indimmediate, 'valid', x.indisvalid,
        'partial', x.indpred IS NOT NULL, 'chosen', x.indisreplident,
        'equality', ${equalityQuery}) ORDER BY ic.relname)
      FROM pg_index x JOIN pg_class ic ON ic.oid = x.indexrelid
      WHERE x.indrelid = c.oid AND x.indisunique AND x.indislive))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE ${userTablesCondition} AND ${condition}
  ORDER BY n.nspname, c.relname`;

const allTablesQuery = tablesQuery('true');
const tableQuery = tablesQuery('c.oid = $1::oid');
const tableByNameQuery = tablesQuery('n.nspname = $1 AND c.relname = $2');
const treeQuery = tablesQuery(`c.oid IN (
  WITH RECURSIVE tree (oid) AS (
    SELECT coalesce(pg_partition_root($1::oid)::oid, $1::oid)
    UNION SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid)
  SELECT oid FROM tree)`);

interface TableRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: 'r' | 'p';
  readonly persistence: 'p' | 'u' | 't';
  readonly replicaIdentity: 'd' | 'i' | 'f' | 'n';
  readonly isPartition: boolean;
  readonly parentOid: number | null;
  readonly columns: readonly ColumnRow[] | null;
  readonly uniqueIndexes: readonly UniqueIndex[] | null;
}

interface ColumnRow extends Omit<TableColumn, 'generated' | 'identity'> {
  readonly generated: '' | 's' | 'v';
  readonly identity: '' | 'a' | 'd';
}

const persistences = { p: 'permanent', u: 'unlogged', t: 'temporary' } as const;
const replicaIdentities = { d: 'default', i: 'index', f: 'full', n: 'nothing' } as const;
const generatedKinds = { '': 'no', s: 'stored', v: 'virtual' } as const;
const identityKinds = { '': 'no', a: 'always', d: 'by default' } as const;

/** All user tables, by schema and name. There may be thousands: read one where one is meant. */
export async function readAllTables(client: Client): Promise<TableShape[]> {
  return (await readJson<TableRow>(client, allTablesQuery)).map(tableOf);
}

/** The tables that match any of the globs (`public.*`, `*.orders`), ordered by schema and name. */
export async function readTables(
  client: Client,
  patterns: readonly string[],
): Promise<TableShape[]> {
  return matchingTables(await readAllTables(client), patterns);
}

/** A partition matches when its own name or that of its root does. */
export function matchingTables(
  tables: readonly TableShape[],
  patterns: readonly string[],
): TableShape[] {
  const matches = patterns.map(compilePattern);
  const byOid = new Map(tables.map((table) => [table.oid, table]));
  return tables.filter((table) => {
    return [table, rootOf(table, byOid)].some((one) => matches.some((match) => match(one)));
  });
}

/** One user table, by one statement that the session plans once. */
export async function readTable(client: Client, oid: number): Promise<TableShape | undefined> {
  const name = 'understudy table';
  const [row] = await readJson<TableRow>(client, tableQuery, [oid], name);
  return row === undefined ? undefined : tableOf(row);
}

export async function readTableByName(
  client: Client,
  schema: string,
  name: string,
): Promise<TableShape | undefined> {
  const [row] = await readJson<TableRow>(client, tableByNameQuery, [schema, name]);
  return row === undefined ? undefined : tableOf(row);
}

/** The topmost partitioned table; the table itself where it is no partition. */
export async function readRoot(client: Client, table: TableShape): Promise<TableShape> {
  if (!table.isPartition || table.parentOid === null) return table;
  const parent = await readTable(client, table.parentOid);
  return parent === undefined ? table : await readRoot(client, parent);
}

/** The table with all tables of the partition tree that it belongs to. */
export async function readTree(client: Client, oid: number): Promise<TableShape[]> {
  return (await readJson<TableRow>(client, treeQuery, [oid])).map(tableOf);
}

function tableOf(row: TableRow): TableShape {
  const replicaIdentity = replicaIdentities[row.replicaIdentity];
  const uniqueIndexes = row.uniqueIndexes ?? [];
  return {
    oid: row.oid,
    schema: row.schema,
    name: row.name,
    kind: row.kind === 'r' ? 'ordinary' : 'partitioned',
    persistence: persistences[row.persistence],
    isPartition: row.isPartition,
    parentOid: row.parentOid,
    columns: (row.columns ?? []).map((column) => ({
      ...column,
      generated: generatedKinds[column.generated],
      identity: identityKinds[column.identity],
    })),
    uniqueIndexes,
    replicaIdentity,
    identityAttnums: identityIndexOf(replicaIdentity, uniqueIndexes)?.attnums ?? null,
  };
}

/** `schema.table`, where `*` matches any characters. The first dot separates the two. */
export function compilePattern(
  pattern: string,
): (table: { readonly schema: string; readonly name: string }) => boolean {
  const dot = pattern.indexOf('.');
  if (dot < 1 || dot === pattern.length - 1) {
    throw invalidTablePattern(pattern);
  }
  const schema = globOf(pattern.slice(0, dot));
  const name = globOf(pattern.slice(dot + 1));
  return (table) => schema.test(table.schema) && name.test(table.name);
}

function globOf(glob: string): RegExp {
  const parts = glob.split('*').map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 'su');
}

/** A statement with a name is planned once in a session. */
async function readJson<Row>(
  client: Client,
  text: string,
  values: unknown[] = [],
  name?: string,
): Promise<Row[]> {
  const named = name === undefined ? {} : { name };
  const { rows } = await client.query<[string]>({ ...named, text, values, rowMode: 'array' });
  return rows.map(([json]) => JSON.parse(json) as Row);
}

export interface ServerFacts {
  readonly systemId: string;
  readonly timeline: number;
  /** server_version_num: 150018. */
  readonly version: number;
  readonly walLevel: string;
  readonly inRecovery: boolean;
  readonly maxSlots: number;
  readonly usedSlots: number;
  readonly maxWalSenders: number;
  readonly databaseEncoding: string;
  readonly database: string;
  readonly currentUser: string;
  readonly isSuperuser: boolean;
  readonly canReplicate: boolean;
  readonly canSetReplicaRole: boolean;
}

/** has_parameter_privilege and the privilege that it checks exist from this version on. */
const parameterPrivilegesVersion = 150_000;

export async function readServer(client: Client): Promise<ServerFacts> {
  const { rows } = await client.query<[string]>({
    text: `SELECT current_setting('server_version_num')`,
    rowMode: 'array',
  });
  const hasParameterPrivileges = Number(rows[0]?.[0]) >= parameterPrivilegesVersion;
  const granted = hasParameterPrivileges
    ? `has_parameter_privilege('session_replication_role', 'SET')`
    : 'false';
  const [facts] = await readJson<ServerFacts>(
    client,
    `SELECT json_build_object(
       'systemId', (pg_control_system()).system_identifier::text,
       -- A promotion is in the WAL's name at once, in the control file at the next checkpoint.
       'timeline', CASE WHEN pg_is_in_recovery() THEN (pg_control_checkpoint()).timeline_id
         ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END,
       'version', current_setting('server_version_num')::int,
       'walLevel', current_setting('wal_level'),
       'inRecovery', pg_is_in_recovery(),
       'maxSlots', current_setting('max_replication_slots')::int,
       'usedSlots', (SELECT count(*) FROM pg_replication_slots),
       'maxWalSenders', current_setting('max_wal_senders')::int,
       'databaseEncoding', current_setting('server_encoding'),
       'database', current_database(), 'currentUser', current_user,
       'isSuperuser', r.rolsuper,
       'canReplicate', r.rolsuper OR r.rolreplication,
       'canSetReplicaRole', r.rolsuper OR ${granted})
     FROM pg_roles r WHERE r.rolname = current_user`,
  );
  if (facts === undefined) {
    throw bug('the server returned no current user');
  }
  return facts;
}
