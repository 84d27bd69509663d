/**
 * The JSON of `status`, by which programs and people see a fleet. Flows in and out: nothing but its
 * form; judgeStatus fills it. What is unknown is null. Part of what a version promises
 * (docs/commands.md).
 */
import type { SlotStatus } from './slot-status.ts';
import type { UnfinishedStatus } from './unfinished-text.ts';

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

export interface NodeStatus {
  readonly name: string;
  readonly role: 'leader' | 'follower' | null;
  readonly state: NodeState;
  /** Up to where its rows are: what commits below it, strictly, is there. */
  readonly lsn: string | null;
  readonly lagBytes: number | null;
  readonly lagMs: number | null;
  readonly exact: boolean | null;
  readonly promotable: boolean | null;
  /** The WAL that its slot keeps; null for a node without a slot, and where nobody could look. */
  readonly slot: SlotStatus | null;
  readonly why: readonly string[];
}

export interface FleetStatus {
  readonly cluster: string;
  readonly stream: string | null;
  readonly epoch: number | null;
  readonly leader: string | null;
  readonly durability: string | null;
  /** Its name; null when it cannot be read. */
  readonly topic: string | null;
  /** Tables whose rows from before the stream are not all in it; null when it cannot be read. */
  readonly unfinished: readonly UnfinishedStatus[] | null;
  readonly nodes: readonly NodeStatus[];
}
