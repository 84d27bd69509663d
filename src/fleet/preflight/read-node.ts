/**
 * Reads the facts that a preflight judges of one node: its server, its database, the permissions of
 * its role, and its tables; or throws the one error that prevented it. Nothing is changed or
 * created, and no writer ever waits for it.
 */
import type { Client } from 'pg';
import type { KeyFacts } from '../../catalog/identity-ways.ts';
import { loadKnownRelations } from '../../catalog/known-relations.ts';
import { connectPostgres } from '../../catalog/postgres-session.ts';
import {
  matchingTables,
  readAllTables,
  readServer,
  type ServerFacts,
  userTablesCondition,
} from '../../catalog/read-catalog.ts';
import { closedSequences } from '../../catalog/sequences.ts';
import type { TableShape } from '../../catalog/table.ts';
import { type NodeIdentity, readNode } from '../../catalog/understudy-schema.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { maintenanceDatabaseUnusable, serverSilent } from '../../errors/unreachable.ts';
import { type IdleSlot, readIdleSlots } from '../../leader/stream/slot.ts';
import { slotPattern } from '../../topic/records/layout.ts';
import { withTimeout } from '../../waiting.ts';
import type { ReachedDatabase } from '../node/judge-database.ts';
import { readReachedDatabase } from '../node/reached-database.ts';
import { type TypesByName, typesOfDatabase } from './judge-types.ts';
import { readKeys, searchesMaxMs } from './read-keys.ts';

export interface NodeFacts {
  readonly name: string;
  readonly server: ServerFacts;
  readonly database: CheckedDatabase;
  /** Whether the role may create event triggers; plain Postgres allows superusers only. */
  readonly canCreateEventTriggers: boolean;
  /** The node that the database records itself to be; null before init. */
  readonly identity: NodeIdentity | null;
  /** To compare with the one that the control log knows. */
  readonly reached: ReachedDatabase;
  /** This cluster's slots on the server that have no reader. */
  readonly idleSlots: readonly IdleSlot[];
  /** OIDs of the tables that are in the stream; null before init. */
  readonly streamed: ReadonlySet<number> | null;
  readonly types: TypesByName;
  /** Every user table, and those that the configuration names. */
  readonly allTables: readonly TableShape[];
  readonly matchedTables: readonly TableShape[];
  /** Of those without a usable identity, and of the tables that they are partitions of, by OID. */
  readonly keys: ReadonlyMap<number, KeyFacts>;
}

export interface CheckedDatabase {
  readonly oid: number;
  /** With the system identifier it distinguishes a server from its physical copy. */
  readonly serverStartedAt: string;
  readonly collate: string;
  readonly ctype: string;
  readonly provider: string;
  readonly locale: string | null;
  readonly ownsDatabase: boolean;
  readonly canCreate: boolean;
  readonly readsAllStats: boolean;
  readonly bypassesRowSecurity: boolean;
  readonly foreignWalSenders: number;
  readonly hasOwnSlot: boolean;
  /** max_slot_wal_keep_size; null is no limit. */
  readonly slotKeepBytes: number | null;
  readonly maxWalBytes: number;
  /** PostgreSQL 18 on; null before. */
  readonly slotIdleTimeout: string | null;
  readonly preparedTransactions: readonly string[];
  /** Sequences that the role may not read, or not set. */
  readonly closedSequences: readonly string[];
  readonly notOwned: readonly { readonly table: string; readonly owner: string }[];
  readonly forcedRowSecurity: readonly string[];
  /** The expression of each generated column, by the OID of its table. */
  readonly generated: readonly {
    readonly tableOid: number;
    readonly column: string;
    readonly expression: string;
  }[];
  /** Triggers and rules that fire under the replica role too. */
  readonly firingTriggers: readonly {
    readonly kind: 'trigger' | 'rule';
    readonly table: string;
    readonly trigger: string;
  }[];
}

/** The first version with the parameter privileges and publication features that are needed. */
export const versionMin = 150_000;

/** A user waits for the answer; a server that is up takes milliseconds. */
const connectTimeoutMs = 5_000;
/** Catalogs of ten thousand tables are read within a second. */
const readMaxMs = 30_000;
/** A table that is being rewritten is not waited for. */
const rowLockMaxMs = 500;

export interface NodeTarget {
  readonly node: string;
  readonly url: string;
  readonly cluster: string;
  readonly tables: readonly string[];
  readonly maintenanceDatabase: string;
  /** Whether rows are searched for columns that identify them. */
  readonly findsKeys: boolean;
  readonly nowMs: () => number;
}

