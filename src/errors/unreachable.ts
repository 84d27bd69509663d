/**
 * Servers that cannot be reached or that refuse the login (POSTGRES_UNREACHABLE, KAFKA_UNREACHABLE,
 * REGISTRY_UNREACHABLE). All of these are retried.
 */
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { tlsHint } from './tls.ts';
import { type ErrorFacts, UnderstudyError } from './understudy-error.ts';

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
      return (
        'Correct the password in the URL, or: ' +
        `\`ALTER ROLE ${quoted(user)} PASSWORD '<password>';\``
      );
    case '28000':
      return (
        `Let the role in: \`CREATE ROLE ${quoted(user)} LOGIN PASSWORD '<password>';\` and a ` +
        'line in pg_hba.conf.'
      );
    case '3D000':
      return `Create the database: \`CREATE DATABASE ${quoted(database)};\``;
    case '42501':
      return (
        'As a superuser: ' +
        `\`GRANT SET ON PARAMETER session_replication_role TO ${quoted(user)};\``
      );
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
      return tlsHint(host, errorCode) ?? 'Check the URL and the log of that Postgres server.';
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

/**
 * An agent that held the lock of its node meets the lock of its own dead session, until the server
 * notices that the connection broke. `locked` is what any other agent would meet.
 */
export function ownLockRemains(locked: UnderstudyError): UnderstudyError {
  const { message, hint, facts } = locked;
  return new UnderstudyError('POSTGRES_UNREACHABLE', message, hint, locked, facts);
}

/** It accepts the session and then returns nothing. */
export function serverSilent(node: string, timeoutMs: number): UnderstudyError {
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    `the server of node ${node} accepts the session and does not answer within ${timeoutMs} ms`,
    'Check its log and its load, then retry.',
    undefined,
    { node, timeoutMs },
  );
}

/** Node locks are held in that database. `error` says why it cannot be used. */
export function maintenanceDatabaseUnusable(node: string, error: UnderstudyError): UnderstudyError {
  return new UnderstudyError(
    error.code,
    `the maintenance database of node ${node}: ${error.message}`,
    'Let the role log in there, or name another database of its server in maintenanceDatabase.',
    error,
    { ...error.facts, node },
  );
}

export function brokersSilent(timeoutMs: number): UnderstudyError {
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `the brokers accept the connection and do not answer within ${timeoutMs} ms`,
    'Check the logs of the brokers, then retry.',
    undefined,
    { timeoutMs },
  );
}

/** Of the URL only what holds no secret is named. */
export function registrySilent(url: string): UnderstudyError {
  const { origin, pathname } = new URL(url);
  return new UnderstudyError(
    'REGISTRY_UNREACHABLE',
    `the schema registry at ${origin}${pathname} does not answer`,
    'Check that it runs, and registry.url in understudy.yaml.',
    undefined,
    { registry: `${origin}${pathname}` },
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

/** `brokers` as understudy.yaml names them. */
export function kafkaUnreachable(
  brokers: readonly string[],
  reason: string,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `Kafka at ${brokers.join(', ')} cannot be reached: ${reason}`,
    /certificate|TLS|SSL|wrong version number/i.test(reason)
      ? 'Check kafka.ssl in understudy.yaml: the certificates, or whether the brokers speak TLS.'
      : 'Check that the brokers run, and kafka.brokers and kafka.ssl in understudy.yaml.',
    cause,
    { brokers: brokers.join(',') },
  );
}

export function kafkaRefusesLogin(brokers: readonly string[], cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `Kafka at ${brokers.join(', ')} refuses the login`,
    'Check kafka.sasl (mechanism, username, password) in understudy.yaml.',
    cause,
    { brokers: brokers.join(',') },
  );
}

export function kafkaTimedOut(brokers: readonly string[], withinMs: number): UnderstudyError {
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `Kafka at ${brokers.join(', ')} does not answer within ${withinMs} ms`,
    'Check that the brokers run, and kafka.brokers and kafka.ssl in understudy.yaml.',
    undefined,
    { brokers: brokers.join(','), withinMs },
  );
}

