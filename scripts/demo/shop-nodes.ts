/**
 * Connections of the shop, made like those of any application: a plain client, no setting of
 * Understudy's. Flows in: the nodes' addresses; flows out: a session on one of them, or on
 * whichever takes writes, found as libpq does for target_session_attrs=read-write: every node in
 * turn is asked whether it is read-only.
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
/** All nodes are on this machine; a tenth of a second is often enough to notice a new leader. */
const nextRoundMs = 100;
/** A failover takes seconds; when no node takes writes for this long, the demo has failed. */
const leaderlessMaxMs = 60_000;

export async function connectTo(node: ShopNode, purpose: string): Promise<Client> {
  const client = new Client({
    connectionString: node.url,
    application_name: `shop ${purpose}`,
    connectionTimeoutMillis: connectTimeoutMs,
  });
  // A connection that breaks while idle also fails the next query, which is where it is handled.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** What pg says to a query when the connection broke while it was idle. */
const brokenWhileIdle = 'Client has encountered a connection error and is not queryable';

export function isConnectionLost(error: unknown): boolean {
  return isRetriable(error) || (error instanceof Error && error.message === brokenWhileIdle);
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

/** Null when the node is down or read-only; anything else that goes wrong is a failure. */
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
  await client?.end().catch(() => undefined);
  return null;
}
