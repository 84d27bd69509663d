/**
 * A second database beside that of a node, on the same server. It creates an empty one with the
 * same encoding, locale, owner, settings, privileges and comment, under a name of its own, and
 * drops it again. What makes that impossible is refused before anything is created.
 */
import { createHash } from 'node:crypto';
import type { Client } from 'pg';
import { loadKnownRelations } from '../../catalog/known-relations.ts';
import { databaseOfUrl, quoteIdentifier, quoteLiteral } from '../../catalog/postgres-session.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import { displayName } from '../../catalog/table.ts';
import { bug } from '../../errors/bug.ts';
import { noRoomBeside, rebuildInPlace, tablesByHand } from '../../errors/prerequisite.ts';
import { Releasers } from '../../lifecycle.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { withRows } from './initial-stream.ts';

/** Postgres truncates longer names. */
const nameBytesMax = 63;

/** `rebuild` is the database that is being built, `old` the one that it has replaced. */
export function besideName(database: string, what: 'rebuild' | 'old'): string {
  const name = `${database}_understudy_${what}`;
  if (Buffer.byteLength(name) <= nameBytesMax) return name;
  const hash = createHash('sha256').update(database).digest('hex').slice(0, 16);
  return `understudy_${what}_${hash}`;
}

/** A session of its own in the maintenance database of the node's server. */
export function openMaintenance(
  cluster: Cluster,
  releasers: Releasers,
  node: string,
): Promise<Client> {
  const { maintenanceDatabase } = cluster.settings;
  return cluster.withDatabase(node, maintenanceDatabase).openSession(releasers, node, 'databases');
}

interface Rights {
  readonly role: string;
  readonly database: string;
  readonly may_create: string;
  readonly may_rename: string;
  readonly taken: string | null;
}

/** Refuses a node that cannot have a second database. Not for one that has it already. */
export async function requireRoomBeside(node: NodeAccess): Promise<void> {
  const { client, cluster, name } = node;
  const { settings } = cluster;
  if (settings.pgDump() === null) {
    throw tablesByHand(name);
  }
  const database = databaseOfUrl(node.url);
  const names = [besideName(database, 'rebuild'), besideName(database, 'old')];
  const { rows } = await client.query<Rights>(
    `SELECT current_user AS role, d.datname AS database,
            (SELECT r.rolsuper OR r.rolcreatedb FROM pg_roles r
             WHERE r.rolname = current_user) AS may_create,
            pg_has_role(d.datdba, 'USAGE') AS may_rename,
            (SELECT min(o.datname::text) FROM pg_database o
             WHERE o.datname = ANY ($1)) AS taken
     FROM pg_database d WHERE d.datname = current_database()`,
    [names],
  );
  const [facts] = rows;
  if (facts === undefined) throw bug('a session is in a database');
  const role = quoteIdentifier(facts.role);
  if (settings.maintenanceDatabase === facts.database) {
    const hint = 'Name another database of that server in maintenanceDatabase.';
    throw noRoomBeside(name, 'it is the maintenance database, which cannot be renamed', hint);
  }
  if (facts.may_create !== 't') {
    throw noRoomBeside(
      name,
      `${role} may not create databases`,
      `\`ALTER ROLE ${role} CREATEDB;\``,
    );
  }
  if (facts.may_rename !== 't') {
    const hint = `\`ALTER DATABASE ${quoteIdentifier(facts.database)} OWNER TO ${role};\``;
    throw noRoomBeside(name, `${role} does not own its database`, hint);
  }
  if (facts.taken !== null) {
    const taken = quoteIdentifier(facts.taken);
    const hint = `If it is not needed: \`DROP DATABASE ${taken};\``;
    throw noRoomBeside(name, `that server has a database ${taken} already`, hint);
  }
  await requireNothingOwn(client, name);
}

