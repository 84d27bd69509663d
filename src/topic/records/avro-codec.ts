/**
 * Avro types over Postgres text. Flows in: a schema; flows out: avsc types whose longs are exact to
 * 64 bits, the Confluent frame (0x00, then the schema's registry id) around what they write, and a
 * row codec that turns a row's text values into bytes and back without losing a bit.
 */

import avro from 'avsc';
import {
  type AvroKind,
  type ColumnConversion,
  conversionOf,
} from '../../catalog/types/column-types.ts';
import type { PgText } from '../../change/change.ts';
import { bug } from '../../errors/bug.ts';
import { foreignRecord, otherSchemaIds } from '../../errors/topic.ts';
import type { RowSchema } from './row-schema.ts';

const frameBytes = 5;

/** Beyond this, doubling a number for zigzag would leave the range where doubles are exact. */
const zigzagSafeMax = 2 ** 51;

function writeLong(value: number | bigint): Buffer {
  const bytes: number[] = [];
  if (typeof value === 'number' && Math.abs(value) < zigzagSafeMax) {
    let rest = value >= 0 ? value * 2 : -value * 2 - 1;
    while (rest >= 0x80) {
      bytes.push((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    bytes.push(rest);
  } else {
    const wide = BigInt(value);
    let rest = BigInt.asUintN(64, (wide << 1n) ^ (wide >> 63n));
    while (rest >= 0x80n) {
      bytes.push(Number(rest & 0x7fn) | 0x80);
      rest >>= 7n;
    }
    bytes.push(Number(rest));
  }
  return Buffer.from(bytes);
}

function readLong(bytes: Buffer): number | bigint {
  if (bytes.length <= 7) {
    let zigzag = 0;
    for (let i = bytes.length - 1; i >= 0; i -= 1)
      zigzag = zigzag * 0x80 + ((bytes[i] ?? 0) & 0x7f);
    return zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
  }
  let zigzag = 0n;
  for (let i = bytes.length - 1; i >= 0; i -= 1) {
    zigzag = (zigzag << 7n) | BigInt((bytes[i] ?? 0) & 0x7f);
  }
  const value = (zigzag >> 1n) ^ -(zigzag & 1n);
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

const int64Max = 2n ** 63n - 1n;

function isLong(value: unknown): boolean {
  if (typeof value === 'number') return Number.isSafeInteger(value);
  return typeof value === 'bigint' && value <= int64Max && value >= -int64Max - 1n;
}

/** A number where that is exact, a bigint beyond: avsc's own long refuses what is over 2^53. */
const exactLong = avro.types.LongType.__with(
  {
    fromBuffer: readLong,
    toBuffer: writeLong,
    fromJSON: (value: unknown) => value,
    toJSON: (value: unknown) => value,
    isValid: isLong,
    compare: (a: number | bigint, b: number | bigint) => (a < b ? -1 : a > b ? 1 : 0),
  },
  true,
);

/** A schema has a long as its name alone or as an object with a logical type. */
function isLongSchema(schema: unknown): boolean {
  if (typeof schema === 'string') return schema === 'long';
  return (schema as { type?: unknown } | null)?.type === 'long';
}

export function avroType(schema: unknown): avro.Type {
  const options = {
    typeHook: (part: unknown) => (isLongSchema(part) ? exactLong : undefined),
    wrapUnions: 'never',
  };
  return avro.Type.forSchema(
    schema as avro.Schema,
    options as unknown as Parameters<typeof avro.Type.forSchema>[1],
  );
}

/** Results are copied out of it, so every record uses it; a larger record has its own buffer. */
const scratch = Buffer.allocUnsafe(64 * 1024);

export function encodeFramed(schemaId: number, type: avro.Type, value: unknown): Buffer {
  for (let into = scratch; ; ) {
    const end = type.encode(value, into, frameBytes);
    if (end >= 0) {
      into[0] = 0;
      into.writeInt32BE(schemaId, 1);
      return into === scratch ? Buffer.from(into.subarray(0, end)) : into.subarray(0, end);
    }
    // A negative end says how many bytes are missing.
    into = Buffer.allocUnsafe(into.length - end);
  }
}

export function readSchemaId(framed: Buffer): number {
  if (framed.length < frameBytes || framed[0] !== 0) {
    throw foreignRecord('a record of the topic is not framed Avro');
  }
  return framed.readInt32BE(1);
}

export function decodeFramed(type: avro.Type, framed: Buffer): unknown {
  const { value, offset } = decodeBody(type, framed);
  if (offset !== framed.length) {
    const ends = `${offset} of ${framed.length}`;
    throw foreignRecord(`a record of the topic does not end where its schema says (${ends})`);
  }
  return value;
}

function decodeBody(type: avro.Type, framed: Buffer): { value: unknown; offset: number } {
  try {
    return type.decode(framed, frameBytes);
  } catch (error) {
    const schemaId = framed.readInt32BE(1);
    const what = `a record of the topic cannot be read by its schema ${schemaId}`;
    throw foreignRecord(what, { schemaId }, error);
  }
}

interface ColumnCodec extends ColumnConversion {
  readonly field: string;
  readonly columnId: string;
  readonly kind: AvroKind;
}

/** A table's rows under one schema: an array of text values in field order, to bytes and back. */
export class RowCodec {
  readonly relationId: string;
  readonly columnIds: readonly string[];
  readonly #type: avro.Type;
  readonly #columns: readonly ColumnCodec[];

  constructor(schema: RowSchema) {
    this.relationId = schema.relationId;
    this.#type = avroType(schema);
    this.#columns = schema.fields.map((field) => {
      const conversion = conversionOf(field.pgType);
      return { ...conversion, field: field.name, columnId: field.columnId };
    });
    this.columnIds = this.#columns.map((column) => column.columnId);
  }

  encode(schemaId: number, values: readonly PgText[]): Buffer {
    const record: Record<string, unknown> = {};
    const columns = this.#columns;
    if (values.length !== columns.length) {
      const message = `${values.length} values for ${columns.length} columns of ${this.relationId}`;
      throw bug(message);
    }
    for (let i = 0; i < columns.length; i += 1) {
      const column = columns[i] as ColumnCodec;
      const text = values[i];
      record[column.field] = text === null || text === undefined ? null : column.toAvro(text);
    }
    return encodeFramed(schemaId, this.#type, record);
  }

  decode(framed: Buffer): PgText[] {
    const record = this.#recordOf(framed);
    return this.#columns.map((column) => {
      const value = record[column.field];
      return value === null ? null : column.fromAvro(value);
    });
  }

  /** Its schema is the registry's: where the bytes do not fit, it may be that of other records. */
  #recordOf(framed: Buffer): Record<string, unknown> {
    try {
      return decodeFramed(this.#type, framed) as Record<string, unknown>;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      throw otherSchemaIds(
        `a row of ${this.relationId} does not have its schema (${message})`,
        error,
      );
    }
  }
}
