/**
 * Makes whole rows of partial ones. Flows in: the layers of a row, the newest first, and what the
 * table holds of it; flows out: one value for each column of the table. Pure: no I/O. A value that
 * no layer has comes from the table; where that is not there either, the topic or this node is
 * damaged.
 */
import type { ColumnId, PgText } from '../../change/change.ts';

/** Values by column id; absent where the record has none. */
export type Layer = ReadonlyMap<ColumnId, PgText>;

export function layerOf(
  columnIds: readonly ColumnId[],
  values: readonly PgText[],
  unchanged: readonly ColumnId[] | null,
): Layer {
  const layer = new Map<ColumnId, PgText>();
  for (const [i, id] of columnIds.entries()) {
    if (unchanged?.includes(id) !== true) layer.set(id, values[i] ?? null);
  }
  return layer;
}

/** The columns that no layer has a value of. */
export function missingColumns(
  columnIds: readonly ColumnId[],
  layers: readonly Layer[],
): readonly ColumnId[] {
  return columnIds.filter((id) => !layers.some((layer) => layer.has(id)));
}

/** Null when `base` is needed and absent. */
export function wholeRow(
  columnIds: readonly ColumnId[],
  layers: readonly Layer[],
  base: Layer | null,
): PgText[] | null {
  const all = base === null ? layers : [...layers, base];
  const values: PgText[] = [];
  for (const id of columnIds) {
    const layer = all.find((one) => one.has(id));
    if (layer === undefined) return null;
    values.push(layer.get(id) ?? null);
  }
  return values;
}
