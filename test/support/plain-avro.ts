/**
 * avsc as it comes, for readings that are independent of our own codec: every long is a bigint,
 * packed as avsc itself does it. Flows out: options for schemas, and the type of a long.
 */
import avro from 'avsc';

export const bigLong = avro.types.LongType.__with({
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer: (value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    return bytes;
  },
  fromJSON: BigInt,
  toJSON: String,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0),
});

/** A long stands by its name alone, or in an object with a logical type. */
function typeHook(part: unknown): avro.Type | undefined {
  const isLong = part === 'long' || (part as { type?: unknown } | null)?.type === 'long';
  return isLong ? bigLong : undefined;
}

/** New for every schema: avsc keeps the names it has seen in them. */
export function plainOptions(): Parameters<typeof avro.Type.forSchema>[1] {
  return { typeHook, wrapUnions: 'never' } as never;
}
