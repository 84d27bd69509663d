/**
 * Judges a failover before anything is changed: whether the control log allows the node to be
 * promoted, the plan that a dry run shows, and what the failover would lose, which has to be
 * allowed. Pure.
 */
import { formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { RecordOf } from '../../control/control-records.ts';
import type { ControlState } from '../../control/control-state.ts';
import {
  backfillNeedsAllowance,
  notInitialised,
  schemaNeedsAllowance,
  unpublishedNeedsAllowance,
} from '../../errors/cluster.ts';
import { leadsAlready, rowsInDoubt, topicDamaged } from '../../errors/ownership.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import type { OpenBuild } from '../../follower/schema/schema-build.ts';
import type { FollowerPosition } from '../../follower/state/follower-state.ts';
import { requireAttached } from '../node/member-session.ts';
import { changesNotCarried } from '../status/judge-promotable.ts';
import { lackTexts, requireSchemaBuilt } from '../status/progress-text.ts';

/** The JSON of a dry run, without what the leader did not publish. */
export interface FailoverPlan {
  readonly node: string;
  readonly dryRun: true;
  readonly epoch: number;
  readonly leader: string | null;
  readonly lsn: string | null;
  /** Backfilling tables, of which rows would be lost. */
  readonly unfinished: readonly string[];
  /** Parts of the schema that it would lead without, each with the reason. */
  readonly lacks: readonly string[];
}

/** What was read from the database of the node. */
interface Candidate {
  readonly position: Pick<FollowerPosition, 'at' | 'unfinished'>;
  readonly open: OpenBuild | null;
  /** Foreign keys that could only be created NOT VALID. */
  readonly notValid: readonly string[];
  /** As whyNotPromotable gives them; no allowance helps. */
  readonly doubts: readonly string[];
}

/** Throws where the control log excludes the node, whatever its database holds. */
export function requireCandidate(
  state: ControlState,
  cluster: string,
  node: string,
): RecordOf<'stream'> {
  if (state.stream === null) throw notInitialised(cluster);
  const owner = ownerOf(state);
  if (owner?.node === node) throw leadsAlready(node, owner.epoch);
  requireAttached(state, node);
  const [damage] = state.openDamage.values();
  if (damage !== undefined) throw topicDamaged(damage.reason);
  return state.stream;
}

export function planFailover(
  state: ControlState,
  node: string,
  { position, open, notValid, doubts }: Candidate,
): FailoverPlan {
  // rule: doubts-refuse-promotion
  if (doubts.length > 0) throw rowsInDoubt(node, doubts);
  // The part of the schema that waits for missing rows is built during the promotion.
  if (position.unfinished.length === 0) requireSchemaBuilt(node, open);
  const leader = ownerOf(state)?.node ?? null;
  return {
    node,
    dryRun: true,
    epoch: (state.current?.epoch ?? 0) + 1,
    leader,
    lsn: formatEpochLsn(position.at),
    unfinished: position.unfinished,
    lacks: [...lackTexts(open, notValid), ...changesNotCarried(state, leader)],
  };
}

/** The refusal of a failover that does not allow data loss; it names the largest loss. */
export function needsAllowDataLoss(plan: FailoverPlan): UnderstudyError {
  if (plan.unfinished.length > 0) return backfillNeedsAllowance(plan, plan.unfinished);
  if (plan.lacks.length > 0) return schemaNeedsAllowance(plan, plan.lacks);
  return unpublishedNeedsAllowance(plan);
}
