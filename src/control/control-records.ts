/**
 * The records of the control log: a ControlRecord to the JSON text of a key and a value, and back.
 * Text, because users read this topic with kcat. Decoding is strict: a record that this version
 * does not know in full is an error, since a leader that skipped a claim or a release would
 * continue in an epoch that the other nodes have left.
 *
 * The topic is compacted, and compaction keeps the last record of a key. Hence every key is unique,
 * so that all records stay at their offsets, but for the kinds of which only the last record is
 * used (start, stop, nonce, compaction-lag, repair, answer).
 *
 * This version appends no release, abort or durability: switchover and other durabilities than
 * async are not part of it. They belong to format 1 all the same, and readers fold them: a node of
 * this version understands the log of a node that appends them.
 */
import { z } from 'zod';
import { formatEpochLsn, parseEpochLsn } from '../change/position.ts';
import { newerFormat, unknownControlRecord } from '../errors/topic.ts';
import type { UnderstudyError } from '../errors/understudy-error.ts';

/** Raised when a kind, a field or a rule of the fold changes; an older agent then stops. */
const controlFormat = 1;

const id = z.string().min(1).max(64);
const node = z.string().min(1).max(64);
const epoch = z.int().positive();
/** For users who read the log. No rule compares it: the clocks of two machines decide nothing. */
const time = z.iso.datetime();

const decimal = z.codec(z.string().regex(/^(0|[1-9][0-9]{0,18})$/), z.bigint(), {
  decode: (text) => BigInt(text),
  encode: (value) => value.toString(),
});

const epochLsnShape = z.object({
  epoch,
  lsn: z.custom<NonNullable<ReturnType<typeof parseEpochLsn>>['lsn']>(
    (value) => typeof value === 'bigint' && value >= 0n,
  ),
});

const epochLsn = z.codec(z.string(), epochLsnShape, {
  decode: (text, context) => {
    const at = parseEpochLsn(text);
    if (at !== null) return at;
    context.issues.push({ code: 'custom', message: 'not an epoch:lsn', input: text });
    return z.NEVER;
  },
  encode: formatEpochLsn,
});

const failure = z.strictObject({
  code: z.string(),
  message: z.string(),
  hint: z.string(),
  exit: z.int(),
});

/** A database as an agent reached it: the server, the database in it, and the way there. */
const servedDatabase = z.strictObject({
  /** Of initdb; a physical copy has it too. */
  systemId: z.string().min(1),
  oid: z.string().min(1),
  name: z.string().min(1),
  /** host:port of the URL. */
  address: z.string().min(1),
  /** When its server was started, in seconds: a physical copy was started at another time. */
  startedAt: z.string().min(1),
});

const shapes = {
  /** Owns epoch `epoch` if it is the first to name the claim that owns the epoch before it. */
  claim: { id, epoch, node, predecessor: id.nullable(), time },
  /** The owner ends its epoch for a switchover; after it, only a new claim can make it owner. */
  release: { claim: id, request: id, node, time },
  /** The owner aborts this switchover; a later release for it is void. */
  abort: { claim: id, request: id, node, reason: z.string(), time },
  /** How often a node was started: a database with a lower number is a restored copy. */
  start: { node, number: z.int().positive(), time, database: servedDatabase.optional() },
  /** Written by `init`: the identity of the stream, and the topic settings at that time. */
  stream: {
    streamId: id,
    cluster: z.string().min(1),
    partitions: z.int().positive(),
    topic: z.record(z.string(), z.string()),
    time,
  },
  /** A named point, written after its Kafka commit and before the confirmation to Postgres. */
  point: {
    label: z.string().regex(/^[a-z][a-z0-9_.-]{0,62}$/),
    at: epochLsn,
    commitTimeMicros: decimal,
    /** For each partition, the offset of the point's record. */
    offsets: z.array(decimal),
  },
  /** A node found records missing or too many in the topic after `at`. */
  damage: { id, epoch, at: epochLsn.nullable(), reason: z.string(), node, time },
  /** Closes the damage of that id; `by` is the user and the machine of the command. */
  repair: { damage: id, by: z.string().min(1), reason: z.string().min(1), time },
  /** A follower became an independent database at `at`; it never follows again. */
  detach: { id, node, at: epochLsn, time },
  /** A min.compaction.lag.ms that the topic has had. The smallest one separates damage from age. */
  'compaction-lag': { ms: z.int().nonnegative() },
  /** The durability of the leader changed: async, log or apply:N. */
  durability: { id, epoch, node, durability: z.string().min(1), time },
  /** At which change the agent of a leader stopped; null once the node leads again. */
  stop: { node, error: failure.nullable(), time },
  /** From a command to the agent of `node`; further steps of the same request may follow. */
  request: {
    id,
    step: id,
    verb: z.string().min(1),
    node,
    args: z.record(z.string(), z.json()),
    time,
  },
  /** `result` is null where `error` says why there is none. */
  answer: { request: id, step: id, node, result: z.json(), error: failure.nullable(), time },
  /** A process that reads its own nonce has read all records before it. A command has no node. */
  nonce: { node: node.nullable(), value: z.string().min(1) },
} as const;