/** An answer that is an error code of the protocol; `answer` is its Kafka name. */
export function kafkaRefuses(
  facts: { readonly brokers: string; readonly action: string; readonly topic: string },
  answer: string,
  cause: unknown,
): UnderstudyError {
  const { brokers, action, topic } = facts;
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `Kafka at ${brokers} cannot ${action} ${topic} now (${answer})`,
    answer.startsWith('NOT_ENOUGH_REPLICAS')
      ? 'Bring the missing brokers back, or lower min.insync.replicas.'
      : 'The agent retries by itself; if this stays, read the logs of the brokers.',
    cause,
    { ...facts, answer },
  );
}

/** Nothing behind an open transaction can be read; the next epoch ends those of this cluster. */
export function openTransaction(partition: number, offset: bigint): UnderstudyError {
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `a transaction is open in partition ${partition} at offset ${offset}, and nothing behind it ` +
      'can be read',
    'If this stays, another program writes to the topic: find it with kafka-transactions.sh ' +
      'find-hanging, and end it with abort.',
    undefined,
    { partition, offset: String(offset) },
  );
}

export function registryUnreachable(
  url: string,
  reason: string,
  cause?: unknown,
  facts: ErrorFacts = {},
): UnderstudyError {
  return new UnderstudyError(
    'REGISTRY_UNREACHABLE',
    `the schema registry at ${url} cannot be used: ${reason}`,
    'Check that it runs, and registry.url in understudy.yaml (with its path: /apis/ccompat/v7).',
    cause,
    { registry: url, ...facts },
  );
}

export function registryRefusesLogin(url: string, status: number, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'REGISTRY_UNREACHABLE',
    `the schema registry at ${url} refuses the login (${status})`,
    'Check registry.auth in understudy.yaml, and that the user may read and write subjects.',
    cause,
    { registry: url, status },
  );
}

export function walsenderEnded(): UnderstudyError {
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    'the replication connection to the leader ended',
    'Check that the leader’s Postgres runs: pg_isready.',
  );
}

export function walsenderSilent(): UnderstudyError {
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    'the walsender of the leader does not answer',
    'Check the network to the leader’s Postgres and its load; the agent reconnects by itself.',
  );
}

/** A coordinator that died after its answer leaves the transaction open in a partition. */
export function commitNotReadable(at: string): UnderstudyError {
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `the commit of point ${at} was acknowledged and cannot be read`,
    'The agent retries after a new transaction. If this stays, check the health of the brokers.',
    undefined,
    { at },
  );
}

export function databaseMissing(node: string, database: string): UnderstudyError {
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    `the server of node ${node} has no database ${JSON.stringify(database)}`,
    `Create it: \`CREATE DATABASE "${database}";\` or correct the URL of the node.`,
    undefined,
    { node, database },
  );
}

/** A batch that the follower's Postgres may take at the next attempt. */
export function batchNotApplied(sqlState: string, reason: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    `the follower’s Postgres did not finish a batch (SQLSTATE ${sqlState}): ${reason}`,
    'The agent retries by itself; see the log of that Postgres server.',
    cause,
    { sqlState },
  );
}

/** An attempt whose answer was lost may have committed, or two agents apply: `at` was read. */
export function positionMoved(at: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    `this node is no longer at ${formatEpochLsn(at)}: another session moved its position`,
    'The agent reads the position again by itself; run one agent per node.',
    undefined,
    { at: formatEpochLsn(at) },
  );
}

/**
 * The epoch is still this node's: a stale owner fenced its producer once, before it noticed that it
 * has lost. A retry continues the epoch.
 */
export function fencedByStaleOwner(node: string, fenced: UnderstudyError): UnderstudyError {
  return new UnderstudyError('KAFKA_UNREACHABLE', fenced.message, fenced.hint, fenced, { node });
}
