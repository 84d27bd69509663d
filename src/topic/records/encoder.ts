/**
 * Encodes changes. Flows in: changes, points and epoch begins of one leader; flows out: framed Avro
 * with its partition. Only the registration of a schema waits; encoding itself never does, so a
 * batch can be filled while Kafka works on the one before.
 */

import type {
  Change,
  EpochBegin,
  Point,
  RelationShape,
  RowChange,
  SequencePosition,
} from '../../change/change.ts';
import { zeroLsn } from '../../change/lsn.ts';
import {
  type EpochLsn,
  formatPosition,
  type Position,
  pointPosition,
} from '../../change/position.ts';
import { bug } from '../../errors/bug.ts';
import type { OutgoingRecord } from '../log.ts';
import type { SchemaRegistry } from '../schema-registry.ts';
import { encodeFramed, RowCodec } from './avro-codec.ts';
import {
  epochToAvro,
  type FixedKind,
  fixedSchemas,
  pointToAvro,
  relationToAvro,
  schemaPartToAvro,
  sequenceToAvro,
} from './fixed-schemas.ts';
import { encodePositionHeader, encodeTexts, type HeaderOp } from './headers.ts';
import * as layout from './layout.ts';
import { partitionOf } from './partitioner.ts';
import { type RowSchema, rowSchemaOf } from './row-schema.ts';
import { keyOfPart, type SchemaPart, schemaPartition, supersededKeys } from './schema-record.ts';

interface RecordEncoderOptions {
  readonly topic: string;
  readonly partitions: number;
  readonly registry: Pick<SchemaRegistry, 'register'>;
}

interface PreparedRelation {
  readonly schemaId: number;
  readonly codec: RowCodec;
}

/** Of records beside the stream: registered when one is written, which followers never do. */
type BesideKind = 'schema' | 'sequence';
type FixedIds = Readonly<Record<Exclude<keyof typeof fixedSchemas, BesideKind>, number>>;

export class RecordEncoder {
  readonly #options: RecordEncoderOptions;
  readonly #fixedIds: FixedIds;
  readonly #relations = new WeakMap<RelationShape, PreparedRelation>();
  #preparing = 0;

  private constructor(options: RecordEncoderOptions, fixedIds: FixedIds) {
    this.#options = options;
    this.#fixedIds = fixedIds;
  }

  static async open(options: RecordEncoderOptions): Promise<RecordEncoder> {
    const register = (schema: { name: string; json: object }): Promise<number> =>
      options.registry.register(layout.subjectName(options.topic, schema.name), schema.json);
    const fixedIds = {
      key: await register(fixedSchemas.key),
      point: await register(fixedSchemas.point),
      relation: await register(fixedSchemas.relation),
      truncate: await register(fixedSchemas.truncate),
      reread: await register(fixedSchemas.reread),
      epoch: await register(fixedSchemas.epoch),
    };
    return new RecordEncoder(options, fixedIds);
  }

  /** Key bytes begin with this id: a stream whose registry returns another one cannot continue. */
  get keySchemaId(): number {
    return this.#fixedIds.key;
  }

  isPrepared(relation: RelationShape): boolean {
    return this.#relations.has(relation);
  }

  async prepare(relation: RelationShape): Promise<void> {
    const schema = rowSchemaOf(relation);
    this.#preparing += 1;
    try {
      const schemaId = await this.#registerRows(schema);
      this.#relations.set(relation, { schemaId, codec: new RowCodec(schema) });
    } finally {
      this.#preparing -= 1;
    }
  }

  /** Whether rows wait for the registry. */
  get isPreparing(): boolean {
    return this.#preparing > 0;
  }

  /** Registers the schema of its rows, so that their first one does not wait for the registry. */
  async announce(relation: RelationShape): Promise<void> {
    await this.#registerRows(rowSchemaOf(relation));
  }

  #registerRows(schema: RowSchema): Promise<number> {
    const subject = layout.subjectName(this.#options.topic, `${schema.namespace}.${schema.name}`);
    return this.#options.registry.register(subject, schema);
  }

