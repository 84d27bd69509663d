/**
 * A row that was read, with what was streamed of it since. Flows in: the row at a snapshot, and the
 * changes of its key; flows out: the change that makes it whole in the stream. Pure.
 */
import type { PgText, RelationId, RelationShape, RowChange } from '../../change/change.ts';

export interface RowKey {
  readonly relationId: RelationId;
  readonly identity: readonly string[];
}

/** What the table holds under a key; equal keys may be spelled differently. */
export interface ReadRow {
  readonly identity: readonly string[];
  readonly values: readonly PgText[];
}

/** The newer change, with what it leaves unchanged from the older one. */
export function laidOver(change: RowChange, older: RowChange | null): RowChange {
  if (older === null || older.values === null || change.values === null) return change;
  const { columns } = change.relation;
  const isKept = columns.map(({ id }) => change.unchanged.includes(id));
  const unchanged = change.unchanged.filter((id) => older.unchanged.includes(id));
  const values = change.values.map((value, i) => {
    return isKept[i] === true ? (older.values?.[i] ?? null) : value;
  });
  return { ...change, values, unchanged };
}

/** The row as of the newest change. */
export function rowOf(
  relation: RelationShape,
  read: ReadRow,
  overlay: RowChange | null,
): RowChange {
  const { identity } = read;
  const base: RowChange = {
    ...{ kind: 'row', op: 'r', relation, identity },
    ...{ values: read.values, unchanged: [], was: null },
  };
  if (overlay === null) return base;
  return { ...laidOver({ ...overlay, relation }, base), op: 'r', was: null };
}

export function tombstoneOf(relation: RelationShape, { identity }: RowKey): RowChange {
  return { kind: 'row', op: 'd', relation, identity, values: null, unchanged: [], was: null };
}

/** For maps: texts of Postgres hold no zero byte. */
export function textOf({ relationId, identity }: RowKey): string {
  return `${relationId}\0${identity.join('\0')}`;
}
