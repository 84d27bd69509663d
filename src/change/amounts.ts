/**
 * Amounts as users write and read them: durations (`250ms`, `1s`, `15m`) from understudy.yaml and
 * the command line, and sizes (`340 B`, `1.2 kB`, `15 GB`) for messages. A bare number is refused
 * as a duration: it would mean seconds to some and milliseconds to others.
 */
const durationPattern = /^([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)$/;

const unitMs: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** Node fires a timer that is longer than 2^31 - 1 ms at once, so nothing longer may pass. */
const longestDurationMs = 2 ** 31 - 1;

/** Parses a duration, or null for any other text and for what no timer can hold. */
export function parseDurationMs(text: string): number | null {
  const match = durationPattern.exec(text);
  if (match === null) return null;
  const [, amount = '', unit = ''] = match;
  const ms = Math.round(Number(amount) * (unitMs[unit] ?? Number.NaN));
  return ms <= longestDurationMs ? ms : null;
}

/** The shortest exact form: 1000 is `1s`, 1500 is `1500ms`, 90000 is `90s`. */
export function formatDurationMs(ms: number): string {
  for (const unit of ['d', 'h', 'm', 's']) {
    const size = unitMs[unit] ?? 1;
    if (ms >= size && ms % size === 0) return `${ms / size}${unit}`;
  }
  return `${ms}ms`;
}

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
