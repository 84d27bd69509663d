/**
 * How a command finds its way to a node. Flows in: the control log's state, or a node's name; flows
 * out: who leads, or a session on a database that is known to be that node of this cluster. What
 * keeps a command from going on is told with its remedy.
 */
import type { Client } from 'pg';
import { type NodeIdentity, readNode } from '../../catalog/understudy-schema.ts';
import { type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { type Owner, ownerOf } from '../../control/claim.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { ControlState } from '../../control/control-state.ts';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
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

/** Who leads, or why nobody does. */
export function leaderOf(state: ControlState, cluster: string): Owner {
  const owner = ownerOf(state);
  if (owner !== null) return owner;
  if (state.stream === null || state.current === null) {
    throw notInitialised(cluster);
  }
  throw new UnderstudyError(
    'PREREQUISITE',
    `nobody leads ${cluster}: node ${state.current.node} gave the lead away`,
    'See who can take it: understudy status',
  );
}

export function notInitialised(cluster: string, cause?: unknown): UnderstudyError {
  const message = `the cluster ${cluster} has not been initialised`;
  return new UnderstudyError('NOT_INITIALISED', message, 'Run: understudy init', cause);
}

/** A node that was detached follows no more, and does not take the lead. */
export function requireAttached({ detached }: ControlState, node: string): void {
  const record = detached.get(node);
  if (record !== undefined) throw detachedAt(node, record.at);
}

export function detachedAt(node: string, at: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'DETACHED',
    `node ${node} was detached at ${formatEpochLsn(at)} and is a database of its own`,
    'Take it out of understudy.yaml. Where understudy status says that this has not ended: ' +
      `understudy detach ${node}`,
  );
}

/** Also serves `wait` while Kafka is away: it asks nothing but the database. */
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

/** The database of a node says that it is that node of this cluster, or why it is refused. */
export function requireMember(
  found: NodeIdentity | null,
  cluster: string,
  node: string,
): NodeIdentity {
  if (found?.cluster === cluster && found.name === node) return found;
  if (found === null) {
    throw new UnderstudyError(
      'NOT_INITIALISED',
      `node ${node} belongs to no cluster`,
      'Run: understudy init',
    );
  }
  throw new UnderstudyError(
    'PREREQUISITE',
    `the database of node ${node} is node ${found.name} of cluster ${found.cluster}`,
    'Correct the URL of the node in understudy.yaml.',
  );
}
