/**
 * Decodes records. Flows in: fetched records in offset order; flows out: stream records in the same
 * order. A record of an unknown kind or form stops the reader: it may be one that changes what the
 * rows after it mean.
 */

import type { PgText, SequencePosition } from '../../change/change.ts';
import { parsePosition } from '../../change/position.ts';
import { bug } from '../../errors/bug.ts';
import { otherSchemaIds, unknownRecord } from '../../errors/topic.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { someAtATime } from '../../waiting.ts';
import type { FetchedRecord } from '../log.ts';
import type { SchemaRegistry } from '../schema-registry.ts';
import { decodeFramed, RowCodec, readSchemaId } from './avro-codec.ts';
import {
  checkFormat,
  epochFromAvro,
  fixedSchemas,
  pointFromAvro,
  relationFromAvro,
  schemaPartFromAvro,
  sequenceFromAvro,
} from './fixed-schemas.ts';
import { decodeTexts, PositionHeaderDecoder } from './headers.ts';
import type { RecordKey } from './layout.ts';
import type { RowSchema } from './row-schema.ts';
import type { SchemaPart } from './schema-record.ts';
import type { RowRecord, StreamRecord } from './stream-record.ts';

/** Requests to the registry at a time. */
const requestsMax = 8;

export class RecordDecoder {
  readonly #registry: Pick<SchemaRegistry, 'schemaById'>;
  readonly #headers = new PositionHeaderDecoder();
  readonly #codecs = new Map<number, RowCodec>();
  #keySchemaId: number | null;

  /** Key bytes begin with the id of the key schema: with another id they are other keys. */
  constructor(registry: Pick<SchemaRegistry, 'schemaById'>, keySchemaId: number | null = null) {
    this.#registry = registry;
    this.#keySchemaId = keySchemaId;
  }

  /**
   * Decodes in order; waits only for row schemas that it has not read before, which it reads side
   * by side: a transaction may have rows of a thousand tables. Fences, schema and sequence records
   * are left out, as they are of the counts: a fence has no meaning for readers, a reader that has
   * its tables needs no schema, and rows do not depend on sequences.
   */
  async decode(records: readonly FetchedRecord[]): Promise<StreamRecord[]> {
    const decoded = this.decodePlaces(records);
    const unread = new Set<number>();
    for (const record of decoded) {
      if (record.kind !== 'row' || record.value === null) continue;
      const schemaId = readSchemaId(record.value);
      if (!this.#codecs.has(schemaId)) unread.add(schemaId);
    }
    if (unread.size > 0) await someAtATime(unread, requestsMax, (id) => this.#readCodec(id));
    return decoded;
  }

  /**
   * The same for a reader that wants to know where rows are and not what they hold: it needs no
   * schema of theirs, of which the last transaction may have a thousand.
   */
  decodePlaces(records: readonly FetchedRecord[]): StreamRecord[] {
    const decoded: StreamRecord[] = [];
    for (const record of records) {
      const stream = this.#decodeOrRefuse(record);
      if (stream !== null) decoded.push(stream);
    }
    return decoded;
  }

  /** The parts of schemas among the records, for `readSchemaRecord`. */
  schemaParts(records: readonly FetchedRecord[]): SchemaPart[] {
    return records.flatMap((record) => {
      const isPart = this.#decodeKey(record).kind === 'schema' && record.value !== null;
      return isPart ? [schemaPartFromAvro(read('schema', record.value))] : [];
    });
  }

  /** The positions of sequences among the records, in order. */
  sequences(records: readonly FetchedRecord[]): SequencePosition[] {
    return records.flatMap((record) => {
      if (!isOfSequence(record.key)) return [];
      const { kind, identity } = this.#decodeKey(record);
      if (kind !== 'sequence' || record.value === null) return [];
      return [sequenceFromAvro(identity, read('sequence', record.value))];
    });
  }

  /** The values of a row that `decode` returned, with the column ids in the same order. */
  rowValues(row: RowRecord & { value: Buffer }): {
    columnIds: readonly string[];
    values: PgText[];
  } {
    const codec = this.#codecs.get(readSchemaId(row.value));
    if (codec === undefined) {
      throw bug('a row was not decoded first');
    }
    if (codec.relationId !== row.relationId) {
      throw otherSchemaIds(`a row of ${row.relationId} has a schema of ${codec.relationId}`);
    }
    return { columnIds: codec.columnIds, values: codec.decode(row.value) };
  }

  async #readCodec(schemaId: number): Promise<void> {
    const schema = (await this.#registry.schemaById(schemaId)) as RowSchema;
    if (typeof schema.relationId !== 'string' || !Array.isArray(schema.fields)) {
      throw otherSchemaIds(`a row has schema ${schemaId}, which is not a row schema`);
    }
    this.#codecs.set(schemaId, new RowCodec(schema));
  }

  #decodeKey(record: FetchedRecord): RecordKey {
    const schemaId = readSchemaId(record.key);
    this.#keySchemaId ??= schemaId;
    if (schemaId !== this.#keySchemaId) {
      throw otherSchemaIds(`a key has schema ${schemaId} instead of ${this.#keySchemaId}`);
    }
    return decodeFramed(fixedSchemas.key.type, record.key) as RecordKey;
  }

  /** The error of a parser does not name the record: this one does. */
  #decodeOrRefuse(record: FetchedRecord): StreamRecord | null {
    try {
      return this.#decodeRecord(record);
    } catch (error) {
      if (error instanceof UnderstudyError) throw error;
      const { partition, offset } = record;
      const what = `the record at partition ${partition}, offset ${offset} is not readable`;
      throw unknownRecord(what, { partition, offset: String(offset) }, error);
    }
  }

