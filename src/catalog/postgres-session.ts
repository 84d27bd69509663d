/**
 * Opens every connection to Postgres. It takes a node's URL and the purpose of the session, and
 * returns a connected client whose settings are valid from its first statement, so that two
 * sessions, two servers and two versions print the same bytes for the same value. Results are raw
 * text: no value is parsed, so none is rounded. A lost connection is reported to listeners, and is
 * never an uncaught error of the process.
 */

import type { Socket } from 'node:net';
import { Client, type ClientConfig, escapeIdentifier, escapeLiteral } from 'pg';
import { bug } from '../errors/bug.ts';
import { noTlsCode } from '../errors/tls.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import {
  type PostgresServer,
  postgresConnectionLost,
  postgresUnreachable,
} from '../errors/unreachable.ts';
import { invalidPostgresUrl } from '../errors/usage.ts';
import { withTimeout } from '../waiting.ts';
import { withLibpqTls } from './tls-parameters.ts';

/**
 * Settings of every session of ours, including walsenders. They define the text of every value.
 * They are sent as startup options, which override ALTER ROLE … SET and ALTER DATABASE … SET.
 */
export const sessionSettings = {
  client_encoding: 'UTF8',
  DateStyle: 'ISO',
  // rule: session-sets-interval-style
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  bytea_output: 'hex',
  extra_float_digits: '3',
  lc_monetary: 'C',
  xmloption: 'content',
  array_nulls: 'on',
  quote_all_identifiers: 'off',
  standard_conforming_strings: 'on',
  // Forced row level security becomes an error; otherwise it silently hides rows from the agent.
  row_security: 'off',
  search_path: '',
  // Our commits never wait for a synchronous standby, since that may be this agent.
  synchronous_commit: 'local',
  default_transaction_read_only: 'off',
  default_transaction_isolation: 'read committed',
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  // A dead peer is detected after about 25 s instead of two hours.
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
} as const;

interface SessionOptions {
  /** Shown in pg_stat_activity: `understudy b applier`. */
  readonly applicationName: string;
  /** session_replication_role = replica: ordinary triggers, also the write guard's, do not fire. */
  readonly replica?: boolean;
  readonly connectTimeoutMs?: number;
}

/** Long enough for a TLS handshake across continents, short enough for a waiting user. */
const defaultConnectTimeoutMs = 10_000;
/** How long a connection is idle before the kernel sends the first keepalive probe. */
const keepAliveAfterMs = 10_000;

/** Parameters of a URL that would override the settings of our sessions. */
const ownParameters = [
  'application_name',
  'binary',
  'client_encoding',
  'fallback_application_name',
  'idle_in_transaction_session_timeout',
  'lock_timeout',
  'query_timeout',
  'replication',
  'statement_timeout',
];

