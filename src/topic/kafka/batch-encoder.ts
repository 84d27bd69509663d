/**
 * Writes Kafka record batches (format 2). Records of one partition flow in, batches flow out that
 * are bounded in bytes and in records; each is encoded into one buffer of its exact size, without
 * an allocation per record. Order is kept, nothing is compressed.
 */

import type { OutgoingRecord } from '../log.ts';
import { crc32c } from './crc32c.ts';

/**
 * Bytes of one batch, well under the 1,048,588 that Kafka's default max.message.bytes allows, so
 * that topics with default settings take them too. A record that is larger travels alone.
 */
export const recordBatchBytesMax = 900_000;

/** kafkajs consumers spread a batch over the arguments of one call, which has a limit. */
export const recordBatchRecordsMax = 8_000;

/** The identity of the producer; all -1 for one without transactions. */
export interface BatchProducer {
  readonly producerId: bigint;
  readonly producerEpoch: number;
  readonly baseSequence: number;
  readonly transactional: boolean;
}

export const plainProducer: BatchProducer = {
  producerId: -1n,
  producerEpoch: -1,
  baseSequence: -1,
  transactional: false,
};

/** Offsets of the header's fields, from the start of the batch. */
export const batchHeader = {
  baseOffset: 0,
  length: 8,
  leaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  firstTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  baseSequence: 53,
  recordCount: 57,
  records: 61,
} as const;

export const batchMagic = 2;
export const transactionalBit = 0x10;

const tombstoneSize = 1;
const attributesSize = 1;
const timestampDeltaSize = 1;

/** Names come from a handful of constants; their bytes are encoded once. */
const headerNames = new Map<string, Buffer>();

function headerNameBytes(name: string): Buffer {
  let bytes = headerNames.get(name);
  if (bytes === undefined) {
    bytes = Buffer.from(name);
    headerNames.set(name, bytes);
  }
  return bytes;
}

/** Bytes of a signed varint (zigzag) that holds a value >= 0. */
function varintSize(value: number): number {
  if (value < 1 << 6) return 1;
  if (value < 1 << 13) return 2;
  if (value < 1 << 20) return 3;
  return value < 1 << 27 ? 4 : 5;
}

function writeVarint(bytes: Buffer, at: number, value: number): number {
  let rest = (value << 1) >>> 0;
  let next = at;
  while (rest > 0x7f) {
    bytes[next] = (rest & 0x7f) | 0x80;
    next += 1;
    rest >>>= 7;
  }
  bytes[next] = rest;
  return next + 1;
}

function headersSize(headers: OutgoingRecord['headers']): number {
  let count = 0;
  let size = 0;
  for (const name in headers) {
    if (headers[name] !== undefined) {
      const nameSize = headerNameBytes(name).length;
      const valueSize = Buffer.byteLength(headers[name]);
      size += varintSize(nameSize) + nameSize + varintSize(valueSize) + valueSize;
      count += 1;
    }
  }
  return size + varintSize(count);
}

/** Size of a record's body at the given index of its batch, without its length prefix. */
function bodySize(record: OutgoingRecord, offsetDelta: number): number {
  const { key, value } = record;
  return (
    attributesSize +
    timestampDeltaSize +
    varintSize(offsetDelta) +
    varintSize(key.length) +
    key.length +
    (value === null ? tombstoneSize : varintSize(value.length) + value.length) +
    headersSize(record.headers)
  );
}

function writeBytes(bytes: Buffer, at: number, value: Buffer): number {
  const next = writeVarint(bytes, at, value.length);
  bytes.set(value, next);
  return next + value.length;
}

function writeHeaders(bytes: Buffer, at: number, headers: OutgoingRecord['headers']): number {
  let count = 0;
  for (const name in headers) if (headers[name] !== undefined) count += 1;
  let next = writeVarint(bytes, at, count);
  for (const name in headers) {
    if (headers[name] !== undefined) {
      next = writeBytes(bytes, next, headerNameBytes(name));
      next = writeVarint(bytes, next, Buffer.byteLength(headers[name]));
      next += bytes.write(headers[name], next, 'utf8');
    }
  }
  return next;
}

function writeRecord(bytes: Buffer, at: number, record: OutgoingRecord, delta: number): number {
  let next = writeVarint(bytes, at, bodySize(record, delta));
  bytes[next] = 0;
  bytes[next + 1] = 0;
  next = writeVarint(bytes, next + 2, delta);
  next = writeBytes(bytes, next, record.key);
  if (record.value === null) {
    // A length of -1 in zigzag.
    bytes[next] = 1;
    next += tombstoneSize;
  } else {
    next = writeBytes(bytes, next, record.value);
  }
  return writeHeaders(bytes, next, record.headers);
}

export interface BatchRange {
  readonly start: number;
  readonly end: number;
  /** Of the whole batch, header included. */
  readonly sizeBytes: number;
}

/** How many of the records from `start` on fit into one batch: at least one. */
export function nextBatch(records: readonly OutgoingRecord[], start: number): BatchRange {
  let sizeBytes: number = batchHeader.records;
  let end = start;
  for (const stop = Math.min(records.length, start + recordBatchRecordsMax); end < stop; end += 1) {
    const size = bodySize(records[end] as OutgoingRecord, end - start);
    const grown = sizeBytes + varintSize(size) + size;
    if (grown > recordBatchBytesMax && end > start) break;
    sizeBytes = grown;
  }
  return { start, end, sizeBytes };
}

/**
 * Encodes the range as one batch. Our topics replace the timestamp by the broker's (LogAppendTime).
 */
export function encodeBatch(
  records: readonly OutgoingRecord[],
  range: BatchRange,
  producer: BatchProducer,
  timestampMs: number,
): Buffer {
  const bytes = Buffer.allocUnsafe(range.sizeBytes);
  const count = range.end - range.start;
  const timestamp = BigInt(timestampMs);
  bytes.writeBigInt64BE(0n, batchHeader.baseOffset);
  bytes.writeInt32BE(range.sizeBytes - batchHeader.leaderEpoch, batchHeader.length);
  bytes.writeInt32BE(-1, batchHeader.leaderEpoch);
  bytes.writeInt8(batchMagic, batchHeader.magic);
  bytes.writeInt16BE(producer.transactional ? transactionalBit : 0, batchHeader.attributes);
  bytes.writeInt32BE(count - 1, batchHeader.lastOffsetDelta);
  bytes.writeBigInt64BE(timestamp, batchHeader.firstTimestamp);
  bytes.writeBigInt64BE(timestamp, batchHeader.maxTimestamp);
  bytes.writeBigInt64BE(producer.producerId, batchHeader.producerId);
  bytes.writeInt16BE(producer.producerEpoch, batchHeader.producerEpoch);
  bytes.writeInt32BE(producer.baseSequence, batchHeader.baseSequence);
  bytes.writeInt32BE(count, batchHeader.recordCount);
  let at: number = batchHeader.records;
  for (let index = range.start; index < range.end; index += 1) {
    at = writeRecord(bytes, at, records[index] as OutgoingRecord, index - range.start);
  }
  const checksum = crc32c(bytes, batchHeader.attributes, range.sizeBytes);
  bytes.writeUInt32BE(checksum, batchHeader.crc);
  return bytes;
}
