/**
 * The stand-in of commands for an agent that does not run: it takes the node's lock, has an agent
 * perform the one step in this process, and releases the node. The result is the one that the agent
 * would have answered with.
 */
import type { Cluster } from '../fleet/cluster.ts';
import { type NodeAccess, openNode } from '../fleet/node/node-access.ts';
import type { StandIn } from '../fleet/operations/stand-in.ts';
import { beginEpochWithNewSlot } from '../fleet/promotion/new-slot.ts';
import { PromotionRequest } from '../fleet/promotion/promotion-request.ts';
import { beginRebuild } from '../fleet/provision/rebuilding.ts';
import { closeTimeoutMs, Releasers } from '../lifecycle.ts';
import { Agent } from './agent.ts';
import { AgentFigures } from './agent-figures.ts';
import { Evidence } from './evidence.ts';

export const agentStandIn: StandIn = {
  promote: (cluster, name, epoch) =>
    withAgent(cluster, name, async (agent, node, ending) => {
      const { nowMs } = node.cluster.around;
      const promotion = new PromotionRequest({ node: name, mayClaim: epoch, nowMs, asked: null });
      const led = promotion.leads.then(() => ending.abort());
      await Promise.race([agent.promote(promotion, ending.signal), node.lost]);
      await led;
      return await promotion.leads;
    }),

  detach: (cluster, name, to) =>
    withAgent(cluster, name, (agent, node, ending) => {
      return Promise.race([agent.detach(to, ending.signal), node.lost]);
    }),

  beginNextEpoch: (cluster, name) =>
    withNode(cluster, name, (node, releasers) => {
      return Promise.race([beginEpochWithNewSlot(node, releasers), node.lost]);
    }),

  rebuild: (cluster, name, way) =>
    withAgent(cluster, name, (_, node) => {
      return Promise.race([beginRebuild(node, way, 'it was asked for'), node.lost]);
    }),
};

async function withAgent<Result>(
  cluster: Cluster,
  name: string,
  work: (agent: Agent, node: NodeAccess, ending: AbortController) => Promise<Result>,
): Promise<Result> {
  const ending = new AbortController();
  return withNode(cluster, name, async (node, releasers) => {
    try {
      const figures = new AgentFigures(name, cluster.around.nowMs, null);
      const evidence = new Evidence(cluster.around.nowMs);
      const events = { figures, evidence, onWorking: () => undefined };
      const agent = new Agent(node, releasers, events);
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
