/**
 * Failures of the topics: not the ones that the stream was written to (TOPIC_MISMATCH), records
 * missing or too many (DAMAGED), records that this version cannot read (MESSAGE_UNKNOWN,
 * FORMAT_TOO_NEW), and rows that the topic cannot hold (RECORD_TOO_LARGE, TYPE_RANGE).
 */
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { type ErrorFacts, UnderstudyError } from './understudy-error.ts';

/**
 * Nothing smaller than a new cluster helps where the topic itself is another one: no record of it
 * can be put back, and a leader must not write behind what followers cannot read.
 */
const startOver = 'run `understudy destroy --yes`, then `understudy init --replace-rows`.';

/** The repair has every table read again: the topic is whole then, also without what it lost. */
export const repairHint =
  'Find out what removed or added records, then close the damage: `understudy repair-damage ' +
  '--reason "<text>"`';

/** `what` is a record or an object in a database that carries a format version. */
export function newerFormat(what: string, format: number, known: number): UnderstudyError {
  return new UnderstudyError(
    'FORMAT_TOO_NEW',
    `${what} has format ${format}, this version reads up to ${known}`,
    'Install on this node the version of pg-understudy that the other nodes run.',
    undefined,
    { what, format, known },
  );
}

/** `where` names the record, `problem` completes the sentence. */
export function unknownControlRecord(
  where: string,
  problem: string,
  offset: bigint,
): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    `${where} ${problem}`,
    'Install the newest version of pg-understudy on this node. If a person or another program ' +
      'wrote the record, the control topic cannot be used any more: `understudy destroy`, then ' +
      '`understudy init`.',
    undefined,
    { offset: String(offset) },
  );
}

/** Of a payload whose digest is right. */
export function malformedSchemaRecord(): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    'the schema record of the topic holds no schema',
    'Another program wrote to the topic: stop it. The leader of the next epoch writes the schema ' +
      'record again: `understudy failover <node>`',
  );
}

/** `text` is a timestamp or timestamptz. */
export function timestampOutOfRange(text: string): UnderstudyError {
  return new UnderstudyError(
    'TYPE_RANGE',
    `the timestamp ${text} is outside the range of 64-bit microseconds since 1970`,
    'Change the value to one before 294247-01-10, or to infinity.',
    undefined,
    { value: text },
  );
}

/** The number of partitions decides where the records of a key are. */
export function partitionsChanged(facts: {
  readonly topic: string;
  readonly found: number;
  readonly expected: number;
}): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `${facts.topic} has ${facts.found} partitions, the stream has ${facts.expected}`,
    `The number is fixed at init. Restore the topic as it was; if it is lost, ${startOver}`,
    undefined,
    facts,
  );
}

/** A reader wants a partition that the brokers do not know. */
export function partitionMissing(facts: {
  readonly topic: string;
  readonly partition: number;
  readonly found: number;
}): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `${facts.topic} has ${facts.found} partitions: partition ${facts.partition} is missing`,
    `The number is fixed at init. Restore the topic as it was; if it is lost, ${startOver}`,
    undefined,
    facts,
  );
}

export function topicMissing(topic: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `${topic} or one of its partitions does not exist`,
    `Check kafka.brokers and cluster in understudy.yaml. If the topic was deleted, ${startOver}`,
    cause,
    { topic },
  );
}

/** `what` is the evidence: the log ends, or continues, below an offset that it held before. */
export function topicRecreated(what: string, facts: ErrorFacts): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    what,
    `The topic was truncated, or deleted and re-created: ${startOver}`,
    undefined,
    facts,
  );
}

/** The records of another stream: the topic, or the control log, was re-created by another init. */
export function otherStream(
  what: string,
  facts: { readonly found: string; readonly expected: string },
): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    what,
    `Topics of this cluster were deleted and re-created: ${startOver}`,
    undefined,
    facts,
  );
}

/** Records that were in the topic are missing, or there are records that no leader wrote. */
export function damagedLog(what: string, facts: ErrorFacts = {}): UnderstudyError {
  return new UnderstudyError('DAMAGED', what, repairHint, undefined, facts);
}

/** A record of a kind or a form that this version does not know: perhaps a newer one wrote it. */
export function unknownRecord(
  what: string,
  facts: ErrorFacts = {},
  cause?: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    `this version cannot read a record of the topic: ${what}`,
    'Install the version of pg-understudy that the leader runs; if it is the same, another ' +
      'program wrote to the topic.',
    cause,
    facts,
  );
}

/** A record that no version writes. */
export function foreignRecord(
  what: string,
  facts: ErrorFacts = {},
  cause?: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    what,
    `Another program wrote to the topic: stop it, then ${startOver}`,
    cause,
    facts,
  );
}

/**
 * The ids of the topic are not those of the registry: its data was lost and made again, or it is
 * another registry. `what` is the evidence.
 */
export function otherSchemaIds(what: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `${what}: the schema registry is another one, or has lost its data`,
    'Point registry.url at the registry that the topic was written with, or restore its data, ' +
      `then start the agent again. If the data is lost, ${startOver} If it is that registry and ` +
      'complete, another program wrote to the topic: stop it.',
    cause,
  );
}