/** The settings as the `options` of a startup packet. The last of each wins, so ours come last. */
function startupOptions(given: string | null, replica: boolean): string {
  const settings = Object.entries(sessionSettings).map(
    ([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, '\\$&')}`,
  );
  if (replica) settings.push('-c session_replication_role=replica');
  return [...(given === null ? [] : [given]), ...settings].join(' ');
}

/**
 * The configuration of a client of ours, also for the walsender, whose library creates the client
 * itself. Other parameters of the URL (TLS, hosts) are kept.
 */
export function sessionConfig(url: string, options: SessionOptions): ClientConfig {
  const mark = url.indexOf('?');
  const base = mark < 0 ? url : url.slice(0, mark);
  const parameters = withLibpqTls(new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1)));
  for (const name of ownParameters) parameters.delete(name);
  parameters.set('options', startupOptions(parameters.get('options'), options.replica ?? false));
  return {
    connectionString: `${base}?${parameters.toString()}`,
    application_name: options.applicationName,
    connectionTimeoutMillis: options.connectTimeoutMs ?? defaultConnectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveAfterMs,
    types: { getTypeParser: () => rawText },
  };
}

function rawText(value: string): string {
  return value;
}

export async function connectPostgres(url: string, options: SessionOptions): Promise<Client> {
  const client = newClient(url, options);
  const watch: Watch = { lost: null, listeners: [] };
  watches.set(client, watch);
  client.on('error', (error) => noteLoss(client, watch, error));
  await connectUntimed(client, options.connectTimeoutMs);
  return client;
}

/** A walsender on a database, for a slot that exports a snapshot. */
export async function connectWalsender(
  url: string,
  applicationName: string,
  onError: (error: Error) => void,
): Promise<Client> {
  const client = new Client({
    ...sessionConfig(url, { applicationName }),
    ...{ replication: 'database' },
  });
  client.on('error', onError);
  await connectUntimed(client);
  return client;
}

/**
 * Connects, and switches off transaction_timeout. As a startup option it would be refused by
 * servers that do not have it, those before 17; there the statement finds no row and does nothing.
 */
async function connectUntimed(
  client: Client,
  timeoutMs: number = defaultConnectTimeoutMs,
): Promise<void> {
  const unreachable = (error: unknown): UnderstudyError =>
    postgresUnreachable(serverOf(client), codeOf(error), messageOf(error), error);
  await client.connect().catch((error: unknown) => {
    throw unreachable(error);
  });
  try {
    await withTimeout(endNoTransaction(client), timeoutMs, () => new Error('timeout expired'));
  } catch (error) {
    // The session is open, and it would stay so: nothing else has it.
    await Promise.allSettled([endSession(client)]);
    throw unreachable(error);
  }
}

/** A role or a database may have a transaction_timeout; ours may be as long as they need. */
export async function endNoTransaction(client: Pick<Client, 'query'>): Promise<void> {
  await client.query(
    `SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
     WHERE name = 'transaction_timeout'`,
  );
}

function newClient(url: string, options: SessionOptions): Client {
  try {
    return new Client(sessionConfig(url, options));
  } catch (error) {
    if (error instanceof UnderstudyError) throw error;
    // Without the cause: a parser's error may quote the URL and with it the password.
    const reason = error instanceof Error && 'code' in error ? String(error.code) : 'malformed';
    throw invalidPostgresUrl(redactUrl(url), reason);
  }
}

interface Watch {
  lost: UnderstudyError | null;
  readonly listeners: ((error: UnderstudyError) => void)[];
}

const watches = new WeakMap<Client, Watch>();

function noteLoss(client: Client, watch: Watch, cause: Error): void {
  if (watch.lost !== null) return;
  watch.lost = postgresConnectionLost(serverOf(client), messageOf(cause), cause);
  for (const listener of watch.listeners) listener(watch.lost);
}

const withoutNames = new WeakSet<Client>();

/** From now on no statement of the session is looked up by a name: all are sent whole. */
export function useNoStatementNames(client: Client): void {
  if (withoutNames.has(client)) return;
  withoutNames.add(client);
  const query = client.query.bind(client) as (config: unknown, ...rest: unknown[]) => unknown;
  const whole = (config: unknown, ...rest: unknown[]): unknown => {
    const isNamed = typeof config === 'object' && config !== null && 'name' in config;
    return query(isNamed ? { ...config, name: undefined } : config, ...rest);
  };
  client.query = whole as Client['query'];
}

/** Calls back once when the connection is lost before we end it, or was lost already. */
export function onLost(client: Client, listener: (error: UnderstudyError) => void): void {
  const watch = watches.get(client);
  if (watch === undefined) {
    throw bug('onLost needs a client of connectPostgres');
  }
  const { lost } = watch;
  if (lost !== null) queueMicrotask(() => listener(lost));
  else watch.listeners.push(listener);
}

/** A server that is there closes the connection at once; one that is not is not waited for. */
const endTimeoutMs = 1_000;

/** Ends the session in good order, or closes its socket from here. */
export async function endSession(client: Client): Promise<void> {
  const timer = setTimeout(() => {
    (client as unknown as ClientInternals).connection.stream.destroy();
  }, endTimeoutMs);
  await client.end().finally(() => clearTimeout(timer));
}

/** The parts of the client that its types hide. */
interface ClientInternals {
  readonly connection: { readonly stream: Socket };
}

/** The URL of another database of the same server. */
export function urlOfDatabase(url: string, database: string): string {
  const other = new URL(url);
  other.pathname = `/${encodeURIComponent(database)}`;
  return other.href;
}

/** The name of the database in a URL. */
export function databaseOfUrl(url: string): string {
  return decodeURIComponent(new URL(url).pathname.slice(1));
}

function serverOf(client: Client): PostgresServer {
  const { host, port, database, user } = client;
  return { host, port, database: database ?? '', user: user ?? '' };
}

function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') {
    return messageOf(error.errors[0]);
  }
  return error instanceof Error ? error.message.split('\n', 1)[0] || error.name : String(error);
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  if ('code' in error) return String(error.code);
  if (error.message === 'timeout expired') return 'ETIMEDOUT';
  return error.message === 'The server does not support SSL connections' ? noTlsCode : '';
}

/** The URL without its passwords, also when it is malformed. */
export function redactUrl(url: string): string {
  const mark = url.indexOf('?');
  const base = mark < 0 ? url : url.slice(0, mark);
  const query = mark < 0 ? '' : url.slice(mark);
  // Greedy up to the last @, so that no part of a password with an unescaped / or @ is shown.
  const shown = base.replace(/^([a-z][a-z0-9+.-]*:\/\/[^:@/]*):.*@/i, '$1:***@');
  return shown + query.replace(/([?&][^=&]*password=)[^&]*/gi, '$1***');
}

export function quoteIdentifier(name: string): string {
  return escapeIdentifier(name);
}

export function quoteLiteral(text: string): string {
  return escapeLiteral(text);
}

export function qualifiedName(schema: string, table: string): string {
  return `${escapeIdentifier(schema)}.${escapeIdentifier(table)}`;
}

/**
 * How a session is named in a message, in SQL over a row of pg_stat_activity under that alias:
 * `pid 4711 of app in shop (understudy a init)`, without what is not known; empty where an outer
 * join found no row. Sessions of agents and commands say in application_name what they are, so that
 * none of them is taken for a foreign one.
 */
export function sessionText(alias: string): string {
  const parts = [
    `'pid ' || ${alias}.pid`,
    `' of ' || ${alias}.usename`,
    `' in ' || ${alias}.datname`,
    `' (' || nullif(${alias}.application_name, '') || ')'`,
  ];
  // Of its arguments concat leaves out those that are null.
  return `pg_catalog.concat(${parts.join(', ')})`;
}

type Isolation = 'READ COMMITTED' | 'REPEATABLE READ';

/**
 * Runs `work` in one transaction, and commits, or throws the error of `work` or of the commit. When
 * the answer to the commit was lost, the outcome is unknown and the caller has to check.
 */
export async function inTransaction<Result>(
  client: Client,
  work: () => Promise<Result>,
  isolation: Isolation = 'READ COMMITTED',
): Promise<Result> {
  await client.query(`BEGIN ISOLATION LEVEL ${isolation} READ WRITE`);
  let result: Result;
  try {
    result = await work();
  } catch (error) {
    // If the rollback fails too, the connection is lost and the server rolls back by itself: the
    // first error is the cause.
    await Promise.allSettled([client.query('ROLLBACK')]);
    throw error;
  }
  const { command } = await client.query('COMMIT');
  if (command !== 'COMMIT') {
    // A failed transaction answers COMMIT with ROLLBACK and no error.
    throw bug('a transaction was committed after one of its statements had failed');
  }
  return result;
}
