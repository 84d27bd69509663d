/**
 * The bytes of pgoutput (protocol version 1, with messages) as typed messages. Flows in: the body
 * of one XLogData frame; flows out: one message with every value as the exact text Postgres sent.
 * Decoding copies what it keeps, because the frame is a slice of a socket buffer that is used
 * again. A message it does not know is an error, never skipped.
 *
 * Format: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
import { constants, isUtf8 } from 'node:buffer';
import { type Lsn, toLsn } from '../../change/lsn.ts';
import { unexpectedPgoutput, valueTooLarge } from '../../errors/topic.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';

/** null is SQL NULL; undefined is a TOASTed value that did not change and was not sent. */
type TupleValue = string | null | undefined;
export type Tuple = readonly TupleValue[];

interface RelationColumn {
  readonly name: string;
  readonly typeOid: number;
  readonly typeModifier: number;
  readonly partOfKey: boolean;
}

export interface RelationMessage {
  readonly kind: 'relation';
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** d default, n nothing, f full, i index. */
  readonly replicaIdentity: string;
  readonly columns: readonly RelationColumn[];
}

/** K holds the old key alone, O the whole old row (REPLICA IDENTITY FULL). */
export interface OldTuple {
  readonly kind: 'K' | 'O';
  readonly values: Tuple;
}

export type PgoutputMessage =
  | {
      readonly kind: 'begin';
      readonly commitLsn: Lsn;
      readonly commitTimeMicros: bigint;
      /** As the WAL has it, without its epoch. */
      readonly xid: number;
    }
  | { readonly kind: 'commit'; readonly commitLsn: Lsn; readonly commitEndLsn: Lsn }
  | RelationMessage
  | { readonly kind: 'insert'; readonly oid: number; readonly values: Tuple }
  | {
      readonly kind: 'update';
      readonly oid: number;
      readonly old: OldTuple | null;
      readonly values: Tuple;
    }
  | { readonly kind: 'delete'; readonly oid: number; readonly old: OldTuple }
  | { readonly kind: 'truncate'; readonly oids: readonly number[] }
  | {
      readonly kind: 'message';
      readonly transactional: boolean;
      readonly prefix: string;
      readonly content: string;
    }
  /** Type and origin messages: known, and without a meaning here. */
  | { readonly kind: 'ignored' };

/** What a string can hold. As a record it would be too large for any broker anyway. */
const valueBytesMax = constants.MAX_STRING_LENGTH;
/** Microseconds from 1970-01-01 to Postgres' own epoch, 2000-01-01. */
const postgresEpochMicros = 946_684_800_000_000n;

class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  byte(): number {
    const value = this.#bytes.readUInt8(this.#at);
    this.#at += 1;
    return value;
  }

  char(): string {
    return String.fromCharCode(this.byte());
  }

  int16(): number {
    const value = this.#bytes.readUInt16BE(this.#at);
    this.#at += 2;
    return value;
  }

  int32(): number {
    const value = this.#bytes.readInt32BE(this.#at);
    this.#at += 4;
    return value;
  }

  /** An OID or a transaction id: without a sign. */
  uint32(): number {
    return this.int32() >>> 0;
  }

  lsn(): Lsn {
    const value = this.#bytes.readBigUInt64BE(this.#at);
    this.#at += 8;
    return toLsn(value);
  }

  int64(): bigint {
    const value = this.#bytes.readBigInt64BE(this.#at);
    this.#at += 8;
    return value;
  }

  text(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0) throw unknownMessage('a string without an end');
    const value = this.#bytes.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return value;
  }

  sized(): string {
    const start = this.#skipSized();
    return this.#bytes.toString('utf8', start, this.#at);
  }

  /** As `sized`, but bytes that are not UTF-8 are refused: they would be replaced silently. */
  sizedText(): string {
    const start = this.#skipSized();
    const value = this.#bytes.toString('utf8', start, this.#at);
    // Only a replaced byte or a real U+FFFD gives this character: the exact check is rare.
    if (value.includes('\ufffd') && !isUtf8(this.#bytes.subarray(start, this.#at))) {
      throw unknownMessage('a value that is not UTF-8');
    }
    return value;
  }

  /** Moves past a length and its bytes; gives where the bytes begin. */
  #skipSized(): number {
    const length = this.int32();
    const start = this.#at;
    if (length < 0 || start + length > this.#bytes.length) {
      throw unknownMessage(`a value of ${length} bytes`);
    }
    if (length > valueBytesMax) throw valueTooLarge(length, valueBytesMax);
    this.#at = start + length;
    return start;
  }

  /** Every byte must have a meaning: bytes left over belong to a protocol this is not. */
  end(tag: string): void {
    if (this.#at !== this.#bytes.length) {
      throw unknownMessage(`${this.#bytes.length - this.#at} bytes after a message ${tag}`);
    }
  }
}

