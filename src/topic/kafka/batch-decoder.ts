/**
 * Reads Kafka record batches (format 2) as they come in a fetch answer. Raw batches and the list of
 * aborted transactions flow in; committed records flow out, and the offset after the last batch
 * that was read, which a batch without a record left in it advances as well. Keys, values and
 * headers are views into the answer: holding one record holds the answer it came in.
 *
 * What is aborted is decided by producer id, batch and control record only, never by the bytes of a
 * key: a key of four zero bytes looks like the key of an abort marker.
 */
import { gunzipSync } from 'node:zlib';
import { damagedBatch } from '../../errors/node-damage.ts';
import { compressionUnsupported } from '../../errors/prerequisite.ts';
import type { FetchedRecord } from '../log.ts';
import { batchHeader, batchMagic, transactionalBit } from './batch-encoder.ts';
import { crc32c } from './crc32c.ts';
import type { AbortedTransaction } from './fetch.ts';

const compressionBits = 0x07;
const gzip = 1;
const logAppendTimeBit = 0x08;
const controlBit = 0x20;
/** The type in the key of a control record: 0 ends a transaction by abort, 1 by commit. */
const abortMarker = 0;

const emptyKey = Buffer.alloc(0);
const noHeaders: Readonly<Record<string, Buffer>> = Object.freeze({});

/** Known names are not decoded again; a topic of ours has three. */
const headerNamesMax = 16;
const headerNames: { readonly bytes: Buffer; readonly name: string }[] = [];

interface DecodedBatches {
  readonly records: readonly FetchedRecord[];
  readonly nextOffset: bigint;
}

/** Moves through one batch's records. */
class RecordCursor {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  get at(): number {
    return this.#at;
  }

  skip(size: number): void {
    this.#at += size;
  }

  jump(at: number): void {
    this.#at = at;
  }

  /** A signed varint or varlong; exact up to 2^53, which no length, delta or age reaches. */
  varint(): number {
    let byte = this.#bytes[this.#at] as number;
    this.#at += 1;
    if (byte < 0x80) return byte & 1 ? -(byte + 1) / 2 : byte / 2;
    let value = byte & 0x7f;
    for (let scale = 0x80; byte >= 0x80; scale *= 0x80) {
      byte = this.#bytes[this.#at] as number;
      this.#at += 1;
      value += (byte & 0x7f) * scale;
    }
    return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
  }

  /** Bytes behind their length; null for the length -1. */
  bytes(): Buffer | null {
    const size = this.varint();
    if (size < 0) return null;
    const at = this.#at;
    this.#at += size;
    return this.#bytes.subarray(at, at + size);
  }

  headerName(): string {
    const size = this.varint();
    const at = this.#at;
    this.#at += size;
    for (const known of headerNames) {
      if (known.bytes.length !== size) continue;
      let index = 0;
      while (index < size && known.bytes[index] === this.#bytes[at + index]) index += 1;
      if (index === size) return known.name;
    }
    const name = this.#bytes.toString('utf8', at, at + size);
    if (headerNames.length < headerNamesMax) headerNames.push({ bytes: Buffer.from(name), name });
    return name;
  }

  headers(): Readonly<Record<string, Buffer>> {
    const count = this.varint();
    if (count === 0) return noHeaders;
    const headers: Record<string, Buffer> = {};
    for (let left = count; left > 0; left -= 1) {
      const name = this.headerName();
      headers[name] = this.bytes() ?? emptyKey;
    }
    return headers;
  }
}

/** The records of one batch as bytes, and where they begin in them. */
function recordBytes(batch: Buffer, attributes: number, where: string): [Buffer, number] {
  const compression = attributes & compressionBits;
  if (compression === 0) return [batch, batchHeader.records];
  if (compression === gzip) return [gunzipSync(batch.subarray(batchHeader.records)), 0];
  throw compressionUnsupported(where, compression);
}

function isAbortMarker(batch: Buffer, attributes: number, where: string): boolean {
  if (batch.readInt32BE(batchHeader.recordCount) === 0) return false;
  const [bytes, start] = recordBytes(batch, attributes, where);
  const cursor = new RecordCursor(bytes, start);
  cursor.varint();
  cursor.skip(1);
  cursor.varint();
  cursor.varint();
  const key = cursor.bytes();
  return key !== null && key.length >= 4 && key.readInt16BE(2) === abortMarker;
}

/** Appends the records of one batch, leaving out those below `fromOffset`. */
function decodeRecords(
  batch: Buffer,
  partition: number,
  fromOffset: bigint,
  where: string,
  into: FetchedRecord[],
): void {
  const attributes = batch.readInt16BE(batchHeader.attributes);
  const baseOffset = batch.readBigInt64BE(batchHeader.baseOffset);
  const isLogAppendTime = (attributes & logAppendTimeBit) !== 0;
  const stamp = isLogAppendTime ? batchHeader.maxTimestamp : batchHeader.firstTimestamp;
  const batchTimestampMs = Number(batch.readBigInt64BE(stamp));
  const [bytes, start] = recordBytes(batch, attributes, where);
  const cursor = new RecordCursor(bytes, start);
  for (let left = batch.readInt32BE(batchHeader.recordCount); left > 0; left -= 1) {
    const size = cursor.varint();
    const end = cursor.at + size;
    cursor.skip(1);
    const timestampDeltaMs = cursor.varint();
    const offset = baseOffset + BigInt(cursor.varint());
    if (offset >= fromOffset) {
      into.push({
        partition,
        offset,
        timestampMs: isLogAppendTime ? batchTimestampMs : batchTimestampMs + timestampDeltaMs,
        key: cursor.bytes() ?? emptyKey,
        value: cursor.bytes(),
        headers: cursor.headers(),
      });
    }
    cursor.jump(end);
  }
}

/** Producers whose open transaction was aborted, while batches are read in order. */
class AbortedProducers {
  readonly #waiting: AbortedTransaction[];
  readonly #producers = new Set<bigint>();