  #decodeRecord(record: FetchedRecord): StreamRecord | null {
    const key = this.#decodeKey(record);
    const { partition, offset, timestampMs, value } = record;
    const { op, position, commitTimeMicros } = this.#headers.decode(record.headers['position']);
    const placed = { partition, offset, timestampMs, position, commitTimeMicros };
    if (key.kind === 'row') {
      if (op === '-' || (value === null) !== (op === 'd'))
        throw unknownRecord(`a row has op ${op}`);
      const was = decodeTexts('was', record.headers);
      const unchanged = decodeTexts('unchanged', record.headers);
      if (unchanged !== null && op !== 'u')
        throw unknownRecord(`a row of op ${op} has unchanged columns`);
      const { relation: relationId, identity } = key;
      const row = { op, relationId, identity, key: record.key, value, was, unchanged };
      return { kind: 'row', ...placed, ...row };
    }
    if (key.kind === 'fence' || key.kind === 'schema' || key.kind === 'sequence') return null;
    if (value === null) throw unknownRecord(`a ${key.kind} has no value`);
    switch (key.kind) {
      case 'point':
        return { kind: 'point', ...placed, point: pointFromAvro(read('point', value)) };
      case 'epoch':
        return { kind: 'epoch', ...placed, begin: epochFromAvro(read('epoch', value)) };
      case 'relation':
        return { kind: 'relation', ...placed, relation: relationFromAvro(read('relation', value)) };
      case 'truncate':
      case 'reread': {
        const { kind, relation: relationId } = key;
        const stated = read(kind, value) as { format: number; position: string };
        checkFormat(stated, `a ${kind} of ${relationId}`);
        if (parsePosition(stated.position) === null)
          throw unknownRecord(`a ${kind} has no position`);
        return { kind, ...placed, relationId };
      }
      default:
        throw unknownRecord(`a record is of the unknown kind ${JSON.stringify(key.kind)}`);
    }
  }
}

/**
 * Decodes by the fixed schema of this version, whatever the schema id: schemas of one format never
 * differ, and each value carries its format version.
 */
function read(kind: Exclude<keyof typeof fixedSchemas, 'key'>, value: Buffer): unknown {
  readSchemaId(value);
  return decodeFramed(fixedSchemas[kind].type, value);
}

/** A key begins with its frame and the length and text of its kind: no other has this letter. */
const kindAt = 6;
const kindText = Buffer.from('sequence');

/** Tells without decoding the key: every record of a follower's partition passes here. */
function isOfSequence(key: Buffer): boolean {
  const end = kindAt + kindText.length;
  return key[kindAt] === kindText[0] && key.subarray(kindAt, end).equals(kindText);
}
