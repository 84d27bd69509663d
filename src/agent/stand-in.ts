/**
 * What a command does in the place of an agent that does not run: takes the node's lock, has its
 * agent do the one thing, and lets go. Flows in: a node and what is wanted of it; flows out: the
 * result that the agent would have answered with.
 */
import type { EpochLsn } from '../change/position.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { type NodeAccess, openNode } from '../fleet/node/node-access.ts';
import type { DetachResult } from '../fleet/operations/detach-steps.ts';
import { beginNextEpoch } from '../fleet/promotion/new-slot.ts';
import { Promotion, type PromotionResult } from '../fleet/promotion/promotion-request.ts';
import { beginRebuild, type RebuildResult } from '../fleet/provision/rebuilding.ts';
import type { RebuildWay } from '../follower/state/rebuild-state.ts';
import { closeTimeoutMs, Releasers } from '../lifecycle.ts';
import { Agent } from './agent.ts';
import { AgentFigures } from './agent-figures.ts';

/** Promotes the node and lets go once it leads. */
export async function promoteHere(
  cluster: Cluster,
  name: string,
  epoch: number,
): Promise<PromotionResult> {
  return standIn(cluster, name, async (agent, node, ending) => {
    const promotion = new Promotion(node, epoch);
    const led = promotion.leads.then(() => ending.abort());
    await Promise.race([agent.promote(promotion, ending.signal), node.lost]);
    await led;
    return await promotion.leads;
  });
}

/** `to` is null for the place where the node stands. */
export async function detachHere(
  cluster: Cluster,
  name: string,
  to: EpochLsn | null,
): Promise<DetachResult> {
  return standIn(cluster, name, (agent, node, ending) => {
    return Promise.race([agent.detach(to, ending.signal), node.lost]);
  });
}

/** Gives the epoch that begins. */
export async function beginNextEpochHere(cluster: Cluster, name: string): Promise<number> {
  return withNode(cluster, name, (node, releasers) => {
    return Promise.race([beginNextEpoch(node, releasers), node.lost]);
  });
}

/** Leaves the checkpoint from which the node's next agent goes on. */
export async function rebuildHere(
  cluster: Cluster,
  name: string,
  way: RebuildWay,
): Promise<RebuildResult> {
  return standIn(cluster, name, (_, node) => {
    return Promise.race([beginRebuild(node, way, 'it was asked for'), node.lost]);
  });
}

async function standIn<Result>(
  cluster: Cluster,
  name: string,
  work: (agent: Agent, node: NodeAccess, ending: AbortController) => Promise<Result>,
): Promise<Result> {
  const ending = new AbortController();
  return withNode(cluster, name, async (node, releasers) => {
    try {
      const figures = new AgentFigures(name, cluster.around.nowMs, () => null);
      const agent = new Agent(node, releasers, { figures, onWorking: () => undefined });
      return await work(agent, node, ending);
    } finally {
      ending.abort();
    }
  });
}

async function withNode<Result>(
  cluster: Cluster,
  name: string,
  work: (node: NodeAccess, releasers: Releasers) => Promise<Result>,
): Promise<Result> {
  const releasers = new Releasers(closeTimeoutMs);
  try {
    return await work(await openNode(cluster, name, releasers, { prepare: null }), releasers);
  } finally {
    await releasers.close();
  }
}
