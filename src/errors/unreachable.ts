/**
 * Servers that cannot be reached or that refuse the login (POSTGRES_UNREACHABLE, KAFKA_UNREACHABLE,
 * REGISTRY_UNREACHABLE). All of these are retried.
 */
import { UnderstudyError } from './understudy-error.ts';

/** Where a session was to lead. Holds no password. */
export interface PostgresServer {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

export function postgresUnreachable(
  server: PostgresServer,
  /** An SQLSTATE, or the code of a system error; empty where there is none. */
  errorCode: string,
  reason: string,
  cause: unknown,
): UnderstudyError {
  const { host, port, database, user } = server;
  // The one refusal that no retry helps: the role may not be a replica session.
  const code = errorCode === '42501' ? 'PREREQUISITE' : 'POSTGRES_UNREACHABLE';
  const message = `cannot connect to ${host}:${port}/${database} as ${user}: ${reason}`;
  const facts = { server: `${host}:${port}/${database}`, user, errorCode };
  return new UnderstudyError(code, message, connectHint(server, errorCode), cause, facts);
}

function connectHint({ host, port, database, user }: PostgresServer, errorCode: string): string {
  const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;
  switch (errorCode) {
    case '28P01':
      return `Correct the password in the URL, or: ALTER ROLE ${quoted(user)} PASSWORD '…'.`;
    case '28000':
      return `Let the role in: CREATE ROLE ${quoted(user)} LOGIN … and a line in pg_hba.conf.`;
    case '3D000':
      return `Create the database: CREATE DATABASE ${quoted(database)}.`;
    case '42501':
      return `As a superuser: GRANT SET ON PARAMETER session_replication_role TO ${quoted(user)}.`;
    case '53300':
      return 'Raise max_connections, or end sessions that are not needed.';
    case '57P03':
      return 'The server is starting up, shutting down or recovering: wait, then retry.';
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `The host name ${host} does not resolve: correct it in the URL.`;
    case 'ETIMEDOUT':
      return `Nothing answers at ${host}:${port}: check the address and firewalls.`;
    case 'ECONNREFUSED':
    case 'ENOENT':
      return `Start Postgres at ${host}:${port}, or correct the URL.`;
    default:
      return 'Check the URL and the log of that Postgres server.';
  }
}

export function postgresConnectionLost(
  { host, port, database }: PostgresServer,
  reason: string,
  cause: unknown,
): UnderstudyError {
  const server = `${host}:${port}/${database}`;
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    `lost the connection to ${server}: ${reason}`,
    'See the log of that Postgres server; the agent reconnects by itself.',
    cause,
    { server },
  );
}

export function controlLogStuck(nextOffset: bigint, endOffset: bigint): UnderstudyError {
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `the control log ends at offset ${endOffset}, and the broker returns no record from ` +
      `${nextOffset} on`,
    'Check the broker that leads the control topic: its log says why it returns nothing.',
    undefined,
    { nextOffset: String(nextOffset), endOffset: String(endOffset) },
  );
}