  /** A row goes to the partition of its key; a record about a table goes to every partition. */
  encode(change: Change, position: Position, commitTimeMicros: bigint): OutgoingRecord[] {
    switch (change.kind) {
      case 'row':
        return [this.#encodeRow(change, position, commitTimeMicros)];
      case 'truncate':
      case 'reread': {
        const { kind, relation } = change;
        const keyOf = kind === 'truncate' ? layout.truncateKey : layout.rereadKey;
        const value = { format: layout.formatVersion, position: formatPosition(position) };
        const key = keyOf(relation.id, position);
        return this.#everywhere(kind, key, value, position, commitTimeMicros);
      }
      case 'relation': {
        const key = layout.relationKey(change.relation.id);
        const value = relationToAvro(change.relation);
        return this.#everywhere('relation', key, value, position, commitTimeMicros);
      }
    }
  }

  encodePoint(point: Point): OutgoingRecord[] {
    const position = pointPosition({ epoch: point.epoch, lsn: point.upto });
    const time = point.commitTimeMicros;
    return this.#everywhere('point', layout.pointKey, pointToAvro(point), position, time);
  }

  encodeEpochBegin(begin: EpochBegin, commitTimeMicros: bigint): OutgoingRecord[] {
    const position = pointPosition({ epoch: begin.epoch, lsn: begin.startLsn });
    const key = layout.epochKey(begin.epoch);
    return this.#everywhere('epoch', key, epochToAvro(begin), position, commitTimeMicros);
  }

  /** Readers ignore it: a node that is promoted writes it to learn where the log ends. */
  encodeFence(epoch: number, timeMicros: bigint): OutgoingRecord[] {
    const key = this.#encodeKey(layout.fenceKey);
    const position = pointPosition({ epoch, lsn: zeroLsn });
    return this.#inEveryPartition(key, null, header('-', position, timeMicros));
  }

  /** `superseded` are the parts of the schema before it; their keys get tombstones. */
  async encodeSchema(
    parts: readonly SchemaPart[],
    superseded: readonly SchemaPart[],
    timeMicros: bigint,
  ): Promise<OutgoingRecord[]> {
    const schemaId = await this.#register('schema');
    const { type } = fixedSchemas.schema;
    const [first] = parts;
    if (first === undefined) throw bug('no schema');
    const headers = { position: header('-', pointPosition(first.at), timeMicros) };
    const partition = schemaPartition;
    const written = parts.map((part) => ({
      partition,
      key: this.#encodeKey(keyOfPart(part)),
      value: encodeFramed(schemaId, type, schemaPartToAvro(part)),
      headers,
    }));
    const tombstones = supersededKeys(superseded, parts).map((key) => {
      return { partition, key: this.#encodeKey(key), value: null, headers };
    });
    return [...written, ...tombstones];
  }

  /** How far sequences are at `at`, which no record of a row needs: readers may ignore them. */
  async encodeSequences(
    sequences: readonly SequencePosition[],
    at: EpochLsn,
    timeMicros: bigint,
  ): Promise<OutgoingRecord[]> {
    const schemaId = await this.#register('sequence');
    const { type } = fixedSchemas.sequence;
    const headers = { position: header('-', pointPosition(at), timeMicros) };
    return sequences.map((sequence) => ({
      partition: layout.sequencePartition,
      key: this.#encodeKey(layout.sequenceKey(sequence.schema, sequence.name)),
      value: encodeFramed(schemaId, type, sequenceToAvro(sequence)),
      headers,
    }));
  }

  #register(kind: BesideKind): Promise<number> {
    const { name, json } = fixedSchemas[kind];
    const subject = layout.subjectName(this.#options.topic, name);
    return this.#options.registry.register(subject, json);
  }

  #encodeRow(change: RowChange, position: Position, commitTimeMicros: bigint): OutgoingRecord {
    const { relation, values, unchanged, was } = change;
    const prepared = this.#relations.get(relation);
    if (prepared === undefined) {
      throw bug(`${relation.id} was not prepared`);
    }
    const key = this.#encodeKey({
      kind: 'row',
      relation: relation.id,
      identity: change.identity,
    });
    return {
      partition: partitionOf(key, this.#options.partitions),
      key,
      value: values === null ? null : prepared.codec.encode(prepared.schemaId, values),
      headers: {
        position: header(change.op, position, commitTimeMicros),
        ...(unchanged.length === 0 ? {} : { unchanged: encodeTexts(unchanged) }),
        ...(was === null ? {} : { was: encodeTexts(was) }),
      },
    };
  }

  #encodeKey(key: layout.RecordKey): Buffer {
    return encodeFramed(this.#fixedIds.key, fixedSchemas.key.type, key);
  }

  #everywhere(
    kind: Exclude<FixedKind, BesideKind>,
    recordKey: layout.RecordKey,
    avro: object,
    position: Position,
    commitTimeMicros: bigint,
  ): OutgoingRecord[] {
    const key = this.#encodeKey(recordKey);
    const value = encodeFramed(this.#fixedIds[kind], fixedSchemas[kind].type, avro);
    return this.#inEveryPartition(key, value, header('-', position, commitTimeMicros));
  }

  #inEveryPartition(key: Buffer, value: Buffer | null, position: string): OutgoingRecord[] {
    return Array.from({ length: this.#options.partitions }, (_, partition) => {
      return { partition, key, value, headers: { position } };
    });
  }
}

function header(op: HeaderOp, position: Position, commitTimeMicros: bigint): string {
  return encodePositionHeader({ op, position, commitTimeMicros });
}
