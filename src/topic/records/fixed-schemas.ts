/**
 * The schemas that all changes topics share, read from schemas/*.avsc, and the mapping between
 * their Avro records and the types of change/. They hold LSNs as text and lists as plain arrays, so
 * that any Avro consumer can read them without knowing Postgres.
 */
import { readFileSync } from 'node:fs';
import type { Type } from 'avsc';
import type {
  Checkpoint,
  EpochBegin,
  Point,
  RelationShape,
  SequencePosition,
  UnfinishedTable,
} from '../../change/change.ts';
import { formatLsn, parseLsn } from '../../change/lsn.ts';
import { formatEpochLsn, parseEpochLsn } from '../../change/position.ts';
import { foreignRecord, newerFormat } from '../../errors/topic.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import { packageFile } from '../../package-files.ts';
import { avroType } from './avro-codec.ts';
import { formatVersion } from './layout.ts';
import type { SchemaPart } from './schema-record.ts';

interface FixedSchema {
  readonly name: string;
  readonly json: object;
  readonly type: Type;
}

function load(file: string): FixedSchema {
  const text = readFileSync(packageFile(`schemas/${file}.avsc`), 'utf8');
  const json = JSON.parse(text) as { namespace: string; name: string };
  return { name: `${json.namespace}.${json.name}`, json, type: avroType(json) };
}

export const fixedSchemas = {
  key: load('record-key'),
  point: load('point'),
  relation: load('relation'),
  truncate: load('truncate'),
  reread: load('reread'),
  epoch: load('epoch-begin'),
  schema: load('schema'),
  sequence: load('sequence'),
} as const;

export type FixedKind = Exclude<keyof typeof fixedSchemas, 'key'>;

/** An agent refuses what a newer one wrote: this version may misread it. */
export function checkFormat(value: { format: number }, what: string): void {
  if (value.format <= formatVersion) return;
  throw newerFormat(what, value.format, formatVersion);
}

interface AvroCheckpoint {
  at: string;
  nextOffsets: (number | bigint)[];
}

function checkpointToAvro(checkpoint: Checkpoint): AvroCheckpoint {
  return { at: formatEpochLsn(checkpoint.at), nextOffsets: [...checkpoint.nextOffsets] };
}

function checkpointFromAvro(checkpoint: AvroCheckpoint): Checkpoint {
  const at = parseEpochLsn(checkpoint.at);
  if (at === null) throw malformed(`checkpoint at ${checkpoint.at}`);
  return { at, nextOffsets: checkpoint.nextOffsets.map(BigInt) };
}

interface AvroUnfinished {
  relation: string;
  after: readonly string[] | null;
  rows: number | bigint;
  estimate: number | bigint | null;
  since: number | bigint | null;
}

function unfinishedFromAvro(tables: readonly AvroUnfinished[]): UnfinishedTable[] {
  const number = (value: number | bigint | null): number | null => {
    return value === null ? null : Number(value);
  };
  return tables.map(({ relation, after, rows, estimate, since }) => {
    const counted = { rows: Number(rows), estimate: number(estimate), since: number(since) };
    return { relation, after, ...counted };
  });
}

function malformed(what: string): UnderstudyError {
  return foreignRecord(`a record of the topic holds a malformed ${what}`);
}

/** Fields of a point that no version uses: written with these values, never read. */
const unusedInFormat1 = { settled: null, rowCounts: {}, schemaOffset: null };

export function pointToAvro(point: Point): object {
  return {
    format: formatVersion,
    ...point,
    commit: formatLsn(point.commit),
    upto: formatLsn(point.upto),
    commitTime: point.commitTimeMicros,
    previous: checkpointToAvro(point.previous),
    ...unusedInFormat1,
    unhealed: point.unhealed === null ? null : checkpointToAvro(point.unhealed),
  };
}

interface AvroPoint {
  format: number;
  streamId: string;
  label: string | null;
  epoch: number;
  commit: string;
  upto: string;
  commitTime: number | bigint;
  counts: number[];
  previous: AvroCheckpoint;
  unfinished: AvroUnfinished[];
  uncovered: string[];
  unhealed: AvroCheckpoint | null;
}

export function pointFromAvro(value: unknown): Point {
  const avro = value as AvroPoint;
  checkFormat(avro, 'a consistency point');
  return {
    streamId: avro.streamId,
    label: avro.label,
    epoch: avro.epoch,
    commit: parseLsn(avro.commit),
    upto: parseLsn(avro.upto),
    commitTimeMicros: BigInt(avro.commitTime),
    counts: avro.counts,
    previous: checkpointFromAvro(avro.previous),
    unfinished: unfinishedFromAvro(avro.unfinished),
    uncovered: avro.uncovered,
    unhealed: avro.unhealed === null ? null : checkpointFromAvro(avro.unhealed),
  };
}

export function relationToAvro(relation: RelationShape): object {
  return { format: formatVersion, ...relation };
}

export function relationFromAvro(value: unknown): RelationShape {
  const { format, ...relation } = value as RelationShape & { format: number };
  checkFormat({ format }, `the relation record of ${relation.id}`);
  // Plain objects, not instances of a class of the Avro library.
  return { ...relation, columns: relation.columns.map((column) => ({ ...column })) };
}

export function epochToAvro(begin: EpochBegin): object {
  return {
    format: formatVersion,
    ...begin,
    base: begin.base === null ? null : formatEpochLsn(begin.base),
    startLsn: formatLsn(begin.startLsn),
  };
}

interface AvroEpochBegin {
  format: number;
  base: string | null;
  startLsn: string;
  unfinished: AvroUnfinished[];
}

export function epochFromAvro(value: unknown): EpochBegin {
  const avro = value as Omit<EpochBegin, 'base' | 'startLsn' | 'unfinished'> & AvroEpochBegin;
  checkFormat(avro, `the begin of epoch ${avro.epoch}`);
  const base = avro.base === null ? null : parseEpochLsn(avro.base);
  if (avro.base !== null && base === null) throw malformed('epoch base');
  return {
    streamId: avro.streamId,
    epoch: avro.epoch,
    leader: avro.leader,
    systemId: avro.systemId,
    timeline: avro.timeline,
    base,
    startLsn: parseLsn(avro.startLsn),
    slot: avro.slot,
    keySchemaId: avro.keySchemaId,
    unfinished: unfinishedFromAvro(avro.unfinished),
  };
}

export function schemaPartToAvro(part: SchemaPart): object {
  return { format: formatVersion, ...part, position: formatEpochLsn(part.at) };
}

export function schemaPartFromAvro(value: unknown): SchemaPart {
  const avro = value as SchemaPart & { format: number; position: string };
  checkFormat(avro, 'the schema record');
  const at = parseEpochLsn(avro.position);
  const { streamId, part, parts, encoding, digest, bytes } = avro;
  if (at === null) throw malformed('schema position');
  if (encoding !== 'json' && encoding !== 'json+gzip') throw malformed('schema encoding');
  return { streamId, at, part, parts, encoding, digest, bytes: Buffer.from(bytes) };
}

export function sequenceToAvro({ lastValue, isCalled }: SequencePosition): object {
  return { format: formatVersion, lastValue, isCalled };
}

export function sequenceFromAvro(identity: readonly string[], value: unknown): SequencePosition {
  const [schema = '', name = ''] = identity;
  const avro = value as { format: number; lastValue: number | bigint; isCalled: boolean };
  checkFormat(avro, `the position of the sequence ${schema}.${name}`);
  return { schema, name, lastValue: BigInt(avro.lastValue), isCalled: avro.isCalled };
}
