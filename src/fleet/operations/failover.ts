/**
 * The verb `failover`: promotes a follower because the leader is lost. The node's own agent
 * performs every step, asked through the control log; only where no agent runs, this process takes
 * the node's lock and performs the same.
 */
import type { Client } from 'pg';
import { readNode } from '../../catalog/understudy-schema.ts';
import type { EpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { ControlState } from '../../control/control-state.ts';
import { notBuilt, notOfStream } from '../../errors/ownership.ts';
import { promotionIncomplete, promotionTimeout } from '../../errors/timed-out.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import { notValidForeignKeys, openBuild } from '../../follower/schema/schema-build.ts';
import { readDoubts } from '../../follower/state/doubts.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import { isBeingBuilt } from '../../follower/state/rebuild-state.ts';
import { Releasers } from '../../lifecycle.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import type { Cluster } from '../cluster.ts';
import { openFleetLog } from '../node/member-session.ts';
import { isLocked } from '../node/node-lock.ts';
import { askAgent, failoverWaitMs } from '../node/requests.ts';
import { requireCurrentSchema } from '../node/schema-upgrade.ts';
import { noRegistry } from '../node/stream-facts.ts';
import type { PromotionResult } from '../promotion/promotion-request.ts';
import { beforeClaimMs, SequenceSetter } from '../promotion/sequences.ts';
import type { TopicFacts } from '../status/fleet-facts.ts';
import { whyNotPromotable } from '../status/judge-promotable.ts';
import {
  type FailoverPlan,
  needsAllowDataLoss,
  planFailover,
  requireCandidate,
} from './judge-failover.ts';
import { byAgentOrHere, type StandIn } from './stand-in.ts';
import { readUnpublished, type Unpublished } from './unpublished.ts';

interface FailoverRequest {
  readonly node: string;
  readonly dryRun: boolean;
  readonly allowDataLoss: boolean;
  readonly reason: string | null;
  /** Ends the wait; a promotion that has begun continues. */
  readonly signal: AbortSignal;
}

export async function failover(
  cluster: Cluster,
  request: FailoverRequest,
  standIn: StandIn,
  people: (line: string) => void,
): Promise<(FailoverPlan & Unpublished) | PromotionResult> {
  const releasers = new Releasers();
  try {
    const control = await openFleetLog(cluster, releasers);
    await control.verify();
    const { plan, end, client } = await planOf(cluster, control, request.node, releasers);
    if (request.dryRun) {
      const lacks = await sequenceLacks(cluster, request.node, releasers);
      const unpublished = await readUnpublished(cluster, control.state, end, releasers);
      return { ...plan, lacks: [...plan.lacks, ...lacks], ...unpublished };
    }
    if (!request.allowDataLoss) throw needsAllowDataLoss(plan);
    people(`requesting epoch ${plan.epoch} on node ${request.node}`);
    return await byAgentOrHere({
      isServed: () => isLocked(client),
      ask: () => promoteByAgent(cluster, control, request, plan.epoch),
      here: () => {
        people(`no agent serves node ${request.node}: promoting it from here`);
        return standIn.promote(cluster, request.node, plan.epoch);
      },
    });
  } finally {
    await releasers.close();
  }
}

async function planOf(
  cluster: Cluster,
  control: ControlLog,
  node: string,
  releasers: Releasers,
): Promise<{
  readonly plan: FailoverPlan;
  readonly end: EpochLsn | null;
  /** A session on the node. */
  readonly client: Client;
}> {
  const { streamId, partitions } = requireCandidate(control.state, cluster.name, node);
  const client = await cluster.openSession(releasers, node, 'failover');
  const known = await readNode(client);
  if (known !== null) await requireCurrentSchema(cluster, node, client);
  // rule: no-promotion-while-building
  if (known !== null && (await isBeingBuilt(client))) throw notBuilt(node);
  const position = known === null ? null : await readPosition(client);
  if (position === null || position.streamId !== streamId) throw notOfStream(node);
  const open = await openBuild(client);
  const notValid = await notValidForeignKeys(client);
  const agentRuns = await isLocked(client);
  const found = await readDoubts(client);
  const topic = await readTopic(cluster, releasers, partitions);
  const doubts = whyNotPromotable(
    { position, agentRuns, doubts: found },
    { topic, control: control.state, nowMs: cluster.around.nowMs() },
  );
  const plan = planFailover(control.state, node, { position, open, notValid, doubts });
  return { plan, end: topic.at, client };
}

/** As `status` reads it: without the registry, which may be down. */
async function readTopic(
  cluster: Cluster,
  releasers: Releasers,
  partitions: number,
): Promise<TopicFacts> {
  const reader = cluster.openReader(releasers, partitions);
  const decoder = new RecordDecoder(noRegistry);
  const watermarks = await reader.watermarks();
  const { checkpoint, point, unfinished } = await readLogEnd(reader, decoder, watermarks);
  return { at: checkpoint?.at ?? null, point, unfinished, watermarks };
}

/** What a promotion could not set or know: by the same statements, and nothing is set. */
async function sequenceLacks(
  cluster: Cluster,
  node: string,
  releasers: Releasers,
): Promise<readonly string[]> {
  const client = await cluster.openSession(releasers, node, 'failover');
  const sequences = new SequenceSetter(client, cluster.around.nowMs);
  await sequences.advance(beforeClaimMs, true);
  return sequences.lacks;
}

async function promoteByAgent(
  cluster: Cluster,
  control: ControlLog,
  { node, reason, signal }: FailoverRequest,
  epoch: number,
): Promise<PromotionResult> {
  const { around } = cluster;
  const question = {
    id: around.randomId(),
    step: 'start',
    verb: 'failover',
    node,
    args: { reason, epoch },
  };
  const late = (cause: unknown): UnderstudyError => tooLate(control.state, node, epoch, cause);
  const options = { timeoutMs: failoverWaitMs, signal, late, around };
  return (await askAgent(control, question, options)) as unknown as PromotionResult;
}

/** Whether the epoch was claimed decides what the user has to do next. */
function tooLate(
  { current }: ControlState,
  node: string,
  epoch: number,
  cause: unknown,
): UnderstudyError {
  const isClaimed = current !== null && current.epoch >= epoch && current.node === node;
  return isClaimed
    ? promotionIncomplete(node, current.epoch, failoverWaitMs, cause)
    : promotionTimeout(node, failoverWaitMs, cause);
}
