/**
 * The facts about a fleet that can be read without asking an agent: from its databases, its topic
 * and its control log. Each is either found or missing with the reason; `judgeStatus` judges them.
 */
import type { SchemaChange } from '../../catalog/schema-changes.ts';
import type { NodeIdentity } from '../../catalog/understudy-schema.ts';
import type { Checkpoint, Point, RelationId, UnfinishedTable } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import type { EpochLsn } from '../../change/position.ts';
import type { ControlState } from '../../control/control-state.ts';
import type { OpenBuild } from '../../follower/schema/schema-build.ts';
import type { BootstrapState } from '../../follower/state/bootstrap-state.ts';
import type { Doubt } from '../../follower/state/doubts.ts';
import type { PendingRebuild } from '../../follower/state/rebuild-state.ts';
import type { IdleSlot, SlotWal } from '../../leader/stream/slot.ts';
import type { Watermarks } from '../../topic/log.ts';
import type { AgentError } from '../node/agent-error.ts';
import type { ReachedDatabase } from '../node/judge-database.ts';

/** A value, or one sentence that says why it is not known. */
export type Found<Value> =
  | { readonly kind: 'found'; readonly value: Value }
  | { readonly kind: 'missing'; readonly reason: string };

export interface DatabaseFacts {
  /** null where the `understudy` schema is not installed. */
  readonly identity: NodeIdentity | null;
  readonly schemaFormat?: number | null;
  readonly position: {
    readonly at: EpochLsn;
    readonly commitTimeMicros: bigint;
    /** The offsets that it reads next. */
    readonly checkpoint?: Pick<Checkpoint, 'nextOffsets'>;
    readonly unfinished?: readonly RelationId[];
    /** Per partition, when the last record that it has applied was written. */
    readonly appendMs?: readonly number[];
  } | null;
  /** What was found against its rows. */
  readonly doubts?: readonly Doubt[];
  /** null or absent where the node is not being built from the log. */
  readonly building?: BootstrapState | null;
  /** null or absent where no rebuild is under way. */
  readonly rebuild?: PendingRebuild | null;
  /** The server's WAL position; null on a server in recovery. */
  readonly walLsn: Lsn | null;
  /** Whether a session holds the lock of the node. */
  readonly agentRuns: boolean;
  /** With which its agent failed last; null or absent once the node was in its role after it. */
  readonly agentError?: AgentError | null;
  /** The part of the leader's schema that is not built here yet; null where nothing is left. */
  readonly openBuild?: OpenBuild | null;
  /** Foreign keys that could only be created NOT VALID here. */
  readonly notValid?: readonly string[];
  /** Of a leader: changes of its tables that the stream cannot carry. */
  readonly schemaChanges?: readonly SchemaChange[];
  /** Partitions of the tables of the stream, as `schema.name`. */
  readonly partitions?: readonly string[];
  /** Of a leader: tables that take no writes yet. */
  readonly closedTables?: readonly string[];
  /** This cluster's slots in the database, the newest epoch's first. */
  readonly slots: readonly SlotWal[];
  /** Which database of which server it is. */
  readonly reached?: ReachedDatabase;
  /** This cluster's slots in other databases of the server, those without a reader. */
  readonly slotsElsewhere?: readonly IdleSlot[];
}

/** The newest checkpoint that all partitions hold, as readLogEnd finds it. */
export interface TopicFacts {
  readonly at: EpochLsn | null;
  /** null where the checkpoint is an epoch begin, which has no transaction. */
  readonly point: (Pick<Point, 'commitTimeMicros'> & Partial<Pick<Point, 'uncovered'>>) | null;
  /** Tables that are backfilling. */
  readonly unfinished?: readonly UnfinishedTable[];
  /** The first and the last readable offset of each partition. */
  readonly watermarks?: readonly Watermarks[];
}

export interface FleetFacts {
  readonly cluster: string;
  readonly topicName: string;
  readonly control: Found<ControlState>;
  /** What makes the topics lose rows; empty or absent where nothing does, or is known to. */
  readonly topicProblems?: readonly string[];
  readonly topic: Found<TopicFacts>;
  readonly nodes: readonly {
    readonly name: string;
    readonly database: Found<DatabaseFacts>;
    /** The configured delay: younger changes are not applied. */
    readonly delayMs?: number;
  }[];
  readonly nowMs: number;
}
