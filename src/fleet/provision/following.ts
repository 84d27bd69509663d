/**
 * A follower at work in its node. Flows in: a node whose lock is held, and what is to be done while
 * it follows; flows out: the result of that. A node that is being built is built first. Whatever
 * ends the work ends the follower.
 */

import type { AgentFigures } from '../../agent/agent-figures.ts';
import { Follower } from '../../follower/follower.ts';
import type { Releasers } from '../../lifecycle.ts';
import { brokerNowMs } from '../node/kept-records.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { buildNode } from './building.ts';
import type { FollowerAtWork } from './follower-at-work.ts';
import { followAndBuild } from './schema-finish.ts';

export interface WorkEvents {
  /** It leads or follows. */
  readonly onWorking: () => void;
  readonly figures: AgentFigures;
}

/** Null when `signal` was aborted before the follower could begin. */
export async function whileFollowing<Result>(
  node: NodeAccess,
  releasers: Releasers,
  { onWorking, figures }: WorkEvents,
  signal: AbortSignal,
  work: (following: FollowerAtWork) => Promise<Result>,
): Promise<Result | null> {
  const { decoder, cluster, name, partitions } = node;
  const { log } = cluster.around;
  // A session of its own: nothing else of this agent may get into the applier's transaction.
  const client = await cluster.openSession(releasers, name, 'applier');
  const reader = cluster.openReader(releasers, partitions);
  await buildNode({ node, client, reader }, signal);
  if (signal.aborted) return null;
  const follower = await Follower.open({
    client,
    reader,
    decoder,
    brokerNowMs: () => brokerNowMs(node.control),
    smallestCompactionLagMs: node.control.state.smallestCompactionLagMs,
    delayMs: cluster.settings.delayMs(name),
    nowMs: cluster.around.nowMs,
    onApplied: (position, rows) => {
      figures.applied(rows);
      log.debug({ node: name, position, rows }, 'applied');
    },
    onEpoch: ({ epoch, leader }) => log.info({ node: name, epoch, leader }, 'a new epoch begins'),
    onExact: () => log.info({ node: name }, 'this node is exact now'),
  });
  log.info({ node: name, at: follower.position.at }, 'following');
  figures.follows(follower);
  onWorking();
  const stop = (): void => follower.stop();
  signal.addEventListener('abort', stop);
  const following = followAndBuild(node, releasers, follower);
  // Whoever works with the follower hears of its end; until then nobody else has to.
  following.ended.catch(() => undefined);
  try {
    return await work(following);
  } finally {
    signal.removeEventListener('abort', stop);
    follower.stop();
    await Promise.allSettled([following.ended]);
  }
}
