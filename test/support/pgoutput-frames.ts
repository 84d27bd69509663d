/**
 * Frames of pgoutput as a server writes them, made by hand from the documented format. Flows in:
 * the fields; flows out: the bytes. It shares no code with the decoder it tests.
 */
export type TupleCell = string | null | undefined;

const join = (...parts: readonly Buffer[]): Buffer => Buffer.concat(parts);

export function byte(value: number): Buffer {
  return Buffer.from([value]);
}

export function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

export function int64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value));
  return bytes;
}

export function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

function sized(value: Buffer): Buffer {
  return join(int32(value.length), value);
}

export function tag(letter: string): Buffer {
  return Buffer.from(letter, 'latin1');
}

/** undefined is an unchanged TOASTed value. */
export function tuple(...cells: readonly TupleCell[]): Buffer {
  const written = cells.map((cell) => {
    if (cell === undefined) return tag('u');
    return cell === null ? tag('n') : join(tag('t'), sized(Buffer.from(cell)));
  });
  return join(int16(cells.length), ...written);
}

export function rawValue(bytes: Buffer): Buffer {
  return join(int16(1), tag('t'), sized(bytes));
}

export const frames = {
  begin: (commitLsn: bigint, micros: bigint) =>
    join(tag('B'), int64(commitLsn), int64(micros), int32(4_000_000_001 | 0)),
  commit: (commitLsn: bigint, commitEndLsn: bigint) =>
    join(tag('C'), byte(0), int64(commitLsn), int64(commitEndLsn), int64(0n)),
  relation: (oid: number, schema: string, name: string, columns: readonly [string, boolean][]) => {
    const written = columns.map(([column, key]) =>
      join(byte(key ? 1 : 0), text(column), int32(25), int32(-1)),
    );
    const head = join(tag('R'), int32(oid), text(schema), text(name), tag('d'));
    return join(head, int16(columns.length), ...written);
  },
  insert: (oid: number, row: Buffer) => join(tag('I'), int32(oid), tag('N'), row),
  update: (oid: number, old: { kind: 'K' | 'O'; row: Buffer } | null, row: Buffer) =>
    join(tag('U'), int32(oid), ...(old === null ? [] : [tag(old.kind), old.row]), tag('N'), row),
  delete: (oid: number, kind: 'K' | 'O', row: Buffer) => join(tag('D'), int32(oid), tag(kind), row),
  truncate: (options: number, ...oids: readonly number[]) =>
    join(tag('T'), int32(oids.length), byte(options), ...oids.map(int32)),
  message: (transactional: boolean, prefix: string, content: Buffer) =>
    join(tag('M'), byte(transactional ? 1 : 0), int64(1n), text(prefix), sized(content)),
  type: () => join(tag('Y'), int32(16_400), text('public'), text('mood')),
  origin: () => join(tag('O'), int64(1n), text('elsewhere')),
};

interface FrameColumn {
  readonly name: string;
  readonly isKey: boolean;
  readonly typeOid: number;
  readonly typeModifier: number;
}

/** A relation message with the types of a real table. */
export function relationFrame(
  oid: number,
  schema: string,
  name: string,
  columns: readonly FrameColumn[],
): Buffer {
  const written = columns.map((column) => {
    const type = join(int32(column.typeOid), int32(column.typeModifier));
    return join(byte(column.isKey ? 1 : 0), text(column.name), type);
  });
  const head = join(tag('R'), int32(oid), text(schema), text(name), tag('d'));
  return join(head, int16(columns.length), ...written);
}
