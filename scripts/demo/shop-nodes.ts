/**
 * Connections of the shop, opened as any application does: a plain client without settings of
 * Understudy. It connects to a given node, or to the node that takes writes, which it finds as
 * libpq does for target_session_attrs=read-write: it checks each node in turn for being read-only.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { isRetriable } from '../../src/lifecycle.ts';

export interface ShopNode {
  readonly name: string;
  readonly url: string;
}

export interface LeaderSession {
  readonly node: string;
  readonly client: Client;
}

const connectTimeoutMs = 2_000;
/** All nodes are on this machine: ten rounds a second find a new leader soon. */
const nextRoundMs = 100;
/** A failover takes seconds; when no node takes writes for this long, the demo has failed. */
const leaderlessMaxMs = 60_000;

export async function connectTo(node: ShopNode, purpose: string): Promise<Client> {
  const client = new Client({
    connectionString: node.url,
    application_name: `shop ${purpose}`,
    connectionTimeoutMillis: connectTimeoutMs,
  });
  // A connection that is lost while idle also fails the next query, which is handled.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** The error of pg for a query on a connection that was lost while idle. */
const lostWhileIdle = 'Client has encountered a connection error and is not queryable';

export function isConnectionLost(error: unknown): boolean {
  return isRetriable(error) || (error instanceof Error && error.message === lostWhileIdle);
}

/** Resolves with null when `stopped` turns true before a node takes writes. */
export async function connectToLeader(
  nodes: readonly ShopNode[],
  stopped: () => boolean,
): Promise<LeaderSession | null> {
  const deadline = Date.now() + leaderlessMaxMs;
  while (!stopped()) {
    for (const node of nodes) {
      const client = await writableSession(node);
      if (client !== null) return { node: node.name, client };
    }
    if (Date.now() > deadline) {
      throw new Error(`no node takes writes for ${leaderlessMaxMs / 1000} s`);
    }
    await sleep(nextRoundMs);
  }
  return null;
}

/** Null when the node is down or read-only; any other error is thrown. */
async function writableSession(node: ShopNode): Promise<Client | null> {
  let client: Client | null = null;
  try {
    client = await connectTo(node, 'writer');
    const { rows } = await client.query<{ transaction_read_only: string }>(
      'SHOW transaction_read_only',
    );
    if (rows[0]?.transaction_read_only === 'off') return client;
  } catch (error) {
    if (!isConnectionLost(error)) throw error;
  }
  // Not the leader: how this session ends does not matter.
  await client?.end().catch(() => undefined);
  return null;
}
