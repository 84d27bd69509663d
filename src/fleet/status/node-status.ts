/**
 * The JSON of `status`, in which programs and people see a fleet; `judgeStatus` fills it. What is
 * unknown is null. Part of what a version promises (docs/commands.md).
 */
import type { AgentError } from '../node/agent-error.ts';
import type { UnfinishedStatus } from './progress-text.ts';

export type NodeState =
  | 'streaming'
  | 'catching-up'
  | 'bootstrapping'
  | 'rebuilding'
  | 'waiting'
  | 'fenced'
  | 'damaged'
  | 'stopped'
  | 'down';

export interface SlotStatus {
  readonly name: string;
  /** reserved, extended, unreserved or lost, as in pg_replication_slots. */
  readonly walStatus: string;
  readonly retainedBytes: number | null;
  /** WAL that is not in the topic yet. */
  readonly unpublishedBytes: number | null;
  /** What may be written before Postgres invalidates the slot; null is no limit. */
  readonly safeBytes: number | null;
}

export interface NodeStatus {
  readonly name: string;
  readonly role: 'leader' | 'follower' | null;
  readonly state: NodeState;
  /** The position of its rows: they include all that committed below it, strictly. */
  readonly lsn: string | null;
  /** WAL that is not applied; of the leader, WAL that is not in the topic. */
  readonly lagBytes: number | null;
  readonly lagMs: number | null;
  readonly exact: boolean | null;
  readonly promotable: boolean | null;
  /** The WAL that its slot keeps; null for a node without a slot, and when unknown. */
  readonly slot: SlotStatus | null;
  /** With which its agent failed last, if the node was not in its role since. */
  readonly agentError: AgentError | null;
  /** The format of its `understudy` schema; null where it is not this version's. */
  readonly schemaFormat: number | null;
  readonly why: readonly string[];
}

export interface DamageStatus {
  readonly id: string;
  /** The last checkpoint before it; null where that is not known. */
  readonly lsn: string | null;
  readonly reason: string;
  /** The node that found it. */
  readonly node: string;
  readonly time: string;
  /** Who closed it, why and when; null while it is open. */
  readonly repair: { readonly by: string; readonly reason: string; readonly time: string } | null;
}

export interface FleetStatus {
  readonly cluster: string;
  readonly stream: string | null;
  readonly epoch: number | null;
  readonly leader: string | null;
  readonly durability: string | null;
  /** The name of the topic; null when it cannot be read. */
  readonly topic: string | null;
  /** Tables that are backfilling; null when the topic cannot be read. */
  readonly unfinished: readonly UnfinishedStatus[] | null;
  /** All damage of the topic that was ever found; null when the control log cannot be read. */
  readonly damage: readonly DamageStatus[] | null;
  readonly nodes: readonly NodeStatus[];
}