/** Of an older server only the version is read: the other queries need newer SQL. */
type NodeReading =
  | { readonly kind: 'too old'; readonly server: ServerFacts }
  | { readonly kind: 'read'; readonly facts: NodeFacts };

export async function readNodeFacts(target: NodeTarget): Promise<NodeReading> {
  const client = await connectPostgres(target.url, sessionOptions(target.node));
  try {
    const maxMs = readMaxMs + (target.findsKeys ? searchesMaxMs : 0);
    return await withTimeout(readFacts(client, target), maxMs, () => {
      return serverSilent(target.node, maxMs);
    });
  } finally {
    await client.end();
  }
}

function sessionOptions(node: string) {
  return { applicationName: `understudy ${node} check`, connectTimeoutMs };
}

async function readFacts(client: Client, target: NodeTarget): Promise<NodeReading> {
  const server = await readServer(client);
  if (server.version < versionMin) return { kind: 'too old', server };
  const identity = await readNode(client);
  const allTables = await readAllTables(client);
  const matchedTables = matchingTables(allTables, target.tables);
  const facts: NodeFacts = {
    name: target.node,
    server,
    database: await readDatabase(client, target.cluster),
    canCreateEventTriggers: server.isSuperuser || (await mayCreateEventTriggers(client)),
    identity,
    reached: await readReachedDatabase(client, server.systemId, identity !== null),
    idleSlots: await readIdleSlots(client, slotPattern(target.cluster)),
    streamed: identity === null ? null : await readStreamed(client),
    types: await readJson<TypesByName>(client, typesOfDatabase),
    allTables,
    matchedTables,
    keys: await readKeys(
      client,
      withPartitioned(matchedTables, allTables),
      target.findsKeys,
      target.nowMs,
    ),
  };
  return { kind: 'read', facts };
}

/** With all tables above them: a partition alone cannot get a column. */
function withPartitioned(
  tables: readonly TableShape[],
  allTables: readonly TableShape[],
): TableShape[] {
  const byOid = new Map(allTables.map((table) => [table.oid, table]));
  const found = new Set<TableShape>();
  for (let table of tables) {
    for (;;) {
      found.add(table);
      const parent = byOid.get(table.parentOid ?? 0);
      if (parent === undefined) break;
      table = parent;
    }
  }
  return [...found];
}

async function readStreamed(client: Client): Promise<ReadonlySet<number>> {
  const relations = await loadKnownRelations(client);
  return new Set(relations.flatMap(({ tableOid }) => (tableOid === null ? [] : [tableOid])));
}

const permissionDenied = '42501';

/**
 * Tries to create an event trigger with a function that does not exist: Postgres checks the
 * permission first, so its error shows which of the two is missing, and nothing is ever created.
 * Managed services give this permission to roles that are no superusers, and no catalog shows it.
 */
async function mayCreateEventTriggers(client: Client): Promise<boolean> {
  try {
    await client.query(
      `CREATE EVENT TRIGGER understudy_probe ON ddl_command_start
       EXECUTE FUNCTION pg_catalog.understudy_no_such_function()`,
    );
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error) return error.code !== permissionDenied;
    throw error;
  }
}

async function readDatabase(client: Client, cluster: string): Promise<CheckedDatabase> {
  return readJson<CheckedDatabase>(client, databaseQuery, slotPattern(cluster));
}

async function readJson<Value>(client: Client, text: string, ...values: string[]): Promise<Value> {
  const { rows } = await client.query<[string]>({ text, values, rowMode: 'array' });
  return JSON.parse(rows[0]?.[0] ?? 'null') as Value;
}

/** For tables under the alias c, in the schema n. */
const tableName = `n.nspname || '.' || c.relname`;
const userTables = `pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace`;

