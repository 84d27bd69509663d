/**
 * A follower that runs, and the building of its schema beside it. It takes a node whose lock is
 * held and work to do while the node follows, and gives the result of that work. A node that is
 * being built is built first. The end of the work, however it comes, ends the follower.
 */

import { repairedTo } from '../../control/control-state.ts';
import type { ApplyLimit } from '../../follower/apply/apply-portion.ts';
import { Follower } from '../../follower/follower.ts';
import type { OpenBuild } from '../../follower/schema/schema-build.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { smallestCompactionLagMs } from '../node/compaction-lag.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { brokerNowMs } from './build-start.ts';
import { buildNode } from './building.ts';
import { SchemaFinishing } from './schema-finish.ts';

export interface FollowerAtWork {
  readonly follower: Follower;
  /** Settles when its run has ended, with its error or with that of the schema's building. */
  readonly ended: Promise<void>;
  /** Builds the rest of the schema now, and gives what this node refuses of it. */
  readonly finishSchema: () => Promise<OpenBuild | null>;
}

/** Reported for monitoring. */
export interface FollowerEvents {
  onFollowing(follower: Pick<Follower, 'position' | 'caughtUp'>): void;
  onApplied(rows: number): void;
  /** Gives the reader that the follower reads with. */
  timing(reader: CommittedReader): CommittedReader;
}

/** Null when `signal` was aborted before the follower could begin. */
export async function whileFollowing<Result>(
  node: NodeAccess,
  releasers: Releasers,
  events: FollowerEvents,
  signal: AbortSignal,
  work: (following: FollowerAtWork) => Promise<Result>,
  /** Set before the first batch is applied: a follower does not move backwards. */
  limit: ApplyLimit = { kind: 'none' },
): Promise<Result | null> {
  const { decoder, cluster, name, partitions } = node;
  const { log } = cluster.around;
  // A session of its own: no other statement of this agent may enter the applier's transaction.
  const client = await cluster.openSession(releasers, name, 'applier');
  const reader = events.timing(cluster.openReader(releasers, partitions));
  await buildNode({ node, client, reader }, signal);
  if (signal.aborted) return null;
  const follower = await Follower.open({
    client,
    reader,
    decoder,
    brokerNowMs: () => brokerNowMs(node.control),
    smallestCompactionLagMs: () => smallestCompactionLagMs(cluster, node.control),
    repairedTo: repairedTo(node.control.state),
    delayMs: cluster.settings.delayMs(name),
    nowMs: cluster.around.nowMs,
    onApplied: (position, rows) => {
      events.onApplied(rows);
      log.debug({ node: name, position, rows }, 'applied');
    },
    onEpoch: ({ epoch, leader }) => log.info({ node: name, epoch, leader }, 'a new epoch begins'),
    onExact: () => log.info({ node: name }, 'this node is exact now'),
  });
  follower.setLimit(limit);
  log.info({ node: name, at: follower.position.at }, 'following');
  events.onFollowing(follower);
  const stop = (): void => follower.stop();
  signal.addEventListener('abort', stop);
  const following = runWithSchema(node, releasers, follower);
  // The work awaits `ended`; where it does not, it has ended for a reason of its own.
  following.ended.catch(() => undefined);
  try {
    return await work(following);
  } finally {
    signal.removeEventListener('abort', stop);
    follower.stop();
    await Promise.allSettled([following.ended]);
  }
}

/** A failure of one of the two ends the other. */
function runWithSchema(node: NodeAccess, releasers: Releasers, follower: Follower): FollowerAtWork {
  const stopping = new AbortController();
  const finishing = new SchemaFinishing(node, releasers, follower, stopping.signal);
  const following = follower.run().finally(() => stopping.abort());
  const building = finishing.run().catch((error: unknown) => {
    follower.stop();
    throw error;
  });
  const ended = Promise.allSettled([following, building]).then((all) => {
    for (const one of all) if (one.status === 'rejected') throw one.reason;
  });
  return { follower, ended, finishSchema: () => finishing.now() };
}
