/**
 * Sizes for people. Bytes flow in; flows out: `340 B`, `1.2 kB`, `15 GB`.
 */

const byteUnits = ['B', 'kB', 'MB', 'GB', 'TB'] as const;

/** A kilobyte is 1024 bytes, as in Postgres. */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < byteUnits.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 10 ? 0 : 1;
  return `${value.toFixed(digits)} ${byteUnits[unit]}`;
}
