/**
 * A server, a setting or a permission that is not as required (PREREQUISITE): the servers answer,
 * and nothing was changed.
 */

import { formatDurationMs } from '../change/amounts.ts';
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import type { ErrorCode } from './codes.ts';
import { changeHere } from './row.ts';
import { alterTopicSetting, repairHint } from './topic.ts';
import { UnderstudyError } from './understudy-error.ts';

/** A finding of `check` as the error with which another command refuses. */
export function unmetRequirement(finding: {
  readonly code: ErrorCode;
  readonly object: string;
  readonly message: string;
  readonly hint: string;
}): UnderstudyError {
  const { code, object, message, hint } = finding;
  return new UnderstudyError(code, message, hint, undefined, { object });
}

/** The schema exists, without a table of ours in it. */
export function foreignUnderstudySchema(): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    'the database has a schema named understudy that pg-understudy did not create',
    'Rename it: `ALTER SCHEMA understudy RENAME TO <name>;`',
  );
}

/** Both names are quoted as SQL takes them. */
export function deferredTriggerFires(table: string, trigger: string): UnderstudyError {
  const disabled = changeHere(`ALTER TABLE ${table} DISABLE TRIGGER ${trigger}`);
  return new UnderstudyError(
    'PREREQUISITE',
    `the deferred trigger ${trigger} of ${table} would run as the agent’s superuser at its commits`,
    `Disable it while this node follows (${disabled}), then start the agent again.`,
    undefined,
    { table, trigger },
  );
}

/** `answer` is the Kafka name of the error code. */
export function kafkaPermissionMissing(
  facts: { readonly action: string; readonly topic: string; readonly answer: string },
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `Kafka does not let this user ${facts.action} ${facts.topic} (${facts.answer})`,
    'Grant the ACLs of docs/configuration.md: Read, Write, Describe, DescribeConfigs, Create ' +
      'on the topics of the cluster, and Write, Describe on its transactional ids.',
    cause,
    facts,
  );
}

export function transactionTimeoutRefused(cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    'the transaction timeout is larger than the brokers allow',
    'Raise transaction.max.timeout.ms of the brokers to its default of 900000.',
    cause,
  );
}

export function transactionTimedOut(
  openMs: number,
  timeoutMs: number,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `Kafka ended a transaction that was open for ${openMs} ms, its limit is ${timeoutMs}`,
    'Raise transaction.max.timeout.ms of the brokers, or split the source transaction.',
    cause,
    { openMs, timeoutMs },
  );
}

export function kafkaTooOld(cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    'the brokers do not speak the protocol versions that are needed',
    'Use Kafka 2.3 or later.',
    cause,
  );
}

export function tooFewBrokers(topic: string, replication: number, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `${topic} cannot have ${replication} replicas: there are fewer brokers`,
    'Lower kafka.replication in understudy.yaml, or start more brokers.',
    cause,
    { topic, replication },
  );
}

export function topicPolicyViolated(topic: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `a policy of the brokers does not allow ${topic} as wanted`,
    'Let an administrator create the topic with the settings of docs/configuration.md.',
    cause,
    { topic },
  );
}

/** `batch` names it: the batch at offset 7 of shop.changes partition 0. */
export function compressionUnsupported(batch: string, codec: number): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `${batch} is compressed in a way that is not supported (codec ${codec})`,
    'Set compression.type of the topic to producer, uncompressed or gzip.',
    undefined,
    { codec },
  );
}

export function registryRefusesSchema(
  url: string,
  status: number,
  reason: string,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the schema registry at ${url} refuses a schema (${status}): ${reason}`,
    'Set the compatibility of the subjects of this cluster to NONE, and allow registering.',
    cause,
    { registry: url, status },
  );
}

export function schemaMissing(url: string, id: number): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the schema registry at ${url} does not know schema ${id}`,
    'Point registry.url at the registry that the topic was written with, or restore its data.',
    undefined,
    { registry: url, id },
  );
}

/** The registry gave an id under which it holds another schema. */
export function otherSchema(url: string, subject: string, id: number): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the schema registry at ${url} gives ${subject} the id ${id}, which is another schema`,
    'Nothing was written with it. Restore the data of the registry: two of its schemas share ' +
      'an id, or two registries answer at one address.',
    undefined,
    { registry: url, subject, id },
  );
}

export function delayTooLong(facts: {
  readonly node: string;
  readonly delayMs: number;
  readonly topic: string;
  readonly compactionLagMs: number;
}): UnderstudyError {
  const { node, delayMs, topic, compactionLagMs } = facts;
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is delayed by ${formatDurationMs(delayMs)}, and ${topic} keeps every change ` +
      `for ${formatDurationMs(compactionLagMs)}`,
    `Shorten nodes.${node}.delay, or: ` +
      alterTopicSetting(topic, 'min.compaction.lag.ms', String(delayMs * 2)),
    undefined,
    facts,
  );
}

