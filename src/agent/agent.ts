/**
 * The agent of one node: leads while the control log says that the epoch is its own, follows
 * otherwise, and changes from one to the other when it is asked to. Flows in: the control log and
 * requests in it; flows out: a node that does exactly one of the two. One call is one attempt: the
 * first error ends it, everything is closed, and the next attempt begins at the lock again.
 */

import type { EpochLsn } from '../change/position.ts';
import { isMine, ownerOf } from '../control/claim.ts';
import { deposed, notBuilt } from '../errors/ownership.ts';
import { detachInterrupted } from '../errors/timed-out.ts';
import { hasCode, UnderstudyError } from '../errors/understudy-error.ts';
import { hit } from '../failpoints.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { type NodeAccess, type NodeDatabase, openNode } from '../fleet/node/node-access.ts';
import { epochAsked, RequestDesk } from '../fleet/node/requests.ts';
import { type DetachResult, detachNode, requireBuilt } from '../fleet/operations/detach-steps.ts';
import { Promotion, resultOf } from '../fleet/promotion/promotion-request.ts';
import { type Lead, LeadTaking } from '../fleet/promotion/promotion-steps.ts';
import { startOver } from '../fleet/provision/building.ts';
import type { FollowerAtWork } from '../fleet/provision/following.ts';
import { type FollowerEvents, whileFollowing } from '../fleet/provision/following.ts';
import { prepareNewNode } from '../fleet/provision/new-node.ts';
import {
  continueRebuild,
  dropReplaced,
  mayRebuild,
  rebuildStale,
} from '../fleet/provision/rebuilding.ts';
import { BootstrapRestart } from '../follower/bootstrap/bootstrap-restart.ts';
import { restoreTriggers, suspendTriggers } from '../follower/schema/suspended-triggers.ts';
import { readPendingRebuild } from '../follower/state/rebuild-state.ts';
import { armGuard, disarmGuard } from '../follower/write-guard.ts';
import { type LeaderParts, lead } from '../leader/leader.ts';
import { dropSlot, listSlots } from '../leader/stream/slot.ts';
import { closeTimeoutMs, Releasers } from '../lifecycle.ts';
import { publicationName, slotPrefix } from '../topic/records/layout.ts';
import type { AgentFigures } from './agent-figures.ts';
import { recordDamage } from './damage.ts';
import {
  type AttemptEnd,
  answerDetach,
  answerRebuild,
  nextTask,
  standsNowhere,
  stopsNowhere,
} from './follower-tasks.ts';
import { whileLeading } from './reign-tasks.ts';

interface WorkEvents {
  /** It leads or follows. */
  readonly onWorking: () => void;
  readonly figures: AgentFigures;
}

/** What an agent reports of an attempt. */
interface AgentEvents extends WorkEvents {
  /** The node's lock is held and its log is read. */
  readonly onServed: () => void;
}

/**
 * One attempt: resolves when `signal` aborts, the role changes, the node stands at `until` or was
 * detached; rejects with the first error.
 */
export async function serveNode(
  cluster: Cluster,
  name: string,
  signal: AbortSignal,
  events: AgentEvents,
  until: EpochLsn | null = null,
): Promise<AttemptEnd> {
  const releasers = new Releasers(closeTimeoutMs);
  const inner = new AbortController();
  try {
    const prepare = (database: NodeDatabase): Promise<void> => prepareNewNode(database, { until });
    const node = await openNode(cluster, name, releasers, { prepare, until });
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
    for (const error of failures) cluster.around.log.warn({ error, node: name }, 'while closing');
  }
}

export class Agent {
  readonly #node: NodeAccess;
  readonly #releasers: Releasers;
  readonly #desk: RequestDesk;
  readonly #events: WorkEvents;

  constructor(node: NodeAccess, releasers: Releasers, events: WorkEvents) {
    this.#node = node;
    this.#releasers = releasers;
    this.#events = events;
    this.#desk = new RequestDesk(node.control, node.name, node.cluster.around.nowMs);
    releasers.push('the request desk', () => this.#desk.close());
  }

  get #followerEvents(): FollowerEvents {
    const { figures, onWorking } = this.#events;
    return {
      onFollowing: (follower) => {
        figures.follows(follower);
        onWorking();
      },
      onApplied: (rows) => figures.applied(rows),
    };
  }

