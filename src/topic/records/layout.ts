/**
 * The names of a cluster's topics, slots, publication and registry subjects, the kinds of records
 * with their keys, and the settings with which topics are created. Other programs rely on every
 * name here; nothing in this file may change without a new format version.
 */
import {
  type EpochLsn,
  formatEpochLsn,
  formatPosition,
  type Position,
} from '../../change/position.ts';

/** Carried by every point, epoch begin and SQL object; an agent refuses a newer one. */
export const formatVersion = 1;

type RecordKind =
  | 'row'
  | 'point'
  | 'relation'
  | 'truncate'
  | 'reread'
  | 'epoch'
  | 'fence'
  | 'schema'
  | 'sequence';

export interface RecordKey {
  readonly kind: RecordKind;
  /** The relation id; empty where the record belongs to none. */
  readonly relation: string;
  readonly identity: readonly string[];
}

export function changesTopic(cluster: string): string {
  return `${cluster}.changes`;
}

export function controlTopic(cluster: string): string {
  return `${cluster}.control`;
}

/** One for all nodes: initialising it fences the previous publisher. */
export function transactionalId(cluster: string): string {
  return `understudy-${cluster}`;
}

/** At most 63 bytes: a cluster name has at most 40. */
export function slotName(cluster: string, epoch: number): string {
  return `understudy_${cluster}_${epoch}`;
}

/**
 * A regular expression that matches the slots of all epochs of this cluster, and no other: those of
 * the cluster shop_2 begin like the second slot of the cluster shop.
 */
export function slotPattern(cluster: string): string {
  return `^understudy_${cluster}_[1-9][0-9]*$`;
}

export function publicationName(cluster: string): string {
  return `understudy_${cluster}`;
}

/** TopicRecordNameStrategy: the topic, then the full name of the record. */
export function subjectName(topic: string, record: string): string {
  return `${topic}-${record}`;
}

export const pointKey: RecordKey = { kind: 'point', relation: '', identity: [] };

export function relationKey(relation: string): RecordKey {
  return { kind: 'relation', relation, identity: [] };
}

/** Keyed by position, so that compaction keeps every truncate. */
export function truncateKey(relation: string, position: Position): RecordKey {
  return { kind: 'truncate', relation, identity: [formatPosition(position)] };
}

/** Likewise: a node that is built from the log ignores rows of the table below it. */
export function rereadKey(relation: string, position: Position): RecordKey {
  return { kind: 'reread', relation, identity: [formatPosition(position)] };
}

export function epochKey(epoch: number): RecordKey {
  return { kind: 'epoch', relation: '', identity: [String(epoch)] };
}

/** Its value is null: compaction keeps none, readers ignore it. */
export const fenceKey: RecordKey = { kind: 'fence', relation: '', identity: [] };

/** All are in one partition, so that of two records of one sequence the later one is newer. */
export const sequencePartition = 0;

/** Of a sequence of the leader: the newest record of each counts. */
export function sequenceKey(schema: string, name: string): RecordKey {
  return { kind: 'sequence', relation: '', identity: [schema, name] };
}

/** Of a schema in one part: the next one replaces it. */
export const schemaKey: RecordKey = { kind: 'schema', relation: '', identity: [] };

/** Keyed by position, so that compaction keeps all parts of one or none. */
export function schemaPartKey(at: EpochLsn, part: number): RecordKey {
  return { kind: 'schema', relation: '', identity: [formatEpochLsn(at), String(part)] };
}

const hourMs = 3_600_000;

/**
 * Settings of the changes topic. `overrides` (kafka.topic in the configuration) win. A follower may
 * be away for min.compaction.lag.ms, a bootstrap may take delete.retention.ms.
 */
export function changesTopicSettings(
  replication: number,
  overrides: Readonly<Record<string, string>>,
): Record<string, string> {
  return {
    'cleanup.policy': 'compact',
    'message.timestamp.type': 'LogAppendTime',
    'min.compaction.lag.ms': String(24 * hourMs),
    'delete.retention.ms': String(7 * 24 * hourMs),
    'max.message.bytes': String(64 * 1024 * 1024),
    'min.insync.replicas': replication >= 3 ? '2' : '1',
    'unclean.leader.election.enable': 'false',
    ...overrides,
  };
}

/** The control log is never deleted from; its keys are unique, so compaction loses nothing. */
export function controlTopicSettings(replication: number): Record<string, string> {
  return {
    'cleanup.policy': 'compact',
    'message.timestamp.type': 'LogAppendTime',
    'min.insync.replicas': replication >= 3 ? '2' : '1',
    'unclean.leader.election.enable': 'false',
  };
}