/** The same label again. */
export function labelTaken(label: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the point ${label} exists already`,
    'A label is used once: choose another. `understudy points` lists them.',
    cause,
    { label },
  );
}

/** Each point ends a batch of the leader, and every agent keeps its label. */
export function tooManyPoints(cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    'a hundred points were created within a minute',
    'Create the point a minute later.',
    cause,
  );
}

export function cannotListen(address: string, errorCode: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `cannot listen on ${address} (${errorCode})`,
    'Give --http an address of this machine and a port that no other process uses.',
    cause,
    { address, errorCode },
  );
}

/** The command that keeps the database. */
export function rebuildInPlace(node: string): string {
  return `\`understudy rebuild ${node} --in-place\``;
}

function otherwise(node: string): string {
  return (
    `Rebuild it in its own tables (${rebuildInPlace(node)}, or rebuild: in-place ` +
    'in understudy.yaml), or give it a new database with the same tables, empty.'
  );
}

export function noSchemaForRebuild(node: string): UnderstudyError {
  return noRoomBeside(node, 'the topic holds no schema', otherwise(node));
}

/** `ddl: manual`. */
export function tablesByHand(node: string): UnderstudyError {
  return noRoomBeside(node, 'its tables are created by hand (ddl: manual)', otherwise(node));
}

/** `why` completes the sentence. */
export function noRoomBeside(node: string, why: string, hint: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} cannot be rebuilt beside its database: ${why}`,
    hint,
    undefined,
    { node },
  );
}

/** Left by the rebuild of a node of another stream. */
export function foreignBeside(node: string, database: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the database ${database} beside that of node ${node} belongs to another stream`,
    `If it is not needed: \`DROP DATABASE "${database}"\`; then start the agent again.`,
    undefined,
    { node, database },
  );
}

/** What the topic lacks would be missing in what is built from it. */
export function rebuildFromDamage(node: string, damage: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} cannot be rebuilt from a topic that is damaged: ${damage}`,
    repairHint,
    undefined,
    { node },
  );
}

/** Without it a session that is older than the write guard's triggers could change the schema. */
export function watchTriggerMissing(): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    'the event trigger understudy_watch is missing or disabled',
    `${changeHere('ALTER EVENT TRIGGER understudy_watch ENABLE')}. Where it is missing, give the ` +
      'node a new empty database, which its agent builds from the log: `understudy run <node> ' +
      '--replace`',
  );
}

/** Rows of that LSN may have been replaced since; `earliest` is null where no LSN can be built. */
export function logTooYoung(until: EpochLsn, earliest: EpochLsn | null): UnderstudyError {
  const at = formatEpochLsn(until);
  return new UnderstudyError(
    'PREREQUISITE',
    `the log may no longer hold every row of ${at}: the topic keeps replaced rows for a shorter ` +
      'time (min.compaction.lag.ms)',
    earliest === null
      ? 'No earlier LSN can be built now: build the node at the end of the log (without --until).'
      : `The earliest LSN that can still be built is ${formatEpochLsn(earliest)}: \`understudy ` +
          'points` lists the named ones.',
    undefined,
    { until: at, earliest: earliest === null ? null : formatEpochLsn(earliest) },
  );
}

/** It owns the epoch, and its agent has to do the rest of the promotion. */
export function chosenToLead(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} was chosen to lead and has not begun`,
    `Start its agent, which continues with that: \`understudy run ${node}\``,
    undefined,
    { node },
  );
}

/** Its agent runs with --until. */
export function agentBusy(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the agent of node ${node} is to stop at an LSN (run --until)`,
    `Wait until it has stopped, then start it without --until: \`understudy run ${node}\``,
    undefined,
    { node },
  );
}

export function leaderCannotStopAt(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} leads: only a follower can stop at an LSN`,
    `Start it without --until: \`understudy run ${node}\``,
    undefined,
    { node },
  );
}

export function rebuildCannotStopAt(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is being rebuilt: it will be where the log ends then`,
    `Start it without --until: \`understudy run ${node}\``,
    undefined,
    { node },
  );
}
