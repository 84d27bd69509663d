/**
 * The one way a connection to Postgres is made. Flows in: a node's URL and what the session is for;
 * flows out: a connected client whose settings hold from its first statement, so that two sessions,
 * two servers and two versions print the same bytes for the same value. Results are raw text:
 * nothing is parsed, so nothing can be rounded. A connection that dies is reported, never thrown
 * into the process.
 */

import { Client, type ClientConfig, escapeIdentifier, escapeLiteral } from 'pg';
import { bug } from '../errors/bug.ts';
import type { UnderstudyError } from '../errors/understudy-error.ts';
import {
  type PostgresServer,
  postgresConnectionLost,
  postgresUnreachable,
} from '../errors/unreachable.ts';
import { invalidPostgresUrl } from '../errors/usage.ts';

/**
 * Settings of every session of ours, the walsender's included. Text on the path is defined by them.
 * They travel as startup options, which also win over ALTER ROLE and ALTER DATABASE … SET.
 */
export const sessionSettings = {
  client_encoding: 'UTF8',
  DateStyle: 'ISO',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  bytea_output: 'hex',
  extra_float_digits: '3',
  lc_monetary: 'C',
  xmloption: 'content',
  array_nulls: 'on',
  quote_all_identifiers: 'off',
  standard_conforming_strings: 'on',
  // Forced row level security becomes an error; otherwise it silently hides rows from us.
  row_security: 'off',
  search_path: '',
  // A commit of ours never waits for a standby, which may be this very agent.
  synchronous_commit: 'local',
  default_transaction_read_only: 'off',
  default_transaction_isolation: 'read committed',
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  // A dead peer is noticed after about 25 s instead of two hours.
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
} as const;

interface SessionOptions {
  /** Shown in pg_stat_activity: `understudy b applier`. */
  readonly applicationName: string;
  /** session_replication_role = replica: ordinary triggers, and so the write guard, stay silent. */
  readonly replica?: boolean;
  readonly connectTimeoutMs?: number;
}

/** Long enough for a TLS handshake across continents, short enough for a person who waits. */
const defaultConnectTimeoutMs = 10_000;
/** How long a silent connection is left alone before the kernel asks whether it still lives. */
const keepAliveAfterMs = 10_000;

/** Parameters of a URL that would contradict what a session of ours is. */
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

/** The settings as the `options` of a startup packet. Later ones win, so ours come last. */
function startupOptions(given: string | null, replica: boolean): string {
  const settings = Object.entries(sessionSettings).map(
    ([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, '\\$&')}`,
  );
  if (replica) settings.push('-c session_replication_role=replica');
  return [...(given === null ? [] : [given]), ...settings].join(' ');
}

/**
 * The configuration of a client of ours, also for the walsender, whose library makes the client
 * itself. What else the URL says (TLS, host parameters) stays as it is.
 */
export function sessionConfig(url: string, options: SessionOptions): ClientConfig {
  const mark = url.indexOf('?');
  const base = mark < 0 ? url : url.slice(0, mark);
  const parameters = new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1));
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
  try {
    await client.connect();
  } catch (error) {
    throw postgresUnreachable(serverOf(client), codeOf(error), messageOf(error), error);
  }
  return client;
}

function newClient(url: string, options: SessionOptions): Client {
  try {
    return new Client(sessionConfig(url, options));
  } catch (error) {
    // The cause is left out: a parser's error may quote the URL and with it the password.
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

/** Tells once when the connection dies without our ending it, also when it has died already. */
export function onLost(client: Client, listener: (error: UnderstudyError) => void): void {
  const watch = watches.get(client);
  if (watch === undefined) {
    throw bug('onLost of a foreign client');
  }
  const { lost } = watch;
  if (lost !== null) queueMicrotask(() => listener(lost));
  else watch.listeners.push(listener);
}

/** The URL of another database of the same server. */
export function urlOfDatabase(url: string, database: string): string {
  const other = new URL(url);
  other.pathname = `/${encodeURIComponent(database)}`;
  return other.href;
}

/** The name of the database that a URL leads to. */
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
  if (error instanceof Error && 'code' in error) return String(error.code);
  return error instanceof Error && error.message === 'timeout expired' ? 'ETIMEDOUT' : '';
}

/** The URL with its passwords blacked out, also when it is malformed. */
export function redactUrl(url: string): string {
  const mark = url.indexOf('?');
  const base = mark < 0 ? url : url.slice(0, mark);
  const query = mark < 0 ? '' : url.slice(mark);
  // Greedy up to the last @, so that an unescaped / or @ in a password shows nothing of it.
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

type Isolation = 'READ COMMITTED' | 'REPEATABLE READ';

/**
 * Runs `work` in one transaction. It commits, or it throws what `work` or the commit threw; after a
 * commit whose answer was lost nobody knows, and the caller has to look.
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
    // Where the rollback fails too the connection is gone, and the server rolls back by itself:
    // the first error says more.
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
