/**
 * What one step of rows does to its tables: what is read, deleted and written, and in which order.
 * Flows in: the folded rows of each table; flows out: actions, each of which is carried out before
 * the next one is taken: by the applier with SQL, by the models of test/model with maps. Pure.
 *
 * All deletes come before all writes: keys may differ in bytes and be equal in Postgres, and the
 * delete of one spelling must not remove the row that is written under the other. A base that the
 * deletes of the step remove is read before them: under the former key of a row, in a table whose
 * rows are replaced, and where the table finds it under another spelling of a deleted key. Bases
 * may be large: those that no delete removes are read while rows are written, and of the others
 * only few are held; the rest is kept in the database until then.
 */
import type { PgText } from '../../change/change.ts';
import type { RowRecord } from '../../topic/records/stream-record.ts';
import {
  type BaseQuery,
  type BaseRows,
  basesMax,
  completeRow,
  type KeepQuery,
  type KeptPlaces,
  type KeptQuery,
  keepBases,
  type Layer,
  type LayeredTable,
  type LayerReader,
  readBases,
  readKept,
} from './partial-rows.ts';
import type { PartialRow, TableRows, WholeRow } from './stages.ts';

export interface StepTable extends LayeredTable {
  /** Indexes of its key columns. Where there is none, every row is a new one. */
  readonly identity: readonly number[];
  /** Whether a row that is written again is deleted first. */
  readonly replaceOnly: boolean;
  /** Whether keys that are equal in Postgres always have the same bytes. */
  readonly oneSpelling: boolean;
}

export interface TableStep<Table> {
  readonly table: Table;
  readonly rows: TableRows;
  /** Whether a partial row without a base is left out: a whole one follows. */
  readonly mayLackBase: boolean;
}

/**
 * Asks which of the rows under these keys the deletion of other rows would remove: they are
 * answered with a layer of no values, the others with null.
 */
interface RemovalQuery<Table> {
  readonly kind: 'removed';
  readonly table: Table;
  readonly keys: readonly (readonly string[])[];
  readonly by: readonly RowRecord[];
}

type RowAction<Table> =
  | BaseQuery<Table>
  | KeepQuery<Table>
  | KeptQuery<Table>
  | RemovalQuery<Table>
  | { readonly kind: 'delete'; readonly table: Table; readonly rows: readonly RowRecord[] }
  /** The first write to each table. */
  | { readonly kind: 'upsert'; readonly table: Table; readonly rows: readonly WholeRow[] }
  /** A row that was partial; a value for each column of the table. */
  | { readonly kind: 'complete'; readonly table: Table; readonly values: readonly PgText[] }
  /** The last one of each table. */
  | { readonly kind: 'end'; readonly table: Table; readonly rows: TableRows };

interface RowActionOptions<Table> {
  /** Whether all rows are deleted first: an upsert met a conflict. */
  readonly replace: boolean;
  readonly layer: LayerReader<Table>;
  /** How many bases are held while others are deleted. */
  readonly heldMax?: number;
}

/** Bases that were read before the deletes: null where the table held none. */
interface EarlyBases {
  readonly held: Map<PartialRow, Layer | null>;
  readonly kept: Map<StepTable, KeptPlaces>;
}

export function* rowActions<Table extends StepTable>(
  steps: readonly TableStep<Table>[],
  { replace, layer, heldMax = basesMax }: RowActionOptions<Table>,
): Generator<RowAction<Table>, void, BaseRows> {
  const early: EarlyBases = { held: new Map(), kept: new Map() };
  for (const { table, rows } of steps) {
    // rule: moved-base-before-deletes
    const isEarly = replace || table.replaceOnly ? () => true : yield* removedBases(table, rows);
    const partials = rows.partials.filter(isEarly);
    if (early.held.size + partials.length > heldMax) {
      early.kept.set(table, yield* keepBases(table, partials, layer));
      continue;
    }
    const bases = yield* readBases(table, partials, layer);
    for (const partial of partials) early.held.set(partial, bases.get(partial) ?? null);
  }
  // rule: deletes-before-writes
  for (const step of steps) yield* deletesOf(step, replace);
  // rule: writes-after-deletes
  for (const step of steps) yield* writesOf(step, early, layer);
}

/** Keys of one query, each with what it costs to look it up. */
const removalKeysMax = 4_000;

/** Which partial rows have a base that the deletes of their table may remove. */
function* removedBases<Table extends StepTable>(
  table: Table,
  { deletes, partials }: TableRows,
): Generator<RemovalQuery<Table>, (partial: PartialRow) => boolean, BaseRows> {
  // rule: respelled-base-before-deletes
  if (table.oneSpelling || deletes.length === 0) return movesKey;
  const removed = new Set<PartialRow>();
  const kept = partials.filter((partial) => partial.base !== null && !movesKey(partial));
  for (let i = 0; i < kept.length; i += removalKeysMax) {
    const part = kept.slice(i, i + removalKeysMax);
    const keys = part.map(({ base }) => base ?? []);
    const answer = yield { kind: 'removed', table, keys, by: deletes };
    for (const [k, partial] of part.entries()) if (answer[k] != null) removed.add(partial);
  }
  return (partial) => movesKey(partial) || removed.has(partial);
}

/** Whether the base is under another key, which this step may delete. */
function movesKey({ layers, base }: PartialRow): boolean {
  return base !== null && base.join('\0') !== layers[0].identity.join('\0');
}

function* deletesOf<Table extends StepTable>(
  { table, rows }: TableStep<Table>,
  replace: boolean,
): Generator<RowAction<Table>, void, BaseRows> {
  if (table.identity.length === 0) return;
  const replaced: readonly RowRecord[] =
    replace || table.replaceOnly
      ? [...rows.upserts, ...rows.partials.map(({ layers }) => layers[0])]
      : [];
  yield { kind: 'delete', table, rows: [...rows.deletes, ...replaced] };
}

const nothingKept: KeptPlaces = { columnIds: [], places: new Map() };

function* writesOf<Table extends StepTable>(
  { table, rows, mayLackBase }: TableStep<Table>,
  { held, kept }: EarlyBases,
  layer: LayerReader<Table>,
): Generator<RowAction<Table>, void, BaseRows> {
  yield { kind: 'upsert', table, rows: rows.upserts };
  const { partials } = rows;
  for (let i = 0; i < partials.length; i += basesMax) {
    const part = partials.slice(i, i + basesMax);
    const places = kept.get(table) ?? nothingKept;
    const stored = yield* readKept(table, places, part);
    const unread = part.filter((partial) => !held.has(partial) && !places.places.has(partial));
    const late = yield* readBases(table, unread, layer);
    for (const partial of part) {
      const base = held.get(partial) ?? stored.get(partial) ?? late.get(partial) ?? null;
      // rule: unread-base-is-no-damage
      if (mayLackBase && partial.base !== null && base === null) continue;
      yield { kind: 'complete', table, values: completeRow(table, partial, base, layer) };
    }
  }
  yield { kind: 'end', table, rows };
}

export function rowCount({ deletes, upserts, partials }: TableRows): number {
  return deletes.length + upserts.length + partials.length;
}
