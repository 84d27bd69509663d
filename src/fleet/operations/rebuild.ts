/**
 * A rebuild as the command line asks for it. Flows in: a follower and the way; flows out: that it
 * has begun, and where it takes place. The node's own agent does it, asked through the control log;
 * where none runs, this process takes the node's lock and leaves the mark that the next start of
 * the agent goes on from. Asked again it answers the same.
 */

import { readNode } from '../../catalog/understudy-schema.ts';
import { ownerOf } from '../../control/claim.ts';
import { deposed } from '../../errors/ownership.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { type BootstrapState, readBootstrap } from '../../follower/state/bootstrap-state.ts';
import { type RebuildWay, readPendingRebuild } from '../../follower/state/rebuild-state.ts';
import { Releasers } from '../../lifecycle.ts';
import type { Cluster } from '../cluster.ts';
import { askAgent } from '../node/agent-question.ts';
import { openFleetLog, requireAttached, requireMember } from '../node/member-session.ts';
import { isLocked } from '../node/node-lock.ts';
import { rebuildWaitMs } from '../node/requests.ts';
import type { RebuildResult } from '../provision/rebuilding.ts';
import type { StandIn } from './stand-in.ts';

interface RebuildRequest {
  readonly node: string;
  /** Null is the way of the configuration. */
  readonly way: RebuildWay | null;
  /** Stops the waiting; an agent that has begun goes on. */
  readonly signal: AbortSignal;
}

/** What is told: whether anybody goes on with it stands there too. */
export interface RebuildAnswer extends RebuildResult {
  /** Whether an agent builds it; else one has to be started. */
  readonly agentRuns: boolean;
}

export async function rebuild(
  cluster: Cluster,
  { node, way: asked, signal }: RebuildRequest,
  standIn: StandIn,
  people: (line: string) => void,
): Promise<RebuildAnswer> {
  const way = asked ?? (cluster.settings.rebuild === 'in-place' ? 'in-place' : 'swap');
  const releasers = new Releasers();
  try {
    const control = await openFleetLog(cluster, releasers);
    await control.verify();
    const { state } = control;
    if (ownerOf(state)?.node === node) throw leads(node);
    requireAttached(state, node);
    const client = await cluster.openSession(releasers, node, 'rebuild');
    const identity = requireMember(await readNode(client), cluster.name, node);
    if (identity.role === 'leader') throw deposed(node, ownerOf(state)?.node ?? null);
    if ((await readPendingRebuild(client)) === null) requireRows(node, await readBootstrap(client));
    if (!(await isLocked(client))) {
      people(`no agent serves node ${node}: it is rebuilt once one does`);
      return { ...(await standIn.rebuild(cluster, node, way)), agentRuns: false };
    }
    const { around } = cluster;
    const question = {
      ...{ id: around.randomId(), step: 'start', verb: 'rebuild', node },
      args: { way },
    };
    const late = (cause: unknown): UnderstudyError => notBegun(node, cause);
    const options = { timeoutMs: rebuildWaitMs, signal, late, around };
    const result = (await askAgent(control, question, options)) as unknown as RebuildResult;
    return { ...result, agentRuns: true };
  } finally {
    await releasers.close();
  }
}

/** One that is being built from the log has nothing older to be rid of. */
function requireRows(node: string, building: BootstrapState | null): void {
  if (building === null) return;
  throw new UnderstudyError(
    'UNFINISHED',
    `node ${node} is being built from the log already`,
    'See how far it is: understudy status',
  );
}

function leads(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} leads: its rows are what the others are built from`,
    'Rebuild a follower: understudy status',
  );
}

function notBegun(node: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the agent of node ${node} did not answer within ${rebuildWaitMs / 1000} s`,
    `See its log and understudy status, then ask again: understudy rebuild ${node}`,
    cause,
  );
}
