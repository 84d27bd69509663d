/**
 * The sessions of clients on a database that must take no more writes. It takes a session of ours
 * and ends every client backend of its database, or those that hold a lock in our way; it gives
 * those that it may not end. A session is terminated, never cancelled: a cancelled commit that
 * waits for a synchronous standby is acknowledged to its client although it was not confirmed.
 * Sessions of ours and replication connections are left alone.
 */
import { type Client, DatabaseError } from 'pg';
import { sessionText } from '../../catalog/postgres-session.ts';

/** Only a session of our own role is one of ours: any client may choose its application_name. */
const isClients = `a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND NOT (a.usename = current_user AND a.application_name LIKE 'understudy %')`;

/** Every client backend of this database. */
export async function terminateClients(client: Client): Promise<readonly string[]> {
  return terminate(client, `${isClients} AND a.backend_type = 'client backend'`, []);
}

/**
 * Of these processes the clients, and the autovacuum workers: one that prevents a wraparound is not
 * cancelled for a session that waits. The server starts it again later.
 */
export async function terminateHolders(
  client: Client,
  pids: readonly string[],
): Promise<readonly string[]> {
  if (pids.length === 0) return [];
  const kinds = `a.backend_type IN ('client backend', 'autovacuum worker')`;
  return terminate(client, `${isClients} AND ${kinds} AND a.pid = ANY ($1::int[])`, [pids]);
}

const insufficientPrivilege = '42501';

async function terminate(
  client: Client,
  condition: string,
  values: unknown[],
): Promise<readonly string[]> {
  const { rows } = await client.query<{ pid: string; who: string }>(
    `SELECT a.pid, ${sessionText('a')} AS who
     FROM pg_stat_activity a WHERE ${condition}`,
    values,
  );
  const refused: string[] = [];
  for (const { pid, who } of rows) {
    try {
      await client.query('SELECT pg_terminate_backend($1)', [pid]);
    } catch (error) {
      if (!(error instanceof DatabaseError) || error.code !== insufficientPrivilege) throw error;
      refused.push(who);
    }
  }
  return refused;
}
