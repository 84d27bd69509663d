/**
 * The verb `rebuild`: asks the agent of a follower, through the control log, to rebuild it from the
 * log, and returns once that has begun. Where no agent runs, this process takes the node's lock and
 * prepares the rebuild, which the next agent of the node continues. Requested again it answers the
 * same.
 */
import type { Client } from 'pg';
import { readNode } from '../../catalog/understudy-schema.ts';
import { ownerOf } from '../../control/claim.ts';
import { builtAlready } from '../../errors/follower.ts';
import { leaderNotRebuildable } from '../../errors/node-state.ts';
import { deposed } from '../../errors/ownership.ts';
import { agentTimeout } from '../../errors/timed-out.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import { readBootstrap } from '../../follower/state/bootstrap-state.ts';
import { type RebuildWay, readPendingRebuild } from '../../follower/state/rebuild-state.ts';
import { Releasers } from '../../lifecycle.ts';
import type { Cluster } from '../cluster.ts';
import { openFleetLog, requireAttached, requireMember } from '../node/member-session.ts';
import { isLocked } from '../node/node-lock.ts';
import { askAgent, rebuildWaitMs } from '../node/requests.ts';
import { requireCurrentSchema } from '../node/schema-upgrade.ts';
import type { RebuildResult } from '../provision/rebuilding.ts';
import { byAgentOrHere, type StandIn } from './stand-in.ts';

interface RebuildRequest {
  readonly node: string;
  /** Null is the configured way. */
  readonly way: RebuildWay | null;
  /** Ends the wait; an agent that has begun continues. */
  readonly signal: AbortSignal;
}

/** The answer of the command. */
export interface RebuildAnswer extends RebuildResult {
  /** Whether an agent rebuilds it now; else one has to be started. */
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
    if (ownerOf(state)?.node === node) throw leaderNotRebuildable(node);
    requireAttached(state, node);
    const client = await cluster.openSession(releasers, node, 'rebuild');
    const identity = requireMember(await readNode(client), cluster.name, node);
    await requireCurrentSchema(cluster, node, client);
    if (identity.role === 'leader') throw deposed(node, ownerOf(state)?.node ?? null);
    if ((await readPendingRebuild(client)) === null) await requireRows(node, client);
    const { around } = cluster;
    const question = {
      ...{ id: around.randomId(), step: 'start', verb: 'rebuild', node },
      args: { way },
    };
    const late = (cause: unknown): UnderstudyError => {
      return agentTimeout(node, 'rebuild', rebuildWaitMs, cause);
    };
    const options = { timeoutMs: rebuildWaitMs, signal, late, around };
    return await byAgentOrHere<RebuildAnswer>({
      isServed: () => isLocked(client),
      ask: async () => {
        const result = (await askAgent(control, question, options)) as unknown as RebuildResult;
        return { ...result, agentRuns: true };
      },
      here: async () => {
        people(`no agent serves node ${node}: its next agent rebuilds it`);
        return { ...(await standIn.rebuild(cluster, node, way)), agentRuns: false };
      },
    });
  } finally {
    await releasers.close();
  }
}

/** A node that is being built from the log holds no older rows to replace. */
async function requireRows(node: string, client: Client): Promise<void> {
  if ((await readBootstrap(client)) !== null) throw builtAlready(node);
}