function record<K extends keyof typeof shapes>(kind: K) {
  return z.strictObject({ kind: z.literal(kind), ...shapes[kind] });
}

const controlRecord = z.discriminatedUnion('kind', [
  record('claim'),
  record('release'),
  record('abort'),
  record('start'),
  record('stream'),
  record('point'),
  record('damage'),
  record('repair'),
  record('detach'),
  record('compaction-lag'),
  record('durability'),
  record('stop'),
  record('request'),
  record('answer'),
  record('nonce'),
]);

export type ControlRecord = Readonly<z.output<typeof controlRecord>>;
export type ServedDatabase = Readonly<z.output<typeof servedDatabase>>;
export type RecordOf<K extends ControlRecord['kind']> = Extract<ControlRecord, { kind: K }>;

interface ControlText {
  readonly key: string;
  readonly value: string;
}

/** The key decides what compaction keeps, so it is a function of the record alone. */
export function controlKey(record: ControlRecord): string {
  switch (record.kind) {
    case 'claim':
      return `claim/${record.epoch}/${record.id}`;
    case 'release':
    case 'abort':
      return `${record.kind}/${record.claim}/${record.request}`;
    case 'start':
    case 'stop':
      return `${record.kind}/${record.node}`;
    case 'stream':
      return `stream/${record.streamId}`;
    case 'point':
      // With its position: under the label alone, compaction would keep the later of two.
      return `point/${record.label}/${formatEpochLsn(record.at)}`;
    case 'damage':
    case 'detach':
    case 'durability':
      return `${record.kind}/${record.id}`;
    case 'repair':
      return `repair/${record.damage}`;
    case 'compaction-lag':
      return `compaction-lag/${record.ms}`;
    case 'request':
      return `request/${record.id}/${record.step}`;
    case 'answer':
      return `answer/${record.request}/${record.step}`;
    case 'nonce':
      return record.node === null ? 'nonce' : `nonce/${record.node}`;
  }
}

export function encodeControlRecord(record: ControlRecord): ControlText {
  const fields = z.encode(controlRecord, record);
  return {
    key: controlKey(record),
    value: JSON.stringify({ format: controlFormat, ...fields }),
  };
}

const envelope = z.looseObject({ format: z.int().positive(), kind: z.string() });

/** Throws FORMAT_TOO_NEW, or MESSAGE_UNKNOWN for what is not exactly one of our records. */
export function decodeControlRecord(
  key: string,
  value: string | null,
  offset: bigint,
): ControlRecord {
  const where = `record ${offset} of the control log (key ${JSON.stringify(key)})`;
  const unknown = (problem: string): UnderstudyError =>
    unknownControlRecord(where, problem, offset);
  if (value === null) throw unknown('is a tombstone: records of the control log are never deleted');
  const opened = envelope.safeParse(parseJson(value));
  if (!opened.success) throw unknown('was not written by Understudy');
  const { format, ...fields } = opened.data;
  if (format > controlFormat) {
    throw newerFormat(where, format, controlFormat);
  }
  const parsed = controlRecord.safeDecode(fields as z.input<typeof controlRecord>);
  if (!parsed.success) throw unknown(firstIssue(parsed.error));
  if (controlKey(parsed.data) !== key) throw unknown('has a key that does not fit its value');
  return parsed.data;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // No envelope either: the caller reports both as one error.
    return undefined;
  }
}

function firstIssue(error: z.core.$ZodError): string {
  const issue = error.issues[0];
  const path = issue?.path.map(String).join('.') ?? '';
  return `is not known to this version: ${path === '' ? '' : `${path}: `}${issue?.message ?? ''}`;
}
