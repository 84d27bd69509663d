/**
 * Why a follower must not be promoted, by what is known of its rows and of the topic: what was
 * found against its rows, records that it needs and the topic no longer holds, and a time away that
 * compaction may have used. Flows in: facts of its database, the topic and the control log; flows
 * out: one reason for each. `status` and `failover` judge by this function alike. Pure.
 */
import type { ControlState } from '../../control/control-state.ts';
import { keptForMs } from '../../follower/apply/log-fit.ts';
import type { Doubt } from '../../follower/state/doubts.ts';
import type { DatabaseFacts, FleetFacts, TopicFacts } from './fleet-facts.ts';
import { isAtEnd, isStreaming, missingRecords } from './lag.ts';

type Candidate = Pick<DatabaseFacts, 'position' | 'agentRuns' | 'doubts'>;

interface KnownFacts {
  readonly topic: TopicFacts | null;
  readonly control: Pick<ControlState, 'smallestCompactionLagMs'> | null;
  readonly nowMs: number;
}

export function whyNotPromotable(node: Candidate, known: KnownFacts): string[] {
  return [
    ...(node.doubts ?? []).map(doubtText),
    ...missingRecords(known.topic, node),
    ...leftBehind(node, known),
  ];
}

/**
 * What a node would lead without because the leader stopped at it: a change of its tables that the
 * stream does not carry. Rows at this node's position may be without it; a failover loses it.
 */
export function changesNotCarried(
  control: Pick<ControlState, 'stops'> | null,
  leader: string | null,
): string[] {
  const error = leader === null ? null : (control?.stops.get(leader)?.error ?? null);
  if (error === null || error.code !== 'SCHEMA_CHANGED') return [];
  return [`the leader stopped at a change that the stream does not carry: ${error.message}`];
}

function doubtText({ what }: Doubt): string {
  return `its rows are in doubt: ${what}`;
}

/**
 * A node at the end of the log lacks nothing, however old its last record is; nor does one whose
 * agent reads what was written a moment ago, after a time without any record.
 */
function leftBehind(
  { position, agentRuns }: Candidate,
  { topic, control, nowMs }: KnownFacts,
): string[] {
  const lagMs = control?.smallestCompactionLagMs ?? null;
  const appendMs = position?.appendMs ?? [];
  if (position === null || lagMs === null || appendMs.length === 0) return [];
  if (topic === null || topic.at === null || isAtEnd(topic, position)) return [];
  if (agentRuns && isStreaming({ newest: topic, leaderWal: null, nowMs }, position)) return [];
  const awayMs = nowMs - Math.min(...appendMs);
  if (awayMs < keptForMs(lagMs)) return [];
  const [awayS, keptS] = [Math.round(awayMs / 1_000), Math.round(lagMs / 1_000)];
  return [
    `it has applied nothing for ${awayS} s, and the topic keeps each change for ${keptS} s: ` +
      'compaction may have removed what it needs',
  ];
}

const partitionsShownMax = 5;

/**
 * Partitions that only the leader has: they are created on each node by hand. A follower stops at
 * the first row of one that it does not have, and as leader it would refuse such rows.
 */
export function partitionsMissing(
  nodes: FleetFacts['nodes'],
  owner: { readonly node: string } | null,
  { building, rebuild, partitions = [] }: DatabaseFacts,
): string[] {
  const leader = nodes.find(({ name }) => name === owner?.node)?.database;
  const isBuilt = building == null && rebuild == null;
  if (!isBuilt || leader?.kind !== 'found' || leader.value.identity?.role !== 'leader') return [];
  const here = new Set(partitions);
  const missing = (leader.value.partitions ?? []).filter((name) => !here.has(name));
  if (missing.length === 0) return [];
  const rest = missing.length - partitionsShownMax;
  const shown = missing.slice(0, partitionsShownMax).join(', ');
  const names = rest > 0 ? `${shown} and ${rest} more` : shown;
  return [`it lacks partitions that the leader has: ${names}; it stops at their first row`];
}
