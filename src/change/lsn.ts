/**
 * A Postgres WAL address: text (`0/16B3748`) or the eight bytes of the replication protocol
 * outside, a branded bigint inside, so that no other number passes for one.
 *
 * Commit LSNs only order records. Every LSN that is shown, stored or acknowledged is an *end* LSN
 * L: a transaction is covered when its commit LSN < L, strictly, because the next commit record may
 * start exactly at L.
 */
declare const lsnBrand: unique symbol;

export type Lsn = bigint & { readonly [lsnBrand]: true };

const lsnPattern = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

export const zeroLsn = 0n as Lsn;

/** Brands a bigint that came from the wire or from a column as an LSN. */
export function toLsn(value: bigint): Lsn {
  return value as Lsn;
}

export function isLsnText(text: string): boolean {
  return lsnPattern.test(text);
}

/** Parses `16/B374D848`. Throws a RangeError on any other text: callers check input first. */
export function parseLsn(text: string): Lsn {
  const match = lsnPattern.exec(text);
  if (match === null) throw new RangeError(`not an LSN: ${JSON.stringify(text)}`);
  const [, high = '0', low = '0'] = match;
  return ((BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`)) as Lsn;
}

/** The text form Postgres prints: upper case hex, no leading zeros. */
export function formatLsn(lsn: Lsn): string {
  const high = (lsn >> 32n).toString(16);
  const low = (lsn & 0xffffffffn).toString(16);
  return `${high}/${low}`.toUpperCase();
}