  async run(signal: AbortSignal): Promise<AttemptEnd> {
    try {
      return await this.#serve(signal);
    } catch (error) {
      if (hasCode(error, 'DAMAGED')) {
        await recordDamage(this.#node, error);
      }
      throw error;
    }
  }

  async #serve(signal: AbortSignal): Promise<AttemptEnd> {
    const { control, name, identity, until } = this.#node;
    const owner = ownerOf(control.state);
    const mine = owner !== null && isMine(control.state, name, owner.epoch);
    if (mine && until !== null) throw stopsNowhere(name);
    if (mine && identity.role === 'leader') {
      await this.#lead(null, signal);
      return 'again';
    }
    await this.#guard();
    if (identity.role === 'leader') throw deposed(name, owner?.node ?? null);
    if (!mine) await this.#dropOldSlots();
    await dropReplaced(this.#node);
    try {
      const rebuild = await readPendingRebuild(this.#node.client);
      if (rebuild === null) return await this.#follow(mine, signal);
      if (until !== null) throw standsNowhere(name);
      const work = { releasers: this.#releasers, events: this.#followerEvents, desk: this.#desk };
      await continueRebuild(this.#node, rebuild, work, signal);
      return 'again';
    } catch (error) {
      if (error instanceof BootstrapRestart) await startOver(this.#node, this.#node.client, error);
      else if (until === null && mayRebuild(this.#node, error)) {
        await rebuildStale(this.#node, error);
      } else throw error;
      return 'again';
    }
  }

  /** Armed on every start that does not lead, before anything else is done. */
  async #guard(): Promise<void> {
    await armGuard(this.#node.client);
    await suspendTriggers(this.#node.client);
  }

  /** Slots of a promotion that did not come about would keep WAL for ever. */
  async #dropOldSlots(): Promise<void> {
    const { client, cluster } = this.#node;
    for (const slot of await listSlots(client, slotPrefix(cluster.name))) {
      await dropSlot(client, slot);
    }
  }

  /**
   * Follows until asked to lead; `mine` is a promotion that a crash interrupted after its claim.
   */
  async #follow(mine: boolean, signal: AbortSignal): Promise<AttemptEnd> {
    const end = await this.#withFollower(signal, async (following): Promise<AttemptEnd> => {
      const asked = mine ? null : await nextTask(this.#node, this.#desk, following);
      if (asked === 'there') return 'there';
      if (!mine && asked === null) return 'again';
      if (asked?.verb === 'detach') return answerDetach(this.#node, this.#desk, following, asked);
      if (asked?.verb === 'rebuild') return answerRebuild(this.#node, this.#desk, asked);
      const promotion = new Promotion(this.#node, epochAsked(asked), asked, this.#desk);
      await this.#promote(following, promotion, signal);
      return 'again';
    });
    return end ?? 'again';
  }

  /** Detaches at once, for a command that stands in for the agent. */
  async detach(to: EpochLsn | null, signal: AbortSignal): Promise<DetachResult> {
    await this.#guard();
    // Where the node stands its rows are right, whatever has become of the topic.
    if (to === null) return detachNode(this.#node, null, null);
    await requireBuilt(this.#node.name, this.#node.client);
    const detached = await this.#withFollower(signal, (following) => {
      return detachNode(this.#node, following, to);
    });
    if (detached !== null) return detached;
    throw detachInterrupted(this.#node.name);
  }

  /** Promotes at once, for a command that stands in for the agent. */
  async promote(promotion: Promotion, signal: AbortSignal): Promise<void> {
    await this.#guard();
    if (this.#node.identity.role === 'leader') throw deposed(this.#node.name, null);
    if ((await readPendingRebuild(this.#node.client)) !== null) throw notBuilt(this.#node.name);
    await this.#withFollower(signal, (following) => this.#lead({ following, promotion }, signal));
  }

  #withFollower<Result>(
    signal: AbortSignal,
    work: (following: FollowerAtWork) => Promise<Result>,
  ): Promise<Result | null> {
    return whileFollowing(this.#node, this.#releasers, this.#followerEvents, signal, work);
  }

  async #promote(
    following: FollowerAtWork,
    promotion: Promotion,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await this.#lead({ following, promotion }, signal);
    } catch (error) {
      // Who asked is told, and this node goes on as what the control log says it is now. Without a
      // request, or once it leads, the error is the agent's own.
      if (!promotion.wasAsked || promotion.done) throw error;
      await promotion.failed(error);
      this.#node.cluster.around.log.warn({ node: this.#node.name, error }, 'not promoted');
    }
  }

  async #lead(
    promoted: { following: FollowerAtWork; promotion: Promotion } | null,
    signal: AbortSignal,
  ): Promise<void> {
    const { log } = this.#node.cluster.around;
    const onStep = (step: string): void => {
      promoted?.promotion.step(step);
      log.info({ node: this.#node.name, step }, 'taking the lead');
    };
    const taking = new LeadTaking(this.#node, this.#releasers, promoted?.following ?? null, onStep);
    const taken = await taking.take(promoted?.promotion.mayClaim ?? null);
    if (taken === null) {
      await this.#guard();
      const owner = ownerOf(this.#node.control.state);
      if (promoted === null) throw deposed(this.#node.name, owner?.node ?? null);
      throw new UnderstudyError(
        'CLAIM_LOST',
        `node ${owner?.node ?? 'of another claim'} took the lead first`,
        'See who leads now: understudy status',
      );
    }
    this.#releasers.push('the producer', () => taken.producer.close());
    await this.#reign(taken, promoted?.promotion ?? null, signal);
  }

  /** Streams until the end, or until another node's claim is seen. */
  async #reign(taken: Lead, promotion: Promotion | null, signal: AbortSignal): Promise<void> {
    const { control, cluster, name } = this.#node;
    const { log } = cluster.around;
    const { onWorking, figures } = this.#events;
    const ended = new AbortController();
    const watch = (): void => {
      if (!isMine(control.state, name, taken.epoch)) ended.abort();
    };
    const unwatch = control.onChange(watch);
    // A claim may have been read between taking the lead and here.
    watch();
    const all = AbortSignal.any([signal, ended.signal]);
    try {
      await lead(this.#leaderParts(taken), all, async (streaming, leading) => {
        // A session of its own: the leader's may be in a transaction that gives a table its id.
        const guardSession = await cluster.openSession(this.#releasers, name, 'guard');
        await restoreTriggers(guardSession);
        await hit('promote.before-unguard');
        if (ended.signal.aborted) return;
        await disarmGuard(guardSession);
        log.info({ node: name, epoch: taken.epoch, at: taken.checkpoint.at }, 'leading');
        figures.leads(taken.checkpoint.at, taken.end.unfinished);
        onWorking();
        const result = promotion?.succeeded(taken) ?? resultOf(name, taken, []);
        await this.#desk.tellLeads({ ...result });
        const [node, desk, client] = [this.#node, this.#desk, guardSession];
        await whileLeading({ node, client, desk, epoch: taken.epoch }, leading, streaming);
      });
    } catch (error) {
      const isFenced = hasCode(error, 'LOST_LEADERSHIP');
      // Whatever failed because the reign is over: the guard comes first.
      if (!isFenced && !ended.signal.aborted) throw error;
      await control.verify();
      // Fenced by a stale owner that stepped down: the epoch is still ours, begin again.
      if (isFenced && isMine(control.state, name, taken.epoch)) {
        throw new UnderstudyError('KAFKA_UNREACHABLE', error.message, error.hint, error);
      }
    } finally {
      unwatch();
    }
    if (signal.aborted) return;
    await this.#guard();
    throw deposed(name, ownerOf(control.state)?.node ?? null);
  }

  #leaderParts(taken: Lead): LeaderParts {
    const { client, control, cluster, name, url, identity, encoder, reader, decoder, partitions } =
      this.#node;
    const { log, nowMs, random, randomId } = cluster.around;
    const { figures } = this.#events;
    return {
      url,
      node: name,
      client,
      streamId: identity.streamId,
      epoch: taken.epoch,
      slot: taken.slot,
      publication: publicationName(cluster.name),
      checkpoint: taken.checkpoint,
      lastPoint: taken.end.point,
      unhealed: taken.end.unhealed,
      unfinished: taken.end.unfinished,
      producer: figures.counting(taken.producer),
      encoder,
      reader,
      decoder,
      pointsEveryMs: cluster.settings.pointsEveryMs,
      patterns: cluster.settings.tables,
      openReadSession: () => cluster.openSession(this.#releasers, name, 'reads'),
      openReader: () => cluster.openReader(this.#releasers, partitions),
      log: log.child({ node: name }),
      randomId,
      onUncovered: (tables) => {
        log.warn(
          { node: name, tables },
          'tables that are not in the stream: publish them, once followers have them too',
        );
      },
      recordLabel: async (label, point, checkpoint) => {
        await control.append({
          kind: 'point',
          label,
          at: checkpoint.at,
          commitTimeMicros: point.commitTimeMicros,
          offsets: checkpoint.nextOffsets.map((offset) => offset - 1n),
        });
      },
      onPoint: (point, checkpoint, records) => {
        figures.published(point, records);
        log.debug({ node: name, at: checkpoint.at, records, counts: point.counts }, 'published');
      },
      nowMs,
      random,
    };
  }
}
