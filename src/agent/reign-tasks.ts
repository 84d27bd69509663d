/**
 * What a leader's agent does beside the stream, for as long as it streams: raises the number of its
 * starts, keeps the schema in the topic new, and publishes the rows that commands ask for. Flows
 * in: a node that leads; flows out: what these write. The first that fails ends the reign.
 */
import type { Client } from 'pg';
import type { NodeAccess } from '../fleet/node/node-access.ts';
import type { RequestDesk } from '../fleet/node/requests.ts';
import { keepRaising } from '../fleet/node/start-number.ts';
import { keepSchemaCurrent } from '../fleet/provision/schema-renewal.ts';
import type { Leading } from '../leader/leader.ts';
import { unlessAborted } from '../waiting.ts';

interface Reign {
  readonly node: NodeAccess;
  /** A session for nothing else. */
  readonly client: Client;
  readonly desk: RequestDesk;
  readonly epoch: number;
}

/** Until `signal` aborts. */
export async function whileLeading(
  { node, client, desk, epoch }: Reign,
  leading: Leading,
  signal: AbortSignal,
): Promise<void> {
  const { control, cluster } = node;
  await Promise.all([
    keepRaising(client, control, cluster.around.log, signal),
    // A server that fell silent must not hold up the end of a reign that failed elsewhere.
    unlessAborted(keepSchemaCurrent(node, leading, epoch, signal), signal),
    desk.serveRepairs(leading, signal),
  ]);
}
