/**
 * Compares what two nodes hold. Flows in: digests of the leader's tables and of one follower's,
 * both of one LSN; flows out: which tables are equal. Tables are matched by relation id, so a table
 * that only one of the two has is a difference, and so is another set of columns. Pure.
 */
import type { TableDigest } from './table-digest.ts';

export interface TableComparison {
  readonly table: string;
  /** On the follower; null when it has no such table. */
  readonly rows: bigint | null;
  /** null when the leader has no such table. */
  readonly leaderRows: bigint | null;
  readonly equal: boolean;
}

export interface NodeComparison {
  readonly name: string;
  readonly equal: boolean;
  /** By name. */
  readonly tables: readonly TableComparison[];
}

export function compareNode(
  name: string,
  leader: readonly TableDigest[],
  follower: readonly TableDigest[],
): NodeComparison {
  const here = new Map(follower.map((digest) => [digest.relationId, digest]));
  const there = new Map(leader.map((digest) => [digest.relationId, digest]));
  const tables = [...new Set([...there.keys(), ...here.keys()])]
    .map((id) => compareTable(there.get(id), here.get(id)))
    .sort((a, b) => (a.table < b.table ? -1 : 1));
  return { name, equal: tables.every(({ equal }) => equal), tables };
}

function compareTable(
  leader: TableDigest | undefined,
  follower: TableDigest | undefined,
): TableComparison {
  return {
    table: leader?.table ?? follower?.table ?? '',
    rows: follower?.rows ?? null,
    leaderRows: leader?.rows ?? null,
    equal: leader !== undefined && follower !== undefined && sameRows(leader, follower),
  };
}

function sameRows(a: TableDigest, b: TableDigest): boolean {
  return (
    a.rows === b.rows &&
    a.sums[0] === b.sums[0] &&
    a.sums[1] === b.sums[1] &&
    a.columnIds.length === b.columnIds.length &&
    a.columnIds.every((id, at) => id === b.columnIds[at])
  );
}
