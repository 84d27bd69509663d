/**
 * Compares the tables of two nodes by their digests, both of one LSN: which tables are equal, and
 * why the others are not. Tables are matched by relation id, so a table that only one node has is a
 * difference, and so is another set of columns. Pure.
 */
import type { ColumnId, RelationId } from '../change/change.ts';
import type { DifferenceKind } from './narrowing.ts';
import { equalDigests, type TableDigest } from './table-digest.ts';

/**
 * The table is missing on the follower, exists only there, has other columns or another identity
 * there, or has other rows.
 */
type TableDifference = 'missing' | 'extra' | 'columns' | 'rows';

/** The text of each value, by the name of its column on the leader; null is NULL. */
export type ShownRow = Readonly<Record<string, string | null>>;

export interface DifferentRow {
  readonly kind: DifferenceKind;
  /** The values of the identity, in the order of its index. */
  readonly identity: readonly string[];
  /** The same by name. */
  readonly key: ShownRow;
  /** null where the row does not exist, and where rows were not requested. */
  readonly leader: ShownRow | null;
  readonly follower: ShownRow | null;
}

export interface TableDifferences {
  /** The number of keys that differ; a lower bound when `exact` is false. */
  readonly rows: bigint;
  readonly exact: boolean;
  /** Of the keys that were found: of all of them when `rows` is exact. */
  readonly kinds: Readonly<Record<DifferenceKind, number>>;
  readonly keys: readonly DifferentRow[];
}

export interface TableComparison {
  readonly relationId: RelationId;
  /** schema.name on the leader, or on the follower where the leader has no such table. */
  readonly table: string;
  /** On the follower; null when it has no such table. */
  readonly rows: bigint | null;
  /** null when the leader has no such table. */
  readonly leaderRows: bigint | null;
  readonly difference: TableDifference | null;
  /** Where rows differ and keys were requested. */
  readonly rowDifferences: TableDifferences | null;
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
    .map((id) => compareTable(id, there.get(id), here.get(id)))
    .sort((a, b) => (a.table < b.table ? -1 : 1));
  return { name, equal: tables.every(({ difference }) => difference === null), tables };
}

function compareTable(
  relationId: RelationId,
  leader: TableDigest | undefined,
  follower: TableDigest | undefined,
): TableComparison {
  return {
    relationId,
    table: leader?.table ?? follower?.table ?? '',
    rows: follower?.rows ?? null,
    leaderRows: leader?.rows ?? null,
    difference: differenceOf(leader, follower),
    rowDifferences: null,
  };
}

function differenceOf(
  leader: TableDigest | undefined,
  follower: TableDigest | undefined,
): TableDifference | null {
  if (follower === undefined) return 'missing';
  if (leader === undefined) return 'extra';
  const isSameShape =
    equalIds(leader.columnIds, follower.columnIds) && equalIds(leader.identity, follower.identity);
  if (!isSameShape) return 'columns';
  return equalDigests(leader, follower) ? null : 'rows';
}

function equalIds(a: readonly ColumnId[], b: readonly ColumnId[]): boolean {
  return a.length === b.length && a.every((id, at) => id === b[at]);
}
