/**
 * Which transactions a snapshot of Postgres sees, by its text, as pg_current_snapshot() returns it,
 * and by transaction ids as they are in the WAL. A transaction whose commit was decoded may still
 * be invisible: for microseconds always, and for as long as it waits for a synchronous standby,
 * where the snapshot ends below it and does not list it. Pure: the same result as
 * pg_visible_in_snapshot.
 */

export interface Snapshot {
  /** All transactions below it have ended. */
  readonly xmin: bigint;
  /** No transaction from here on is seen. */
  readonly xmax: bigint;
  readonly running: ReadonlySet<bigint>;
}

const pattern = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/;
const cycle = 1n << 32n;

export function parseSnapshot(text: string): Snapshot {
  const [, xmin, xmax, running] = pattern.exec(text) ?? [];
  if (xmin === undefined || xmax === undefined) throw new RangeError(`not a snapshot: ${text}`);
  const ids = running === undefined || running === '' ? [] : running.split(',');
  return { xmin: BigInt(xmin), xmax: BigInt(xmax), running: new Set(ids.map(BigInt)) };
}

/** `xid` as the WAL has it, without its epoch: of all cycles the nearest to `xmax` is meant. */
export function sees({ xmin, xmax, running }: Snapshot, xid: number): boolean {
  const full = widened(xid, xmax);
  return full < xmin || (full < xmax && !running.has(full));
}

function widened(xid: number, xmax: bigint): bigint {
  const same = xmax - (xmax % cycle) + BigInt(xid);
  if (same > xmax + cycle / 2n) return same - cycle;
  return same < xmax - cycle / 2n ? same + cycle : same;
}
