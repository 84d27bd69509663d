/**
 * The last error of a node's agent, as the agent leaves it in the node's own database: `status`
 * finds it there when no agent runs that could be asked. It flows in when an attempt has failed,
 * and is deleted once the node is in its role. A database that is not this node is never written,
 * nor is that of a node that another agent serves by now.
 */
import type { Client } from 'pg';
import { connectPostgres, endSession } from '../../catalog/postgres-session.ts';
import { agentErrorNotLeft } from '../../errors/timed-out.ts';
import { withTimeout } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';
import { isNodeLocked } from './node-lock.ts';

export interface AgentError {
  readonly code: string;
  readonly message: string;
  /** When it was left, by the clock of the node's server. */
  readonly time: string;
}

/** The agent retries meanwhile, or a user waits for its end. */
const leaveTimeoutMs = 3_000;

/** Null where there is none, or where an older version has installed the schema. */
export async function readAgentError(client: Client): Promise<AgentError | null> {
  if (!(await canBeLeft(client))) return null;
  const { rows } = await client.query<{ code: string; message: string; at: string }>(
    `SELECT code, message,
            to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS at
     FROM understudy.agent_error`,
  );
  const [row] = rows;
  return row === undefined ? null : { code: row.code, message: row.message, time: row.at };
}

/** Rejects when the database does not take it within a moment; null deletes what was left. */
export async function leaveAgentError(
  cluster: Cluster,
  node: string,
  error: Pick<AgentError, 'code' | 'message'> | null,
): Promise<void> {
  const client = await connectPostgres(cluster.settings.nodeUrl(node), {
    applicationName: `understudy ${node} report`,
    connectTimeoutMs: leaveTimeoutMs,
  });
  try {
    const left = error === null ? deleteError(client) : writeError(client, cluster, node, error);
    await withTimeout(left, leaveTimeoutMs, () => agentErrorNotLeft(node, leaveTimeoutMs));
  } finally {
    await endSession(client);
  }
}

async function canBeLeft(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ exists: string }>(
    `SELECT to_regclass('understudy.agent_error') IS NOT NULL AS exists`,
  );
  return rows[0]?.exists === 't';
}

async function deleteError(client: Client): Promise<void> {
  if (await canBeLeft(client)) await client.query('DELETE FROM understudy.agent_error');
}

async function writeError(
  client: Client,
  cluster: Cluster,
  node: string,
  { code, message }: Pick<AgentError, 'code' | 'message'>,
): Promise<void> {
  if (!(await canBeLeft(client))) return;
  await client.query(
    `INSERT INTO understudy.agent_error (code, message, at)
     SELECT $1, $2, pg_catalog.clock_timestamp() FROM understudy.node
     WHERE cluster = $3 AND name = $4 AND NOT ${isNodeLocked}
     ON CONFLICT (only_row) DO UPDATE
     SET code = excluded.code, message = excluded.message, at = excluded.at`,
    [code, message, cluster.name, node],
  );
}