  constructor(aborted: readonly AbortedTransaction[]) {
    this.#waiting = [...aborted].sort((a, b) => (a.firstOffset < b.firstOffset ? 1 : -1));
  }

  /** Takes in all aborted transactions that begin in or before the batch. */
  advance(lastOffset: bigint): void {
    for (;;) {
      const next = this.#waiting.at(-1);
      if (next === undefined || next.firstOffset > lastOffset) return;
      this.#producers.add(next.producerId);
      this.#waiting.pop();
    }
  }

  has(producerId: bigint): boolean {
    return this.#producers.has(producerId);
  }

  ended(producerId: bigint): void {
    this.#producers.delete(producerId);
  }
}

/** Reads whole batches; one that is cut off at the end is left for the next fetch. */
export function decodeBatches(
  raw: Buffer,
  aborted: readonly AbortedTransaction[],
  from: { readonly topic: string; readonly partition: number; readonly offset: bigint },
): DecodedBatches {
  const records: FetchedRecord[] = [];
  const abortedProducers = new AbortedProducers(aborted);
  let nextOffset = from.offset;
  let at = 0;
  while (raw.length - at >= batchHeader.records) {
    const end = at + batchHeader.leaderEpoch + raw.readInt32BE(at + batchHeader.length);
    if (end > raw.length) break;
    const batch = raw.subarray(at, end);
    at = end;
    const baseOffset = batch.readBigInt64BE(batchHeader.baseOffset);
    const where = `the batch at offset ${baseOffset} of ${from.topic} partition ${from.partition}`;
    checkBatch(batch, where);
    const lastOffset = baseOffset + BigInt(batch.readInt32BE(batchHeader.lastOffsetDelta));
    // Nothing counts below the first offset of the fetch, not even a marker: the marker of an old
    // transaction must not end the abort of a newer one.
    if (lastOffset < from.offset) continue;
    const attributes = batch.readInt16BE(batchHeader.attributes);
    const producerId = batch.readBigInt64BE(batchHeader.producerId);
    abortedProducers.advance(lastOffset);
    if ((attributes & controlBit) !== 0) {
      if (isAbortMarker(batch, attributes, where)) abortedProducers.ended(producerId);
    } else if ((attributes & transactionalBit) === 0 || !abortedProducers.has(producerId)) {
      decodeRecords(batch, from.partition, from.offset, where, records);
    }
    nextOffset = lastOffset + 1n;
  }
  return { records, nextOffset };
}

function checkBatch(batch: Buffer, where: string): void {
  if (batch.readInt8(batchHeader.magic) !== batchMagic) {
    throw damagedBatch(where, 'has an unknown format');
  }
  const checksum = crc32c(batch, batchHeader.attributes, batch.length);
  if (checksum !== batch.readUInt32BE(batchHeader.crc)) {
    throw damagedBatch(where, 'does not match its checksum');
  }
}