/** Rows that only this node has would be dropped with its database. */
async function requireNothingOwn(client: Client, name: string): Promise<void> {
  const known = new Set((await loadKnownRelations(client)).map(({ tableOid }) => tableOid));
  const others = (await readTables(client, ['*.*'])).filter(({ oid }) => !known.has(oid));
  const [table] = await withRows(client, others);
  if (table === undefined) return;
  const what = `its table ${displayName(table)} holds rows and is not in the stream`;
  throw noRoomBeside(
    name,
    what,
    `Save and empty it, or keep the database: ${rebuildInPlace(name)}`,
  );
}

type DatabaseRow = Readonly<Record<string, string | null>>;

async function readDatabase(maintenance: Client, name: string): Promise<DatabaseRow | null> {
  // The columns depend on the version of Postgres.
  const { rows } = await maintenance.query<{ database: string }>(
    `SELECT to_jsonb(d) || jsonb_build_object('oid', d.oid::text,
              'encoding', pg_encoding_to_char(d.encoding), 'owner', pg_get_userbyid(d.datdba),
              'tablespace', (SELECT t.spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace),
              'comment', shobj_description(d.oid, 'pg_database')) AS database
     FROM pg_database d WHERE d.datname = $1`,
    [name],
  );
  return rows[0] === undefined ? null : (JSON.parse(rows[0].database) as DatabaseRow);
}

/** Continues where an earlier call was interrupted; gives the OID. */
export async function createBeside(
  maintenance: Client,
  database: string,
  beside: string,
): Promise<string> {
  const like = await readDatabase(maintenance, database);
  if (like === null) throw bug('a node that is locked has a database');
  if ((await readDatabase(maintenance, beside)) === null) {
    await maintenance.query(`CREATE DATABASE ${quoteIdentifier(beside)} ${createClauses(like)}`);
  }
  const created = await readDatabase(maintenance, beside);
  if (created?.['oid'] == null) throw bug('a database that was created exists');
  return created['oid'];
}

const providers: Readonly<Record<string, string>> = { b: 'builtin', c: 'libc', i: 'icu' };

function createClauses(like: DatabaseRow): string {
  const provider = providers[like['datlocprovider'] ?? ''];
  // Its name since version 17, and before.
  const locale = like['datlocale'] ?? like['daticulocale'];
  const texts: [string, string | null | undefined][] = [
    ['ENCODING', like['encoding']],
    ['LOCALE_PROVIDER', provider],
    ['LC_COLLATE', like['datcollate']],
    ['LC_CTYPE', like['datctype']],
    [provider === 'builtin' ? 'BUILTIN_LOCALE' : 'ICU_LOCALE', locale],
    ['ICU_RULES', like['daticurules']],
  ];
  const clauses = texts.flatMap(([word, text]) => {
    return text == null ? [] : [`${word} ${quoteLiteral(text)}`];
  });
  return [
    'TEMPLATE template0',
    ...clauses,
    `TABLESPACE ${quoteIdentifier(like['tablespace'] ?? 'pg_default')}`,
    `OWNER ${quoteIdentifier(like['owner'] ?? '')}`,
  ].join(' ');
}

/** Sets on one database what can be altered, as it is on the other. May be repeated. */
export async function copyProperties(maintenance: Client, from: string, to: string): Promise<void> {
  const like = await readDatabase(maintenance, from);
  const target = quoteIdentifier(to);
  const comment = like?.['comment'] ?? null;
  const statements = [
    `ALTER DATABASE ${target} CONNECTION LIMIT ${like?.['datconnlimit'] ?? -1}`,
    `COMMENT ON DATABASE ${target} IS ${comment === null ? 'NULL' : quoteLiteral(comment)}`,
    ...(await settingStatements(maintenance, from, to)),
    ...(await grantStatements(maintenance, from, to)),
  ];
  for (const statement of statements) await maintenance.query(statement);
}

/** Settings whose values are lists of names: as one literal they would be one name. */
const listSettings: readonly string[] = [
  'local_preload_libraries',
  'search_path',
  'session_preload_libraries',
  'shared_preload_libraries',
  'temp_tablespaces',
  'unix_socket_directories',
];

