/**
 * A row that was read, overlaid with the changes of its key that were streamed since. Takes the row
 * at a snapshot and those changes; gives the change that publishes the whole row. Pure.
 */
import type { PgText, RelationShape, RowChange, RowKey } from '../../change/change.ts';

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

/** A key as one string, for maps: texts of Postgres hold no zero byte. */
export function keyText({ relationId, identity }: RowKey): string {
  return `${relationId}\0${identity.join('\0')}`;
}
