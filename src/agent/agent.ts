/**
 * The agent of one node. It leads while the control log says that the epoch is its own, follows
 * otherwise, and changes its role when a request says so. One call of serveNode is one attempt: it
 * takes the node's lock, reads the control log, works in one role, and ends with the first error or
 * change of role; everything is closed, and the next attempt begins at the lock.
 */
import { saveDdlPolicy } from '../catalog/schema-changes.ts';
import type { EpochLsn } from '../change/position.ts';
import { isMine, ownerOf } from '../control/claim.ts';
import { deposed, notBuilt } from '../errors/ownership.ts';
import { leaderCannotStopAt, rebuildCannotStopAt } from '../errors/prerequisite.ts';
import { detachInterrupted } from '../errors/timed-out.ts';
import { hit } from '../failpoints.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { type NodeAccess, type NodeDatabase, openNode } from '../fleet/node/node-access.ts';
import { RequestDesk } from '../fleet/node/request-desk.ts';
import { type AgentRequest, epochOf } from '../fleet/node/requests.ts';
import { type DetachResult, detachNode, requireBuilt } from '../fleet/operations/detach-steps.ts';
import { requireUnsucceeded } from '../fleet/promotion/leader-restart.ts';
import { PromotionRequest } from '../fleet/promotion/promotion-request.ts';
import { startOver } from '../fleet/provision/building.ts';
import {
  type FollowerAtWork,
  type FollowerEvents,
  whileFollowing,
} from '../fleet/provision/following.ts';
import { prepareNewNode } from '../fleet/provision/new-node.ts';
import {
  continueRebuild,
  dropReplaced,
  mayRebuild,
  rebuildStale,
} from '../fleet/provision/rebuilding.ts';
import type { ApplyLimit } from '../follower/apply/apply-portion.ts';
import { BootstrapRestart } from '../follower/bootstrap/bootstrap-restart.ts';
import { readPendingRebuild } from '../follower/state/rebuild-state.ts';
import { dropSlot, listSlots } from '../leader/stream/slot.ts';
import { closeTimeoutMs, Releasers } from '../lifecycle.ts';
import { slotPattern } from '../topic/records/layout.ts';
import { noteStop, noteWorking } from './agent-stop.ts';
import { type Evidence, requireWholeTopic, weigh } from './evidence.ts';
import { type AttemptEnd, answerDetach, answerRebuild, nextTask } from './follower-tasks.ts';
import { type AgentWork, guardNode, runAsLeader } from './leader-run.ts';

interface AgentEvents extends Pick<AgentWork, 'figures' | 'onWorking'> {
  /** The node's lock is held and its log is read. */
  readonly onServed: () => void;
  readonly evidence: Evidence;
}

interface ServeOptions {
  /** Where its follower is to stop; null where it follows for good. */
  readonly until: EpochLsn | null;
  /** Whether the database may take the place of the one from which the node was served. */
  readonly mayReplace: boolean;
}

/**
 * One attempt. Resolves when `signal` aborts, the role changes, the follower has stopped at `until`
 * or the node was detached; rejects with the first error.
 */
export async function serveNode(
  cluster: Cluster,
  name: string,
  signal: AbortSignal,
  events: AgentEvents,
  { until, mayReplace }: ServeOptions,
): Promise<AttemptEnd> {
  const releasers = new Releasers(closeTimeoutMs);
  const inner = new AbortController();
  try {
    const prepare = (database: NodeDatabase): Promise<void> => {
      return prepareNewNode(database, { until, mayReplace });
    };
    const node = await openNode(cluster, name, releasers, { prepare, until, mayReplace });
    events.onServed();
    await hit('agent.after-start');
    const agent = new Agent(node, releasers, events);
    const lost = node.lost.catch((error: unknown) => {
      inner.abort();
      throw error;
    });
    return await Promise.race([agent.run(AbortSignal.any([signal, inner.signal])), lost]);
  } finally {
    inner.abort();
    const failures = await releasers.close();
    for (const error of failures) cluster.around.log.warn({ error, node: name }, 'closing failed');
  }
}

export class Agent {
  readonly #node: NodeAccess;
  readonly #releasers: Releasers;
  readonly #work: AgentWork;
  readonly #evidence: Evidence;

  constructor(
    node: NodeAccess,
    releasers: Releasers,
    { figures, onWorking, evidence }: Omit<AgentEvents, 'onServed'>,
  ) {
    const desk = new RequestDesk(node.control, node.name, node.cluster.around.nowMs);
    releasers.push('the request desk', () => desk.close());
    this.#node = node;
    this.#releasers = releasers;
    this.#evidence = evidence;
    const works = (): void => {
      onWorking();
      // Its failure is logged there, and stops nothing.
      void noteWorking(node);
    };
    this.#work = { node, releasers, desk, figures, onWorking: works };
  }

