/**
 * The schema record, by which the topic holds the leader's schema. Flows in: a schema and the
 * position it covers; flows out: one part, or several compressed ones where it is large, and from
 * parts the newest schema that has all its parts. A torn one is never taken for a whole: each part
 * carries the number of parts and the digest of the whole. Pure.
 *
 * The parts of a large one have its position in their keys, so that compaction never mixes two.
 */

import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';
import {
  decodeSchema,
  encodeSchema,
  type SchemaPayload,
} from '../../catalog/dump/schema-payload.ts';
import type { EpochBase } from '../../change/position.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { bug } from '../../errors/bug.ts';
import { type RecordKey, schemaKey, schemaPartKey } from './layout.ts';

/** All parts are in one partition, so that they are in order. */
export const schemaPartition = 0;

/** Below every limit that brokers have by default, with room for the frame and the headers. */
const partBytesMax = 512 * 1024;
/** The size limit of an unpacked schema: far above any, far below the memory of a process. */
const schemaBytesMax = 512 * 1024 * 1024;

type SchemaEncoding = 'json' | 'json+gzip';

export interface SchemaPart {
  readonly streamId: string;
  readonly at: EpochLsn;
  readonly part: number;
  readonly parts: number;
  readonly encoding: SchemaEncoding;
  /** Of all parts put together. */
  readonly digest: string;
  readonly bytes: Buffer;
}

export interface SchemaRecord {
  readonly streamId: string;
  /** The schema changes below it, strictly, are in. */
  readonly at: EpochLsn;
  readonly schema: SchemaPayload;
}

export function schemaParts(record: SchemaRecord): SchemaPart[] {
  const { streamId, at, schema } = record;
  const plain = Buffer.from(encodeSchema(schema), 'utf8');
  const isSmall = plain.length <= partBytesMax;
  const whole = isSmall ? plain : gzipSync(plain);
  const parts = Math.ceil(whole.length / partBytesMax);
  const digest = digestOf(whole);
  const encoding = isSmall ? 'json' : 'json+gzip';
  return Array.from({ length: parts }, (_, part) => {
    const bytes = whole.subarray(part * partBytesMax, (part + 1) * partBytesMax);
    return { streamId, at, part, parts, encoding, digest, bytes };
  });
}

export function keyOfPart({ at, part, encoding }: SchemaPart): RecordKey {
  return encoding === 'json' ? schemaKey : schemaPartKey(at, part);
}

/** Keys that the newer schema does not replace: they need tombstones. */
export function supersededKeys(
  older: readonly SchemaPart[],
  newer: readonly SchemaPart[],
): RecordKey[] {
  const nameOf = ({ identity }: RecordKey): string => identity.join(' ');
  const kept = new Set(newer.map((part) => nameOf(keyOfPart(part))));
  const left = older.map(keyOfPart).filter((key) => !kept.has(nameOf(key)));
  return [...new Map(left.map((key) => [nameOf(key), key])).values()];
}

/**
 * The parts that are valid in a stream up to the last of `epochs`: void ones may hold tables that
 * only the abandoned end of an epoch had. A schema covers what is below its position, so one at
 * exactly the base of a later epoch is valid.
 */
export function validParts(
  parts: readonly SchemaPart[],
  streamId: string,
  epochs: readonly EpochBase[],
): SchemaPart[] {
  const newest = Math.max(...epochs.map(({ epoch }) => epoch));
  const isVoid = (at: EpochLsn): boolean => {
    return epochs.some(({ epoch, base }) => {
      return at.epoch < epoch && (base === null || compareEpochLsn(at, base) > 0);
    });
  };
  return parts.filter(({ streamId: its, at }) => {
    // rule: void-schema-left-out
    return its === streamId && at.epoch <= newest && !isVoid(at);
  });
}

/** The newest schema whose parts are all among these; null where none is whole. */
export function readSchemaRecord(parts: readonly SchemaPart[]): SchemaRecord | null {
  const groups = new Map<string, SchemaPart[]>();
  for (const part of parts) {
    const name = `${formatEpochLsn(part.at)} ${part.digest}`;
    groups.set(name, [...(groups.get(name) ?? []), part]);
  }
  const newestFirst = [...groups.values()].sort((a, b) => compareEpochLsn(atOf(b), atOf(a)));
  for (const group of newestFirst) {
    const record = assembled(group);
    if (record !== null) return record;
  }
  return null;
}

function atOf(group: readonly SchemaPart[]): EpochLsn {
  const [first] = group;
  if (first === undefined) throw bug('a group is empty');
  return first.at;
}

/** In place of a missing part: without it the digest differs. */
const noBytes = Buffer.alloc(0);

/** Null for a torn one: a part may not be written yet, or its epoch ended before it was. */
function assembled(group: readonly SchemaPart[]): SchemaRecord | null {
  const [first] = group;
  if (first === undefined) return null;
  // A part that is in the topic twice, because an epoch begin was retried, is one part.
  const byNumber = new Map(group.map((part) => [part.part, part.bytes]));
  const ordered = Array.from({ length: first.parts }, (_, part) => byNumber.get(part) ?? noBytes);
  const whole = Buffer.concat(ordered);
  // rule: schema-is-whole
  if (digestOf(whole) !== first.digest) return null;
  const plain =
    first.encoding === 'json' ? whole : gunzipSync(whole, { maxOutputLength: schemaBytesMax });
  return {
    streamId: first.streamId,
    at: first.at,
    schema: decodeSchema(plain.toString('utf8')),
  };
}

function digestOf(whole: Buffer): string {
  return createHash('sha256').update(whole).digest('hex');
}
