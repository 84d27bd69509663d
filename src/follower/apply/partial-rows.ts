/**
 * Makes whole rows of partial ones. Flows in: the layers of a row, the newest first, and the row
 * that the table holds under the key that completes them (its base); flows out: one value for each
 * column of the table. Pure: what has to be read of the table is asked for, and answered by the
 * applier's SQL, or by the maps of a model. A partial row whose base is missing or has no value of
 * a column is damage: every earlier state of the row was applied here.
 */
import type { ColumnId, PgText, RelationId } from '../../change/change.ts';
import { partialWithoutBase } from '../../errors/node-damage.ts';
import type { PartialRow, WholeRow } from './stages.ts';

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

/** The table of a partial row, as far as its completion goes. */
export interface LayeredTable {
  readonly relationId: RelationId;
  readonly columns: readonly { readonly id: ColumnId }[];
}

/** Decodes a record; refuses one whose columns are not the table's. */
export type LayerReader<Table> = (table: Table, row: WholeRow) => Layer;

/** Asks for these columns of the rows under these keys. */
export interface BaseQuery<Table> {
  readonly kind: 'read';
  readonly table: Table;
  /** In the order of the table. */
  readonly columnIds: readonly ColumnId[];
  readonly keys: readonly (readonly string[])[];
}

/** Asks to keep these columns of the rows under these keys until the table's rows are written. */
export interface KeepQuery<Table> extends Omit<BaseQuery<Table>, 'kind'> {
  readonly kind: 'keep';
  /** The place of the first key among all that are kept of the table. */
  readonly first: number;
}

/** Asks for some of the rows that were kept, by their places. */
export interface KeptQuery<Table> {
  readonly kind: 'kept';
  readonly table: Table;
  readonly columnIds: readonly ColumnId[];
  readonly first: number;
  readonly count: number;
}

/** For each key of a query, the row that the table holds; null where it holds none. */
export type BaseRows = readonly (Layer | null)[];

/** The values that partial rows lack, as the table holds them. */
type Bases = ReadonlyMap<PartialRow, Layer>;

/** Each may hold large values: no more than this many are read at once. */
export const basesMax = 50;

/** Reads the columns that each needs, of no more than `basesMax` partial rows. */
export function* readBases<Table extends LayeredTable>(
  table: Table,
  partials: readonly PartialRow[],
  layer: LayerReader<Table>,
): Generator<BaseQuery<Table>, Bases, BaseRows> {
  const wanting = partials.filter(({ base }) => base !== null);
  if (wanting.length === 0) return new Map();
  const columnIds = lackingColumns(table, wanting, layer);
  const rows = yield {
    kind: 'read',
    table,
    columnIds,
    keys: wanting.map(({ base }) => base ?? []),
  };
  const bases = new Map<PartialRow, Layer>();
  for (const [i, partial] of wanting.entries()) {
    const row = rows[i] ?? null;
    if (row !== null) bases.set(partial, row);
  }
  return bases;
}

/** The columns that any of the rows lacks, in the order of the table. */
function lackingColumns<Table extends LayeredTable>(
  table: Table,
  partials: readonly PartialRow[],
  layer: LayerReader<Table>,
): readonly ColumnId[] {
  const ids = table.columns.map(({ id }) => id);
  const missing = new Set<ColumnId>();
  for (const { layers } of partials) {
    const read = layers.map((row) => layer(table, row));
    for (const id of missingColumns(ids, read)) missing.add(id);
  }
  return ids.filter((id) => missing.has(id));
}

/** Rows whose bases are kept, each with its place. */
export interface KeptPlaces {
  readonly columnIds: readonly ColumnId[];
  readonly places: ReadonlyMap<PartialRow, number>;
}

/** Keys of one statement. */
const keptKeysMax = 4_000;

export function* keepBases<Table extends LayeredTable>(
  table: Table,
  partials: readonly PartialRow[],
  layer: LayerReader<Table>,
): Generator<KeepQuery<Table>, KeptPlaces, BaseRows> {
  const wanting = partials.filter(({ base }) => base !== null);
  const columnIds = lackingColumns(table, wanting, layer);
  for (let first = 0; first < wanting.length; first += keptKeysMax) {
    const keys = wanting.slice(first, first + keptKeysMax).map(({ base }) => base ?? []);
    yield { kind: 'keep', table, columnIds, first, keys };
  }
  return { columnIds, places: new Map(wanting.map((partial, place) => [partial, place])) };
}

/** Those of some rows, which are in the order in which they were kept. */
export function* readKept<Table extends LayeredTable>(
  table: Table,
  { columnIds, places }: KeptPlaces,
  partials: readonly PartialRow[],
): Generator<KeptQuery<Table>, Bases, BaseRows> {
  const kept = partials.filter((partial) => places.has(partial));
  const [head] = kept;
  if (head === undefined) return new Map();
  const first = places.get(head) ?? 0;
  const rows = yield { kind: 'kept', table, columnIds, first, count: kept.length };
  const bases = new Map<PartialRow, Layer>();
  for (const [i, partial] of kept.entries()) {
    const row = rows[i] ?? null;
    if (row !== null) bases.set(partial, row);
  }
  return bases;
}

/** One value for each column of the table. */
export function completeRow<Table extends LayeredTable>(
  table: Table,
  { layers }: PartialRow,
  base: Layer | null,
  layer: LayerReader<Table>,
): readonly PgText[] {
  const ids = table.columns.map(({ id }) => id);
  const whole = wholeRow(
    ids,
    layers.map((row) => layer(table, row)),
    base,
  );
  if (whole !== null) return whole;
  throw partialWithoutBase(layers[0]);
}
