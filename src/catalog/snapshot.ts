/**
 * What a snapshot of Postgres sees. Flows in: its text, as pg_current_snapshot() gives it, and
 * transaction ids as they stand in the WAL; flows out: whether it sees the transaction. A
 * transaction whose commit was decoded may still be unseen: for microseconds always, and for as
 * long as it waits for a synchronous standby, where the snapshot ends below it and does not name
 * it. Pure: the same answer as pg_visible_in_snapshot.
 */

export interface Snapshot {
  /** Everything below has ended. */
  readonly xmin: bigint;
  /** Nothing from here on is seen. */
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

/** `xid` as the WAL has it, without its epoch: it belongs to the cycle in which it is nearest. */
export function sees({ xmin, xmax, running }: Snapshot, xid: number): boolean {
  const full = widened(xid, xmax);
  return full < xmin || (full < xmax && !running.has(full));
}

function widened(xid: number, xmax: bigint): bigint {
  const same = xmax - (xmax % cycle) + BigInt(xid);
  if (same > xmax + cycle / 2n) return same - cycle;
  return same < xmax - cycle / 2n ? same + cycle : same;
}
