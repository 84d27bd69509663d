/**
 * What a command does in the place of an agent where none runs. The stand-in takes the node's lock,
 * performs the one step that the agent would have performed, and releases the node. The room of the
 * agent implements it, and commands hand it in: operations do not know agents.
 */
import type { EpochLsn } from '../../change/position.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import type { RebuildWay } from '../../follower/state/rebuild-state.ts';
import type { Cluster } from '../cluster.ts';
import type { PromotionResult } from '../promotion/promotion-request.ts';
import type { RebuildResult } from '../provision/rebuilding.ts';
import type { DetachResult } from './detach-steps.ts';

/** Every method throws NODE_LOCKED where an agent serves the node. */
export interface StandIn {
  /** Promotes the node to leader of this epoch, and releases it once it leads. */
  promote(cluster: Cluster, node: string, epoch: number): Promise<PromotionResult>;

  /** `to` is null for the node's own position. */
  detach(cluster: Cluster, node: string, to: EpochLsn | null): Promise<DetachResult>;

  /** For a leader whose slot is lost: returns the epoch that begins with another slot. */
  beginNextEpoch(cluster: Cluster, node: string): Promise<number>;

  /** Prepares the rebuild, which the next agent of the node continues. */
  rebuild(cluster: Cluster, node: string, way: RebuildWay): Promise<RebuildResult>;
}

interface Ways<Result> {
  /** Whether an agent holds the lock of the node now. */
  readonly isServed: () => Promise<boolean>;
  /** Null when the agent ended without an answer. */
  readonly ask: () => Promise<Result | null>;
  /** By the stand-in. */
  readonly here: () => Promise<Result>;
}

/** An agent that starts and ends all the time is not followed for ever. */
const roundsMax = 3;

/**
 * Asks the agent of the node, or does the work here where none runs. An agent that takes the lock
 * between the two gets the request: the stand-in has done nothing then.
 */
export async function byAgentOrHere<Result>({
  isServed,
  ask,
  here,
}: Ways<Result>): Promise<Result> {
  for (let round = 1; ; round += 1) {
    if (await isServed()) {
      const answer = await ask();
      if (answer !== null) return answer;
    }
    try {
      return await here();
    } catch (error) {
      if (round >= roundsMax || !hasCode(error, 'NODE_LOCKED')) throw error;
    }
  }
}