const databaseQuery = `
  SELECT json_build_object(
    'oid', d.oid::bigint, 'serverStartedAt', pg_postmaster_start_time()::text,
    'collate', d.datcollate, 'ctype', d.datctype, 'provider', d.datlocprovider,
    -- Renamed in version 17.
    'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
    'ownsDatabase', pg_has_role(d.datdba, 'USAGE'),
    'canCreate', has_database_privilege(d.oid, 'CREATE'),
    'readsAllStats', pg_has_role('pg_read_all_stats', 'USAGE'),
    'bypassesRowSecurity', r.rolsuper OR r.rolbypassrls,
    'foreignWalSenders', (
      SELECT count(*) FROM pg_stat_replication
      WHERE coalesce(application_name, '') NOT LIKE 'understudy %'),
    'hasOwnSlot', EXISTS (
      SELECT FROM pg_replication_slots s WHERE s.datoid = d.oid AND s.slot_name ~ $1),
    'slotKeepBytes', nullif(pg_size_bytes(current_setting('max_slot_wal_keep_size')), -1),
    'maxWalBytes', pg_size_bytes(current_setting('max_wal_size')),
    'slotIdleTimeout', current_setting('idle_replication_slot_timeout', true),
    'closedSequences', (
      SELECT coalesce(json_agg(n.nspname || '.' || s.relname ORDER BY n.nspname, s.relname), '[]')
      FROM ${closedSequences}),
    'preparedTransactions', (
      SELECT coalesce(json_agg(gid ORDER BY prepared), '[]') FROM pg_prepared_xacts),
    'notOwned', (
      SELECT coalesce(json_agg(json_build_object(
        'table', ${tableName}, 'owner', c.relowner::regrole::text)
        ORDER BY n.nspname, c.relname), '[]')
      FROM ${userTables} WHERE ${userTablesCondition} AND NOT pg_has_role(c.relowner, 'USAGE')),
    'forcedRowSecurity', (
      SELECT coalesce(json_agg(${tableName} ORDER BY n.nspname, c.relname), '[]')
      FROM ${userTables}
      WHERE ${userTablesCondition} AND c.relrowsecurity AND c.relforcerowsecurity),
    'generated', (
      SELECT coalesce(json_agg(json_build_object(
        'tableOid', c.oid::bigint, 'column', a.attname,
        'expression', pg_get_expr(d.adbin, d.adrelid)) ORDER BY a.attname), '[]')
      FROM ${userTables}
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attgenerated <> ''
      JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE ${userTablesCondition}),
    'firingTriggers', (
      SELECT coalesce(json_agg(json_build_object(
        'kind', f.kind, 'table', ${tableName}, 'trigger', f.name)
        ORDER BY n.nspname, c.relname, f.name), '[]')
      FROM ${userTables} JOIN (
        SELECT 'trigger' AS kind, tgrelid, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT 'rule', ev_class, rulename, ev_enabled FROM pg_rewrite
      ) AS f (kind, table_oid, name, mode) ON f.table_oid = c.oid
      WHERE ${userTablesCondition} AND f.mode IN ('A', 'R')))
  FROM pg_database d, pg_roles r
  WHERE d.datname = current_database() AND r.rolname = current_user`;

/** Node locks are held there, so it has to accept the role too. */
export async function probeMaintenanceDatabase(target: NodeTarget): Promise<void> {
  const url = new URL(target.url);
  url.pathname = `/${encodeURIComponent(target.maintenanceDatabase)}`;
  try {
    const client = await connectPostgres(url.href, sessionOptions(target.node));
    await client.end();
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    throw maintenanceDatabaseUnusable(target.node, error);
  }
}

/** Names of tables that hold rows. */
export async function tablesWithRows(
  target: NodeTarget,
  tables: readonly Pick<TableShape, 'schema' | 'name'>[],
): Promise<string[]> {
  const client = await connectPostgres(target.url, sessionOptions(target.node));
  try {
    await client.query(`SET lock_timeout = ${rowLockMaxMs}`);
    return await withTimeout(findRows(client, tables), readMaxMs, () => {
      return serverSilent(target.node, readMaxMs);
    });
  } finally {
    await client.end();
  }
}

async function findRows(
  client: Client,
  tables: readonly Pick<TableShape, 'schema' | 'name'>[],
): Promise<string[]> {
  const found: string[] = [];
  for (const { schema, name } of tables) {
    const table = `${client.escapeIdentifier(schema)}.${client.escapeIdentifier(name)}`;
    if (await holdsRows(client, table)) found.push(`${schema}.${name}`);
  }
  return found;
}

const lockNotAvailable = '55P03';

/** A table that is locked, or that the role may not read, is left to init. */
async function holdsRows(client: Client, table: string): Promise<boolean> {
  try {
    const { rows } = await client.query<{ holds: string }>(
      `SELECT EXISTS (SELECT FROM ONLY ${table}) AS holds`,
    );
    return rows[0]?.holds === 't';
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === lockNotAvailable || code === permissionDenied) return false;
    throw error;
  }
}
