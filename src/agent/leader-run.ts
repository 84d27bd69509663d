/**
 * One run as leader: from the steps that own an epoch until the stream ends. It takes a node, a
 * leader that restarts or a follower to promote, and returns when `signal` aborts; any other end is
 * an error. When the epoch is lost, it arms the write guard before it reports anything.
 */
import type { Client } from 'pg';
import type { SchemaChange } from '../catalog/schema-changes.ts';
import { ownerOf } from '../control/claim.ts';
import { claimLost, deposed } from '../errors/ownership.ts';
import { hasCode } from '../errors/understudy-error.ts';
import { fencedByStaleOwner } from '../errors/unreachable.ts';
import { hit } from '../failpoints.ts';
import { keepNotingLag } from '../fleet/node/compaction-lag.ts';
import type { NodeAccess } from '../fleet/node/node-access.ts';
import type { RequestDesk } from '../fleet/node/request-desk.ts';
import { keepRaising } from '../fleet/node/start-number.ts';
import { FollowerPromotion } from '../fleet/promotion/follower-promotion.ts';
import { LeaderRestart } from '../fleet/promotion/leader-restart.ts';
import { type PromotionRequest, resultOf } from '../fleet/promotion/promotion-request.ts';
import { PromotionSteps, type ReadyEpoch } from '../fleet/promotion/promotion-steps.ts';
import type { FollowerAtWork } from '../fleet/provision/following.ts';
import { keepSchemaCurrent } from '../fleet/provision/schema-renewal.ts';
import { keepSequencesPublished } from '../fleet/provision/sequence-publishing.ts';
import { armGuard, suspendTriggers } from '../follower/write-guard.ts';
import { type LeaderParts, type Leading, lead } from '../leader/leader.ts';
import type { Releasers } from '../lifecycle.ts';
import type { Logger } from '../logger.ts';
import { publicationName } from '../topic/records/layout.ts';
import { unlessAborted } from '../waiting.ts';
import type { AgentFigures } from './agent-figures.ts';
import { notTerminated } from './fence-watch.ts';
import { TableOpening } from './table-opening.ts';

export interface AgentWork {
  readonly node: NodeAccess;
  readonly releasers: Releasers;
  readonly desk: RequestDesk;
  readonly figures: AgentFigures;
  /** The node leads or follows: its next failure counts as the first. */
  readonly onWorking: () => void;
}

type GuardedNode = Pick<NodeAccess, 'client' | 'name' | 'cluster'>;

/** What a node is promoted with; null for a leader that restarts. */
type Promotion = {
  /** Null for a former leader whose successor has not begun its epoch. */
  readonly following: FollowerAtWork | null;
  readonly request: PromotionRequest;
} | null;

/**
 * Armed on every start that does not lead, before anything else is done. A database whose guard is
 * not whole was a leader's: its clients are older than the guard, and their sessions end.
 */
export async function guardNode({ client, name, cluster }: GuardedNode): Promise<void> {
  const left = await armGuard(client, { terminates: true });
  if (left.length > 0) cluster.around.log.warn({ node: name, sessions: left }, notTerminated);
  await suspendTriggers(client);
}

export async function runAsLeader(
  work: AgentWork,
  promotion: Promotion,
  signal: AbortSignal,
): Promise<void> {
  const { node, releasers } = work;
  const { control, name, cluster } = node;
  const onStep = (step: string): void => {
    promotion?.request.step(step);
    cluster.around.log.info({ node: name, step }, 'promotion step');
  };
  const following = promotion?.following ?? null;
  const candidate =
    following === null ? new LeaderRestart(node) : new FollowerPromotion(node, following, onStep);
  const steps = new PromotionSteps(node, releasers, candidate, onStep);
  const ready = await steps.run(promotion?.request.mayClaim ?? null);
  if (ready === null) {
    await guardNode(node);
    const owner = ownerOf(control.state)?.node ?? null;
    throw promotion === null ? deposed(name, owner) : claimLost(owner);
  }
  await stream(work, ready, promotion?.request ?? null, signal);
}

/** Until `signal` aborts, or the epoch is lost. */
async function stream(
  work: AgentWork,
  ready: ReadyEpoch,
  request: PromotionRequest | null,
  signal: AbortSignal,
): Promise<void> {
  const { node } = work;
  const { owner } = ready;
  const all = AbortSignal.any([signal, owner.steppedDown]);
  try {
    await lead(leaderParts(work, ready), all, (streaming, leading) => {
      return openForWrites(work, ready, request, streaming, leading);
    });
  } catch (error) {
    // Without its epoch everything that the leader does may fail: the guard comes first.
    if (!owner.steppedDown.aborted) {
      if (!hasCode(error, 'LOST_LEADERSHIP')) throw error;
      if (await owner.isStillOwner()) throw fencedByStaleOwner(node.name, error);
    }
  }
  if (signal.aborted) return;
  await guardNode(node);
  throw deposed(node.name, ownerOf(node.control.state)?.node ?? null);
}

