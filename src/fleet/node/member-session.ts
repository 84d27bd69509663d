/**
 * How a command finds its way to a node: who leads by the control log's state, and a session on a
 * database that is known to be that node of this cluster. What keeps a command from continuing is
 * an error with its remedy.
 */
import type { Client } from 'pg';
import { type NodeIdentity, readNode } from '../../catalog/understudy-schema.ts';
import { type Owner, ownerOf } from '../../control/claim.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { ControlState } from '../../control/control-state.ts';
import { nodeOfNoCluster, notInitialised } from '../../errors/cluster.ts';
import { detachedAt } from '../../errors/follower.ts';
import { leaderless, otherMember } from '../../errors/node-state.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { Cluster } from '../cluster.ts';

/** A session on the database of a node. */
export interface NodeSession {
  readonly name: string;
  readonly client: Client;
}

/** The control log, for a command that serves no node; without its topic there is no cluster. */
export async function openFleetLog(cluster: Cluster, releasers: Releasers): Promise<ControlLog> {
  try {
    return await cluster.openControl(releasers, null);
  } catch (error) {
    const isMissing = hasCode(error, 'TOPIC_MISMATCH');
    throw isMissing ? notInitialised(cluster.name, error) : error;
  }
}

/** The leader, or an error that says why there is none. */
export function leaderOf(state: ControlState, cluster: string): Owner {
  const owner = ownerOf(state);
  if (owner !== null) return owner;
  if (state.stream === null || state.current === null) {
    throw notInitialised(cluster);
  }
  throw leaderless(cluster, state.current.node);
}

/** A node that was detached neither follows nor leads. */
export function requireAttached({ detached }: ControlState, node: string): void {
  const record = detached.get(node);
  if (record !== undefined) throw detachedAt(node, record.at);
}

/** Also serves `wait` while Kafka is unreachable: it needs nothing but the database. */
export async function openMember(
  cluster: Cluster,
  releasers: Releasers,
  node: string,
  purpose: string,
): Promise<Client> {
  const client = await cluster.openSession(releasers, node, purpose);
  requireMember(await readNode(client), cluster.name, node);
  return client;
}

/** The identity of a database that is that node of this cluster; any other is refused. */
export function requireMember(
  found: NodeIdentity | null,
  cluster: string,
  node: string,
): NodeIdentity {
  if (found?.cluster === cluster && found.name === node) return found;
  if (found === null) throw nodeOfNoCluster(node);
  throw otherMember(node, found);
}