async function settingStatements(client: Client, from: string, to: string): Promise<string[]> {
  const { rows } = await client.query<{ database: string; role: string | null; setting: string }>(
    `SELECT d.datname AS database, r.rolname AS role, unnest(s.setconfig) AS setting
     FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
     LEFT JOIN pg_roles r ON r.oid = s.setrole
     WHERE d.datname IN ($1, $2)`,
    [from, to],
  );
  const target = quoteIdentifier(to);
  const of = (role: string | null): string =>
    role === null
      ? `ALTER DATABASE ${target}`
      : `ALTER ROLE ${quoteIdentifier(role)} IN DATABASE ${target}`;
  const resets = new Set(
    rows.filter(({ database }) => database === to).map(({ role }) => `${of(role)} RESET ALL`),
  );
  const sets = rows
    .filter(({ database }) => database === from)
    .map(({ role, setting }) => `${of(role)} SET ${settingText(setting)}`);
  return [...resets, ...sets];
}

/** `name = value` as SQL, of `name=value` as the catalog keeps it. */
export function settingText(setting: string): string {
  const at = setting.indexOf('=');
  const name = setting.slice(0, at);
  const value = setting.slice(at + 1);
  // Names of extensions have a dot.
  const path = name.split('.').map(quoteIdentifier).join('.');
  if (!listSettings.includes(name.toLowerCase())) return `${path} = ${quoteLiteral(value)}`;
  const names = [...value.matchAll(/"((?:[^"]|"")*)"|[^,\s"]+/g)].map(([text, quoted]) => {
    return quoteLiteral(quoted === undefined ? text : quoted.replaceAll('""', '"'));
  });
  return `${path} = ${names.length === 0 ? "''" : names.join(', ')}`;
}

interface GrantRow {
  readonly database: string;
  /** Null is PUBLIC. */
  readonly grantee: string | null;
  readonly privilege: string;
  readonly grantable: string;
}

/** Without any GRANT or REVOKE, both have what a new database has. */
async function grantStatements(client: Client, from: string, to: string): Promise<string[]> {
  const { rows } = await client.query<GrantRow>(
    `SELECT d.datname AS database, r.rolname AS grantee, a.privilege_type AS privilege,
            a.is_grantable AS grantable
     FROM pg_database d
     CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
     LEFT JOIN pg_roles r ON r.oid = a.grantee
     WHERE d.datname IN ($1, $2)`,
    [from, to],
  );
  const target = `ON DATABASE ${quoteIdentifier(to)}`;
  const who = (role: string | null): string => (role === null ? 'PUBLIC' : quoteIdentifier(role));
  const had = new Set(rows.filter(({ database }) => database === to).map((row) => row.grantee));
  return [
    ...[...had].map((role) => `REVOKE ALL ${target} FROM ${who(role)} CASCADE`),
    ...rows
      .filter(({ database }) => database === from)
      .map(({ grantee, privilege, grantable }) => {
        const option = grantable === 't' && grantee !== null ? ' WITH GRANT OPTION' : '';
        return `GRANT ${privilege} ${target} TO ${who(grantee)}${option}`;
      }),
  ];
}

/** Under whatever name it has now, which it gives; null where it does not exist. */
async function dropDatabase(maintenance: Client, oid: string): Promise<string | null> {
  const { rows } = await maintenance.query<{ name: string }>(
    'SELECT datname AS name FROM pg_database WHERE oid = $1',
    [oid],
  );
  const [found] = rows;
  if (found === undefined) return null;
  await maintenance.query(`DROP DATABASE IF EXISTS ${quoteIdentifier(found.name)} WITH (FORCE)`);
  return found.name;
}

/** The same with a session of its own. */
export async function dropDatabaseOf(
  cluster: Cluster,
  node: string,
  oid: string,
): Promise<string | null> {
  const releasers = new Releasers();
  try {
    return await dropDatabase(await openMaintenance(cluster, releasers, node), oid);
  } finally {
    await releasers.close();
  }
}
