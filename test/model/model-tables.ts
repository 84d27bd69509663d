/**
 * Carries out the applier's actions on tables that are maps. Flows in: folded rows, and a store;
 * flows out: reads, deletes and writes of the store, in the order that the real row-actions.ts
 * gives, with rows completed by the real code.
 */
import type { PgText, RelationId } from '../../src/change/change.ts';
import { type Layer, layerOf } from '../../src/follower/apply/partial-rows.ts';
import {
  rowActions,
  type StepTable,
  type TableStep,
} from '../../src/follower/apply/row-actions.ts';
import type { TableRows, WholeRow } from '../../src/follower/apply/stages.ts';

/** Of tables whose first column is the key. */
export interface ModelStore {
  /** A record's values, in the order of the columns. */
  values(row: WholeRow): readonly PgText[];
  read(relationId: RelationId, key: string): readonly PgText[] | null;
  delete(relationId: RelationId, key: string): void;
  write(relationId: RelationId, values: readonly PgText[]): void;
  /** All rows of the table are written. */
  end?(rows: TableRows): void;
}

export interface ModelStep {
  readonly tables: readonly TableRows[];
  readonly columns: readonly string[];
  /** Whether an upsert met a conflict. */
  readonly replace?: boolean;
  /** Whether rows of the table are deleted and inserted, as during a resnapshot. */
  readonly replaceOnly?: (relationId: RelationId) => boolean;
  readonly mayLackBase?: (relationId: RelationId) => boolean;
  /** May be those of a module with a rule left out. */
  readonly actions?: typeof rowActions;
  /** How many bases are held; the others are kept by the database. */
  readonly heldMax?: number;
  /** Whether deletes come after all writes, as no applier may do it. */
  readonly deletesLast?: boolean;
}

export function applyRows(store: ModelStore, step: ModelStep): void {
  const { columns, replace = false, deletesLast = false } = step;
  const layer = (_: StepTable, row: WholeRow): Layer => {
    return layerOf(columns, store.values(row), row.unchanged);
  };
  const late: (() => void)[] = [];
  let answer: readonly (Layer | null)[] = [];
  const kept = new Map<RelationId, (readonly PgText[] | null)[]>();
  const { heldMax } = step;
  const options = { replace, layer, ...(heldMax !== undefined && { heldMax }) };
  const actions = (step.actions ?? rowActions)(tableSteps(step), options);
  for (let next = actions.next(answer); next.done !== true; next = actions.next(answer)) {
    const action = next.value;
    const { relationId } = action.table;
    if (action.kind === 'read') {
      answer = action.keys.map(([key = '']) => {
        const held = store.read(relationId, key);
        const values = action.columnIds.map((id) => held?.[columns.indexOf(id)] ?? null);
        return held === null ? null : layerOf(action.columnIds, values, null);
      });
    } else if (action.kind === 'keep') {
      const held = action.keys.map(([key = '']) => store.read(relationId, key));
      kept.set(relationId, [...(action.first === 0 ? [] : (kept.get(relationId) ?? [])), ...held]);
    } else if (action.kind === 'kept') {
      const { first, count, columnIds } = action;
      answer = (kept.get(relationId) ?? []).slice(first, first + count).map((held) => {
        const values = columnIds.map((id) => held?.[columns.indexOf(id)] ?? null);
        return held === null ? null : layerOf(columnIds, values, null);
      });
    } else if (action.kind === 'removed') {
      const spelled = (key: string | undefined): PgText => {
        return store.read(relationId, key ?? '')?.[0] ?? null;
      };
      const removed = new Set(action.by.map(({ identity }) => spelled(identity[0])));
      answer = action.keys.map(([key]) => {
        const held = spelled(key);
        return held !== null && removed.has(held) ? new Map() : null;
      });
    } else if (action.kind === 'delete') {
      const deletes = (): void => {
        for (const { identity } of action.rows) store.delete(relationId, identity[0] ?? '');
      };
      if (deletesLast) late.push(deletes);
      else deletes();
    } else if (action.kind === 'upsert') {
      for (const row of action.rows) store.write(relationId, store.values(row));
    } else if (action.kind === 'complete') store.write(relationId, action.values);
    else store.end?.(action.rows);
  }
  for (const deletes of late) deletes();
}

function tableSteps({
  tables,
  columns,
  replaceOnly = () => false,
  mayLackBase = () => false,
}: ModelStep): TableStep<StepTable>[] {
  return tables.map((rows) => {
    const { relationId } = rows;
    const table = {
      relationId,
      columns: columns.map((id) => ({ id })),
      identity: [0],
      replaceOnly: replaceOnly(relationId),
      oneSpelling: false,
    };
    return { table, rows, mayLackBase: mayLackBase(relationId) };
  });
}