/** Once WAL flows: lifts the write guard, answers the requester, and does the leader's tasks. */
async function openForWrites(
  work: AgentWork,
  ready: ReadyEpoch,
  request: PromotionRequest | null,
  signal: AbortSignal,
  leading: Leading,
): Promise<void> {
  const { node, releasers, desk, figures, onWorking } = work;
  const { cluster, name } = node;
  const { owner, epoch, checkpoint, end } = ready;
  // A session of its own: the leader's may be in a transaction that gives a table its id.
  const client = await cluster.openSession(releasers, name, 'guard');
  await hit('promote.before-unguard');
  const opening = await TableOpening.open(node, releasers, owner.steppedDown);
  if (opening === null) return;
  cluster.around.log.info({ node: name, epoch, at: checkpoint.at }, 'leading');
  figures.onLeading(checkpoint.at, end.unfinished);
  onWorking();
  const promoted = { ...ready, lacks: [...ready.lacks, ...(await opening.lacks())] };
  const result = request?.succeeded(promoted) ?? resultOf(name, promoted, []);
  const { sequences, lacks } = promoted;
  if (result.leftOut.sequences + result.leftOut.lacks > 0) {
    cluster.around.log.info(
      { node: name, sequences, lacks },
      'all sequences that were set, and all that it lacks',
    );
  }
  await desk.answerFailovers({ ...result });
  await Promise.all([
    leaderTasks(work, client, epoch, leading, signal),
    unlessAborted(opening.run(signal), signal),
  ]);
}

/** Beside the stream, until `signal` aborts; the first failure ends the run. */
async function leaderTasks(
  { node, desk }: AgentWork,
  client: Client,
  epoch: number,
  leading: Leading,
  signal: AbortSignal,
): Promise<void> {
  const { control, cluster, database } = node;
  await Promise.all([
    keepRaising(client, control, database, cluster.around.log, signal),
    // A server that stopped answering must not delay the end of a run that failed elsewhere.
    unlessAborted(keepSchemaCurrent(node, leading, epoch, signal), signal),
    unlessAborted(keepSequencesPublished(node, leading, epoch, signal), signal),
    keepNotingLag(cluster, control, signal),
    desk.serveRepairs(repairing(node, leading, signal), signal),
  ]);
}

/** A repair is logged by the agent that does it: rows differed, and that has a cause. */
function repairing(
  { name, cluster }: NodeAccess,
  leading: Leading,
  signal: AbortSignal,
): Pick<Leading, 'publishRows'> {
  return {
    publishRows: async (keys) => {
      await leading.publishRows(keys);
      // After an abort it has returned without an answer of the stream.
      if (signal.aborted) return;
      const relations = [...new Set(keys.map(({ relationId }) => relationId))];
      const facts = { node: name, relations, rows: keys.length };
      cluster.around.log.warn(facts, 'published rows that verify --repair named');
    },
  };
}

/** Logs each change once, and when it was undone. */
function changeReports(log: Logger, node: string): LeaderParts['onChanges'] {
  let known = new Map<string, SchemaChange>();
  return (changes) => {
    const found = new Map(changes.map((change) => [`${change.table} ${change.what}`, change]));
    for (const [key, { table, what, changedAt }] of found) {
      if (known.has(key)) continue;
      log.warn(
        { node, table, what, changedAt },
        'a published table was changed: the stream stops at its next row',
      );
    }
    for (const [key, { table, what }] of known) {
      if (found.has(key)) continue;
      log.info({ node, table, what }, 'the change of a published table was undone');
    }
    known = found;
  };
}

function leaderParts(
  { node, releasers, figures }: AgentWork,
  { epoch, slot, checkpoint, end, producer }: ReadyEpoch,
): LeaderParts {
  const { client, control, cluster, name, url, identity, encoder, reader, decoder } = node;
  const { log, nowMs, random, randomId } = cluster.around;
  return {
    url,
    node: name,
    client,
    streamId: identity.streamId,
    epoch,
    slot,
    publication: publicationName(cluster.name),
    checkpoint,
    lastPoint: end.point,
    unhealed: end.unhealed,
    unfinished: end.unfinished,
    producer: figures.counting(producer),
    encoder,
    reader: figures.timing(reader),
    decoder,
    pointsEveryMs: cluster.settings.pointsEveryMs,
    patterns: cluster.settings.tables,
    openReadSession: () => cluster.openSession(releasers, name, 'reads'),
    openReader: () => cluster.openReader(releasers, node.partitions),
    log: log.child({ node: name }),
    randomId,
    onUncovered: (tables) => {
      log.warn(
        { node: name, tables },
        'tables that are not in the stream: publish them, once followers have them too',
      );
    },
    onChanges: changeReports(log, name),
    recordLabel: async (label, point, { at, nextOffsets }) => {
      const { commitTimeMicros } = point;
      const offsets = nextOffsets.map((offset) => offset - 1n);
      await control.append({ kind: 'point', label, at, commitTimeMicros, offsets });
    },
    onPoint: (point, { at }, records) => {
      figures.onPublished(point, records);
      log.debug({ node: name, at, records, counts: point.counts }, 'published');
    },
    nowMs,
    random,
  };
}
