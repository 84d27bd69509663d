/**
 * A failover as the command line asks for it. Flows in: a node and the allowance to lose writes;
 * flows out: the result of its promotion. The node's own agent does every step, asked through the
 * control log; only where no agent runs, this process takes the node's lock and does the same.
 */

import { readNode } from '../../catalog/understudy-schema.ts';
import { formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { ControlState } from '../../control/control-state.ts';
import { notBuilt } from '../../errors/ownership.ts';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
import { notValidForeignKeys, openBuild } from '../../follower/schema/schema-build.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import { isBeingBuilt } from '../../follower/state/rebuild-state.ts';
import { Releasers } from '../../lifecycle.ts';
import type { Cluster } from '../cluster.ts';
import { askAgent } from '../node/agent-question.ts';
import { requireAttached } from '../node/member-session.ts';
import { lockNode } from '../node/node-lock.ts';
import { failoverWaitMs } from '../node/requests.ts';
import type { PromotionResult } from '../promotion/promotion-request.ts';
import { lackTexts, requireSchemaBuilt } from '../status/progress-text.ts';
import type { StandIn } from './stand-in.ts';

interface FailoverRequest {
  readonly node: string;
  readonly dryRun: boolean;
  readonly allowDataLoss: boolean;
  readonly reason: string | null;
  /** Stops the waiting; a promotion that has begun goes on. */
  readonly signal: AbortSignal;
}

/** What a dry run tells: who would lead, from where. */
export interface FailoverPlan {
  readonly node: string;
  readonly dryRun: true;
  readonly epoch: number;
  readonly leader: string | null;
  readonly lsn: string | null;
  /** Tables of which rows from before the stream would be lost. */
  readonly unfinished: readonly string[];
  /** Parts of the schema that it would lead without, each with the reason. */
  readonly lacks: readonly string[];
}

export async function failover(
  cluster: Cluster,
  request: FailoverRequest,
  standIn: StandIn,
  people: (line: string) => void,
): Promise<FailoverPlan | PromotionResult> {
  const releasers = new Releasers();
  try {
    const control = await cluster.openControl(releasers, null);
    await control.verify();
    const plan = await planOf(cluster, control, request.node, releasers);
    if (request.dryRun) return plan;
    if (!request.allowDataLoss) throw needsAllowance(plan);
    people(`asking for epoch ${plan.epoch} on node ${request.node}`);
    if (await agentRuns(cluster, request.node)) {
      return await promoteByAgent(cluster, control, request, plan.epoch);
    }
    people(`no agent serves node ${request.node}: promoting it from here`);
    return await standIn.promote(cluster, request.node, plan.epoch);
  } finally {
    await releasers.close();
  }
}

async function planOf(
  cluster: Cluster,
  control: ControlLog,
  node: string,
  releasers: Releasers,
): Promise<FailoverPlan> {
  const { state } = control;
  if (state.stream === null) {
    throw new UnderstudyError(
      'NOT_INITIALISED',
      'there is no such cluster',
      'Run: understudy init',
    );
  }
  const owner = ownerOf(state);
  if (owner?.node === node) {
    throw new UnderstudyError(
      'NOT_PROMOTABLE',
      `node ${node} owns epoch ${owner.epoch} already`,
      `If it does not stream, start its agent: understudy run ${node}`,
    );
  }
  requireAttached(state, node);
  const [damage] = state.openDamage.values();
  if (damage !== undefined) {
    throw new UnderstudyError(
      'NOT_PROMOTABLE',
      `the topic is damaged: ${damage.reason}`,
      'No node is known to be exact. Keep the topic for analysis; destroy the cluster and ' +
        'init it again.',
    );
  }
  const client = await cluster.openSession(releasers, node, 'failover');
  const known = await readNode(client);
  if (known !== null && (await isBeingBuilt(client))) throw notBuilt(node);
  const position = known === null ? null : await readPosition(client);
  if (position === null || position.streamId !== state.stream.streamId) {
    throw new UnderstudyError(
      'NOT_PROMOTABLE',
      `node ${node} does not follow this stream`,
      'Choose another node: understudy status shows which can take the lead.',
    );
  }
  const open = await openBuild(client);
  // What waits for rows that nobody will send any more is made before it leads.
  if (position.unfinished.length === 0) requireSchemaBuilt(node, open);
  return {
    node,
    dryRun: true,
    epoch: (state.current?.epoch ?? 0) + 1,
    leader: owner?.node ?? null,
    lsn: formatEpochLsn(position.at),
    unfinished: position.unfinished,
    lacks: lackTexts(open, await notValidForeignKeys(client)),
  };
}

function needsAllowance(plan: FailoverPlan): UnderstudyError {
  const allow = `understudy failover ${plan.node} --allow-data-loss --reason "…"`;
  if (plan.unfinished.length > 0) {
    return new UnderstudyError(
      'NEEDS_ALLOW_DATA_LOSS',
      `node ${plan.node} lacks rows from before the stream; as leader it would never get them: ` +
        plan.unfinished.join(', '),
      `Wait until understudy status shows it exact. If ${plan.leader ?? 'the leader'} cannot ` +
        `come back, say so: ${allow}`,
    );
  }
  if (plan.lacks.length > 0) {
    return new UnderstudyError(
      'NEEDS_ALLOW_DATA_LOSS',
      `node ${plan.node} would lead without parts of the schema: ${plan.lacks.join('; ')}`,
      'Remove the cause on that node: its agent tries again by itself. If it has to lead as it ' +
        `is, say so: ${allow}`,
    );
  }
  return new UnderstudyError(
    'NEEDS_ALLOW_DATA_LOSS',
    `durability is async: what ${plan.leader ?? 'the leader'} acknowledged and did not publish ` +
      'yet would be lost to the new leader',
    `If the leader cannot come back, say so: ${allow}`,
  );
}

async function agentRuns(cluster: Cluster, node: string): Promise<boolean> {
  const { settings } = cluster;
  try {
    const lock = await lockNode(settings.nodeUrl(node), settings.maintenanceDatabase, node);
    await lock.release();
    return false;
  } catch (error) {
    if (hasCode(error, 'NODE_LOCKED')) return true;
    throw error;
  }
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
  const late = (cause: unknown): UnderstudyError => notFinished(control.state, node, epoch, cause);
  const options = { timeoutMs: failoverWaitMs, signal, late, around };
  return (await askAgent(control, question, options)) as unknown as PromotionResult;
}

/** Whether the epoch was claimed decides what to do next. */
function notFinished(
  state: ControlState,
  node: string,
  epoch: number,
  cause: unknown,
): UnderstudyError {
  const seconds = failoverWaitMs / 1000;
  const { current } = state;
  if (current?.epoch !== undefined && current.epoch >= epoch && current.node === node) {
    return new UnderstudyError(
      'TIMED_OUT',
      `node ${node} has claimed epoch ${current.epoch} and does not lead after ${seconds} s`,
      `Its agent goes on with it whenever it runs: see its log, or start it: understudy run ` +
        node,
      cause,
    );
  }
  return new UnderstudyError(
    'TIMED_OUT',
    `the agent of node ${node} did not take the lead within ${seconds} s`,
    'See its log, then ask again: a request that is older than this is not heard any more.',
    cause,
  );
}