export function unknownRegistryAnswer(url: string, request: string): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    `the schema registry at ${url} gave an unknown answer to ${request}`,
    'Check that registry.url is the address of a Confluent-compatible registry.',
    undefined,
    { registry: url },
  );
}

interface TooLargeRecord {
  readonly topic: string;
  readonly partition: number;
  readonly sizeBytes: number;
  /** Names the record by its key: `the row ("4711") of public.orders`. */
  readonly record: string;
  /** What no record may exceed, whatever the topic allows. */
  readonly recordBytesMax: number;
}

export function recordTooLarge(facts: TooLargeRecord, cause?: unknown): UnderstudyError {
  const { topic, partition, sizeBytes, record, recordBytesMax } = facts;
  return new UnderstudyError(
    'RECORD_TOO_LARGE',
    `${record} takes ${sizeBytes} bytes, more than partition ${partition} of ${topic} accepts`,
    sizeBytes > recordBytesMax
      ? `No record may be larger than ${recordBytesMax} bytes, whatever the topic allows: ` +
          'shorten or delete the row, then run `understudy resnapshot --all --new-slot`.'
      : raiseLimit(topic, sizeBytes, recordBytesMax),
    cause,
    { topic, partition, sizeBytes, record },
  );
}

/** The command of Kafka that changes a setting of a topic. */
export function alterTopicSetting(topic: string, setting: string, value: string): string {
  return (
    '`kafka-configs.sh --bootstrap-server <brokers> --alter --entity-type topics ' +
    `--entity-name ${topic} --add-config ${setting}=${value}\``
  );
}

function raiseLimit(topic: string, sizeBytes: number, recordBytesMax: number): string {
  const mebibyte = 1024 * 1024;
  const enough = Math.min(Math.ceil(sizeBytes / mebibyte) * mebibyte, recordBytesMax);
  const command = alterTopicSetting(topic, 'max.message.bytes', String(enough));
  return `${command}, then start the agent again.`;
}

export function batchTooLarge(
  facts: { readonly topic: string; readonly partition: number; readonly sizeBytes: number },
  cause?: unknown,
): UnderstudyError {
  const { topic, partition, sizeBytes } = facts;
  return new UnderstudyError(
    'RECORD_TOO_LARGE',
    `partition ${partition} of ${topic} refuses a batch of ${sizeBytes} bytes`,
    `Raise max.message.bytes of ${topic}: Kafka's default of 1048588 is enough for this batch.`,
    cause,
    facts,
  );
}

/** `what` says what Postgres sent: `a row outside of a transaction`. */
export function unexpectedPgoutput(what: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    `Postgres sent ${what}`,
    'Check that the server is a released PostgreSQL 15 or later; if it is, please report this.',
    cause,
  );
}

export function rowWithoutIdentity(table: string): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    `Postgres sent a row of ${table} without its identity column`,
    'Check that the replica identity of the table is its primary key or a NOT NULL unique index.',
    undefined,
    { table },
  );
}

/** As a record it would be too large for any broker, however the value is encoded. */
export function valueTooLarge(bytes: number, bytesMax: number): UnderstudyError {
  return new UnderstudyError(
    'RECORD_TOO_LARGE',
    `Postgres sent a value of ${bytes} bytes; the limit is ${bytesMax}`,
    'Delete or shorten the value, then read every table again from a new slot: ' +
      '`understudy resnapshot --all --new-slot`',
    undefined,
    { bytes, bytesMax },
  );
}

/** The node belongs to an earlier cluster of the same name. */
export function nodeOfOtherStream(node: string, ofTopics: string, ofNode: string): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `the topics belong to the stream ${ofTopics}, node ${node} to ${ofNode}`,
    'The cluster was initialised again without this database, or this understudy.yaml is a copy: ' +
      'then correct its cluster name or its URLs. To have the node in this stream, give it a new ' +
      `empty database, which its agent builds from the log: \`understudy run ${node} --replace\``,
    undefined,
    { node, ofTopics, ofNode },
  );
}

export function partitionsDiffer(facts: {
  readonly topic: string;
  readonly ofStream: number;
  readonly ofTopic: number;
  readonly configured: number;
}): UnderstudyError {
  const { topic, ofStream, ofTopic, configured } = facts;
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `the stream has ${ofStream} partitions, ${topic} ${ofTopic}, understudy.yaml ${configured}`,
    `The number is fixed at init: set kafka.partitions to ${ofStream}. If the topic itself was ` +
      `changed, ${startOver}`,
    undefined,
    facts,
  );
}

/** `what` is the evidence; `after` is the last checkpoint up to which all records are right. */
export function countsDiffer(what: string, after: EpochLsn): UnderstudyError {
  const at = formatEpochLsn(after);
  return new UnderstudyError('DAMAGED', countsText(what, at), countsHint, undefined, { at });
}

/**
 * Records that should be in the log are not. That is damage, unless this node is so late that
 * compaction has removed them: the follower judges that by how long it was away.
 */
export class GapError extends UnderstudyError {
  constructor(what: string, after: EpochLsn) {
    const at = formatEpochLsn(after);
    super('DAMAGED', countsText(what, at), countsHint, undefined, { at });
  }
}

const countsHint = `Nothing after it was applied. ${repairHint}`;

function countsText(what: string, at: string): string {
  return `record counts do not match the consistency point after ${at}: ${what}`;
}