  async run(signal: AbortSignal): Promise<AttemptEnd> {
    const { control, identity, name } = this.#node;
    const leads = identity.role === 'leader' && ownerOf(control.state)?.node === name;
    // rule: damaged-leader-stays-stopped
    if (leads) requireWholeTopic(control.state, name);
    try {
      return await this.#serve(signal);
    } catch (error) {
      if (await weigh(this.#node, this.#evidence, error)) return 'next';
      await noteStop(this.#node, error);
      throw error;
    }
  }

  /** The role follows from the control log and from what the database says of itself. */
  async #serve(signal: AbortSignal): Promise<AttemptEnd> {
    const { control, name, identity, until } = this.#node;
    const owner = ownerOf(control.state);
    const isOwner = owner !== null && isMine(control.state, name, owner.epoch);
    if (isOwner && until !== null) throw leaderCannotStopAt(name);
    await saveDdlPolicy(this.#node.client, this.#node.cluster.settings.refusesDdl);
    if (isOwner && identity.role === 'leader') {
      await runAsLeader(this.#work, null, signal);
      return 'next';
    }
    await guardNode(this.#node);
    if (identity.role === 'leader') {
      const asked = this.#work.desk.takeFailover();
      if (asked === null) throw deposed(name, owner?.node ?? null);
      await this.#promote(null, this.#requestOf(asked), signal);
      return 'next';
    }
    if (!isOwner) await this.#dropOldSlots();
    await dropReplaced(this.#node);
    try {
      const rebuild = await readPendingRebuild(this.#node.client);
      if (rebuild === null) return await this.#follow(isOwner, signal);
      if (until !== null) throw rebuildCannotStopAt(name);
      const events = this.#followerEvents();
      const work = { releasers: this.#releasers, desk: this.#work.desk, events };
      await continueRebuild(this.#node, rebuild, work, signal);
      return 'next';
    } catch (error) {
      if (error instanceof BootstrapRestart) await startOver(this.#node, this.#node.client, error);
      else if (until === null && mayRebuild(this.#node, error)) {
        await rebuildStale(this.#node, error);
      } else throw error;
      return 'next';
    }
  }

  /** Slots of a promotion that was not completed would keep WAL for ever. */
  async #dropOldSlots(): Promise<void> {
    const { client, cluster } = this.#node;
    for (const slot of await listSlots(client, slotPattern(cluster.name))) {
      await dropSlot(client, slot);
    }
  }

  /** Until a task ends it. An owner here was interrupted by a crash after its claim. */
  async #follow(isOwner: boolean, signal: AbortSignal): Promise<AttemptEnd> {
    const { desk } = this.#work;
    const end = await this.#whileFollowing(signal, async (following): Promise<AttemptEnd> => {
      const task = isOwner ? null : await nextTask(this.#node, desk, following);
      if (task === 'stopped') return 'stopped';
      if (!isOwner && task === null) return 'next';
      if (task?.verb === 'detach') return answerDetach(this.#node, desk, following, task);
      if (task?.verb === 'rebuild') return answerRebuild(this.#node, desk, task);
      await this.#promote(following, this.#requestOf(task), signal);
      return 'next';
    });
    return end ?? 'next';
  }

  #requestOf(task: AgentRequest | null): PromotionRequest {
    const { desk, node } = this.#work;
    const asked = task === null ? null : { request: task, desk };
    const { nowMs } = node.cluster.around;
    return new PromotionRequest({ node: node.name, mayClaim: epochOf(task), nowMs, asked });
  }

  /** Without a follower it is a former leader. */
  async #promote(
    following: FollowerAtWork | null,
    request: PromotionRequest,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      if (following === null) await requireUnsucceeded(this.#node);
      await runAsLeader(this.#work, { following, request }, signal);
    } catch (error) {
      // The requester gets the error, and this node continues in the role that the control log
      // gives it now. Without a requester, or once it leads, the error is the agent's own.
      if (!request.isAwaited) throw error;
      await request.failed(error);
      this.#node.cluster.around.log.warn({ node: this.#node.name, error }, 'not promoted');
    }
  }

  /** Detaches at once, for a command that stands in for the agent. */
  async detach(to: EpochLsn | null, signal: AbortSignal): Promise<DetachResult> {
    await guardNode(this.#node);
    // At its own position its rows are right, whatever the state of the topic.
    if (to === null) return detachNode(this.#node, null, null);
    await requireBuilt(this.#node.name, this.#node.client);
    const detach = (following: FollowerAtWork): Promise<DetachResult> => {
      return detachNode(this.#node, following, to);
    };
    const detached = await this.#whileFollowing(signal, detach, { kind: 'to', at: to });
    if (detached !== null) return detached;
    throw detachInterrupted(this.#node.name);
  }

  /** Promotes at once, for a command that stands in for the agent. */
  async promote(request: PromotionRequest, signal: AbortSignal): Promise<void> {
    await guardNode(this.#node);
    if (this.#node.identity.role === 'leader') {
      await requireUnsucceeded(this.#node);
      await runAsLeader(this.#work, { following: null, request }, signal);
      return;
    }
    // rule: no-promotion-while-rebuild-waits
    if ((await readPendingRebuild(this.#node.client)) !== null) throw notBuilt(this.#node.name);
    await this.#whileFollowing(signal, (following) => {
      return runAsLeader(this.#work, { following, request }, signal);
    });
  }

  #whileFollowing<Result>(
    signal: AbortSignal,
    work: (following: FollowerAtWork) => Promise<Result>,
    limit?: ApplyLimit,
  ): Promise<Result | null> {
    return whileFollowing(this.#node, this.#releasers, this.#followerEvents(), signal, work, limit);
  }

  #followerEvents(): FollowerEvents {
    const { figures, onWorking } = this.#work;
    return {
      onFollowing: (follower) => {
        figures.onFollowing(follower);
        onWorking();
      },
      onApplied: (rows) => figures.onApplied(rows),
      timing: (reader) => figures.timing(reader),
    };
  }
}
