/**
 * What the control log says, record by record. Flows in as a ControlRecord, flows out as the JSON
 * text of a key and a value, and back: text, because people look at this topic with kcat. Decoding
 * is strict: a record that this version does not know in full is an error, since whoever skipped a
 * claim or a release that he does not understand would go on as a leader that others have left.
 *
 * The topic is compacted, and compaction keeps the last record of a key. Hence every key is unique,
 * so that all records stay and stay where they are, but for those kinds whose last record is all
 * that counts (start, nonce, compaction-lag, repair, answer).
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
/** For people who read the log. No rule compares it: two machines' clocks never decide anything. */
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

const shapes = {
  /** Takes epoch `epoch` if it is the first to name the claim that owns the epoch before it. */
  claim: { id, epoch, node, predecessor: id.nullable(), time },
  /** The owner lets go for a switchover; only a new claim of its own brings it back. */
  release: { claim: id, request: id, node, time },
  /** The owner gives this switchover up; a release for it that comes later counts no more. */
  abort: { claim: id, request: id, node, reason: z.string(), time },
  /** How often a node was started: a database that knows a lower number is a restored copy. */
  start: { node, number: z.int().positive(), time },
  /** What `init` created: the identity of the stream, and its topic's settings at that time. */
  stream: {
    streamId: id,
    cluster: z.string().min(1),
    partitions: z.int().positive(),
    topic: z.record(z.string(), z.string()),
    time,
  },
  /** A named point, written after its Kafka commit and before Postgres hears of it. */
  point: {
    label: z.string().regex(/^[a-z][a-z0-9_.-]{0,62}$/),
    at: epochLsn,
    commitTimeMicros: decimal,
    /** Per partition, the offset of the point's record. */
    offsets: z.array(decimal),
  },
  damage: { id, epoch, at: epochLsn.nullable(), reason: z.string(), node, time },
  repair: { damage: id, node, time },
  /** A follower became a database of its own at `at`; whoever reads this never lets it follow. */
  detach: { id, node, at: epochLsn, time },
  /** A min.compaction.lag.ms that the topic has had; the smallest one decides what is damage. */
  'compaction-lag': { ms: z.int().nonnegative() },
  durability: { id, epoch, node, durability: z.string().min(1), time },
  /** A command asks the agent of `node`; later steps of the same request may follow. */
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
  /** Says nothing: whoever has read it has read everything before it. Commands have no node. */
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
  record('request'),
  record('answer'),
  record('nonce'),
]);

export type ControlRecord = Readonly<z.output<typeof controlRecord>>;
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
      return `start/${record.node}`;
    case 'stream':
      return `stream/${record.streamId}`;
    case 'point':
      // With its position: under the label alone, compaction would let the later of two win.
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

/** Throws FORMAT_TOO_NEW, or MESSAGE_UNKNOWN for whatever is not exactly one of our records. */
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
    // Not JSON is no envelope either: the caller turns it into the one error for both.
    return undefined;
  }
}

function firstIssue(error: z.core.$ZodError): string {
  const issue = error.issues[0];
  const path = issue?.path.map(String).join('.') ?? '';
  return `is not known to this version: ${path === '' ? '' : `${path}: `}${issue?.message ?? ''}`;
}
