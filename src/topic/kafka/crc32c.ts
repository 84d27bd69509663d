/**
 * CRC-32C, the checksum of Kafka's record batches. Bytes flow in, an unsigned 32-bit number flows
 * out. Eight bytes are taken per step (a table for each of them), because the checksum is
 * the one part of writing and reading a batch that touches every byte in JavaScript.
 */
const reflectedPolynomial = 0x82f63b78;

function makeTables(): Uint32Array {
  const tables = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte += 1) {
    let value = byte;
    for (let bit = 0; bit < 8; bit += 1) {
      value = value & 1 ? (value >>> 1) ^ reflectedPolynomial : value >>> 1;
    }
    tables[byte] = value;
  }
  for (let index = 256; index < tables.length; index += 1) {
    const previous = tables[index - 256] as number;
    tables[index] = (previous >>> 8) ^ (tables[previous & 0xff] as number);
  }
  return tables;
}

const tables = makeTables();

export function crc32c(bytes: Uint8Array, start: number, end: number): number {
  let crc = 0xffffffff;
  let at = start;
  for (const last = end - 8; at <= last; at += 8) {
    const low =
      crc ^
      ((bytes[at] as number) |
        ((bytes[at + 1] as number) << 8) |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 3] as number) << 24));
    crc =
      (tables[0x700 + (low & 0xff)] as number) ^
      (tables[0x600 + ((low >>> 8) & 0xff)] as number) ^
      (tables[0x500 + ((low >>> 16) & 0xff)] as number) ^
      (tables[0x400 + (low >>> 24)] as number) ^
      (tables[0x300 + (bytes[at + 4] as number)] as number) ^
      (tables[0x200 + (bytes[at + 5] as number)] as number) ^
      (tables[0x100 + (bytes[at + 6] as number)] as number) ^
      (tables[bytes[at + 7] as number] as number);
  }
  for (; at < end; at += 1) {
    crc = (crc >>> 8) ^ (tables[(crc ^ (bytes[at] as number)) & 0xff] as number);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