export function decodePgoutput(bytes: Buffer): PgoutputMessage {
  try {
    return decodeMessage(new Cursor(bytes));
  } catch (error) {
    // What a Buffer throws when it is read past its end.
    if (error instanceof RangeError) throw unknownMessage('a message that is cut off', error);
    throw error;
  }
}

function decodeMessage(cursor: Cursor): PgoutputMessage {
  const tag = cursor.char();
  if (tag === 'Y' || tag === 'O') return { kind: 'ignored' };
  const message = decodeBody(tag, cursor);
  cursor.end(tag);
  return message;
}

function decodeBody(tag: string, cursor: Cursor): PgoutputMessage {
  switch (tag) {
    case 'I': {
      const oid = cursor.uint32();
      expect(cursor.char(), 'N', 'insert');
      return { kind: 'insert', oid, values: readTuple(cursor) };
    }
    case 'U':
      return readUpdate(cursor);
    case 'D': {
      const oid = cursor.uint32();
      return { kind: 'delete', oid, old: readOldTuple(cursor, cursor.char()) };
    }
    case 'B': {
      const commitLsn = cursor.lsn();
      const commitTimeMicros = cursor.int64() + postgresEpochMicros;
      return { kind: 'begin', commitLsn, commitTimeMicros, xid: cursor.uint32() };
    }
    case 'C': {
      cursor.byte();
      const commitLsn = cursor.lsn();
      const commitEndLsn = cursor.lsn();
      cursor.int64();
      return { kind: 'commit', commitLsn, commitEndLsn };
    }
    case 'R':
      return readRelation(cursor);
    case 'T': {
      const count = cursor.int32();
      if (count < 1) throw unknownMessage(`a truncate of ${count} tables`);
      cursor.byte();
      return { kind: 'truncate', oids: Array.from({ length: count }, () => cursor.uint32()) };
    }
    case 'M': {
      const transactional = (cursor.byte() & 1) === 1;
      cursor.lsn();
      return { kind: 'message', transactional, prefix: cursor.text(), content: cursor.sized() };
    }
    default:
      throw unknownMessage(`a message ${JSON.stringify(tag)}`);
  }
}

function readUpdate(cursor: Cursor): PgoutputMessage {
  const oid = cursor.uint32();
  let tag = cursor.char();
  let old: OldTuple | null = null;
  if (tag !== 'N') {
    old = readOldTuple(cursor, tag);
    tag = cursor.char();
  }
  expect(tag, 'N', 'update');
  return { kind: 'update', oid, old, values: readTuple(cursor) };
}

function readOldTuple(cursor: Cursor, tag: string): OldTuple {
  if (tag !== 'K' && tag !== 'O') throw unknownMessage(`an old row ${JSON.stringify(tag)}`);
  return { kind: tag, values: readTuple(cursor) };
}

const tagNull = 0x6e;
const tagUnchanged = 0x75;
const tagText = 0x74;

function readTuple(cursor: Cursor): TupleValue[] {
  const count = cursor.int16();
  const values: TupleValue[] = new Array(count);
  for (let i = 0; i < count; i += 1) {
    const tag = cursor.byte();
    if (tag === tagText) values[i] = cursor.sizedText();
    else if (tag === tagNull) values[i] = null;
    else if (tag === tagUnchanged) values[i] = undefined;
    else throw unknownMessage(`a value ${JSON.stringify(String.fromCharCode(tag))}`);
  }
  return values;
}

function readRelation(cursor: Cursor): RelationMessage {
  const oid = cursor.uint32();
  const schema = cursor.text();
  const name = cursor.text();
  const replicaIdentity = cursor.char();
  const columns = Array.from({ length: cursor.int16() }, () => {
    const partOfKey = (cursor.byte() & 1) === 1;
    const columnName = cursor.text();
    const typeOid = cursor.uint32();
    return { name: columnName, typeOid, typeModifier: cursor.int32(), partOfKey };
  });
  return { kind: 'relation', oid, schema, name, replicaIdentity, columns };
}

function expect(found: string, wanted: string, where: string): void {
  if (found !== wanted) throw unknownMessage(`${JSON.stringify(found)} in an ${where}`);
}

function unknownMessage(what: string, cause?: unknown): UnderstudyError {
  return unexpectedPgoutput(`${what}, which this version cannot read`, cause);
}
