/**
 * One agent per node: a session advisory lock, held as long as its session lives, or NODE_LOCKED
 * with the session that holds it. The lock is taken in the server's maintenance database and names
 * the node's database by OID, so that the database itself can be renamed meanwhile. The session is
 * polled: a server that accepts statements and answers none would otherwise hold up for ever what
 * the agent does at the moment.
 */
import type { Client } from 'pg';
import {
  connectPostgres,
  databaseOfUrl,
  endSession,
  onLost,
  sessionText,
  urlOfDatabase,
} from '../../catalog/postgres-session.ts';
import { leaderAgentAbsent } from '../../errors/node-state.ts';
import { nodeLocked } from '../../errors/ownership.ts';
import { databaseMissing, serverSilent } from '../../errors/unreachable.ts';
import type { Sleep } from '../../waiting.ts';

/** `unds`: keeps our advisory locks apart from those of applications. */
const lockClass = 0x756e6473;

const usualPolls = { pollEveryMs: 15_000 };
/** A minute: a server that is merely busy answers within it. */
const unansweredMax = 4;

/** In SQL, whether a session holds the lock of the node that this database is. */
export const isNodeLocked = `EXISTS (
  SELECT FROM pg_locks l
  JOIN pg_database d ON d.oid = l.objid AND d.datname = current_database()
  WHERE l.locktype = 'advisory' AND l.granted AND l.classid = ${lockClass}::oid
    AND l.objsubid = 2)`;

/** Whether an agent serves the node that the session's database is. */
export async function isLocked(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ locked: string }>(`SELECT ${isNodeLocked} AS locked`);
  return rows[0]?.locked === 't';
}

/** Between two attempts an agent does not hold the lock for a moment. */
const absentForMs = 2_000;
const absentPollMs = 200;

/** Refuses at once what only the leader's agent can do; `what` says what would not happen. */
export async function requireLeaderAgent(
  { name, client }: { readonly name: string; readonly client: Client },
  what: string,
  sleep: Sleep,
): Promise<void> {
  for (let waitedMs = 0; !(await isLocked(client)); waitedMs += absentPollMs) {
    if (waitedMs >= absentForMs) throw leaderAgentAbsent(name, what);
    await sleep(absentPollMs);
  }
}

export interface NodeLock {
  /** Rejects when the session ends or the server is silent: the holder must stop then. */
  readonly lost: Promise<never>;
  release(): Promise<void>;
}

export async function lockNode(
  url: string,
  maintenanceDatabase: string,
  node: string,
  { pollEveryMs } = usualPolls,
): Promise<NodeLock> {
  const client = await connectPostgres(urlOfDatabase(url, maintenanceDatabase), {
    applicationName: `understudy ${node} lock`,
  });
  try {
    await takeLock(client, databaseOfUrl(url), node);
  } catch (error) {
    await endSession(client);
    throw error;
  }
  let poll: NodeJS.Timeout | undefined;
  const lost = new Promise<never>((_, reject) => {
    onLost(client, reject);
    poll = keepPolling(client, pollEveryMs, () => {
      reject(serverSilent(node, unansweredMax * pollEveryMs));
    });
  });
  // A caller that does not watch `lost` finds out by its next query.
  lost.catch(() => undefined);
  return {
    lost,
    release: async () => {
      clearInterval(poll);
      await endSession(client);
    },
  };
}

/**
 * Calls back when one poll stays unanswered until several more would have been due. Counted in
 * polls: a process that was suspended finds one of them due, and not its server dead.
 */
function keepPolling(client: Client, everyMs: number, onSilent: () => void): NodeJS.Timeout {
  let waiting = 0;
  let isOpen = false;
  const answered = (): void => {
    isOpen = false;
  };
  return setInterval(() => {
    waiting = isOpen ? waiting + 1 : 0;
    if (waiting >= unansweredMax) onSilent();
    if (isOpen) return;
    isOpen = true;
    // A failure is a lost session, which its own listener reports.
    client.query('SELECT').then(answered, answered);
  }, everyMs);
}

/** Takes the lock of the node that a database is, or is about to be; the session holds it. */
export async function takeLock(client: Client, database: string, node: string): Promise<void> {
  const { rows } = await client.query<{ oid: string; locked: string }>(
    `SELECT oid, pg_catalog.pg_try_advisory_lock($1::int, oid::int) AS locked
     FROM pg_catalog.pg_database WHERE datname = $2`,
    [lockClass, database],
  );
  const row = rows[0];
  if (row === undefined) {
    throw databaseMissing(node, database);
  }
  if (row.locked === 't') return;
  const holder = await describeHolder(client, row.oid);
  throw nodeLocked(node, holder);
}

async function describeHolder(client: Client, databaseOid: string): Promise<string> {
  const { rows } = await client.query<{ who: string; host: string | null; since: string }>(
    `SELECT ${sessionText('a')} AS who, host(a.client_addr) AS host,
            a.backend_start::timestamptz(0) AS since
     FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1::oid AND l.objid = $2::oid`,
    [lockClass, databaseOid],
  );
  const holder = rows[0];
  if (holder === undefined) return 'it has just ended';
  return `${holder.who} from ${holder.host ?? 'a local socket'}, since ${holder.since}`;
}
