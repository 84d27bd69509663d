/**
 * The last state of every key between two barriers. Flows in: row records, in order within each
 * partition; flows out, per relation: keys to delete, whole rows, and partial rows with what
 * completes them. Pure: no I/O.
 *
 * A partial record leaves out values that its row had before. They are in an older record of the
 * fold, or in the table as it was before the fold, under the key that the row had then: a key
 * change is followed from the new key to the old one, through any number of changes.
 */
import type { RelationId } from '../../change/change.ts';
import { formatPosition, type Position } from '../../change/position.ts';
import { partialOfDeletedRow } from '../../errors/node-damage.ts';
import type { RowRecord } from '../../topic/records/stream-record.ts';
import type { MayLackBase, PartialRow, TableRows, WholeRow } from './stages.ts';

export const neverLacksBase: MayLackBase = () => false;

interface State {
  readonly record: RowRecord;
  /** The older record that completes a partial one; null where that is the table's row. */
  readonly under: State | null;
  /** Of a key that was changed to this one: the position of the old key's tombstone. */
  readonly movedBy: string | null;
}

/** Keys are compared by their bytes: equal bytes always share a partition, so order is kept. */
export class RowFold {
  readonly #relations = new Map<RelationId, Map<string, State>>();
  /** The state before each tombstone, by its position: only for folds that move partial rows. */
  readonly #moved: Map<string, State | null> | null;
  readonly #mayLackBase: MayLackBase;

  /** `movesPartials`: whether a partial record of the fold has a key that was changed. */
  constructor(movesPartials: boolean, mayLackBase: MayLackBase = neverLacksBase) {
    this.#mayLackBase = mayLackBase;
    this.#moved = movesPartials ? new Map() : null;
  }

  get empty(): boolean {
    return this.#relations.size === 0;
  }

  add(record: RowRecord): void {
    let rows = this.#relations.get(record.relationId);
    if (rows === undefined) {
      rows = new Map();
      this.#relations.set(record.relationId, rows);
    }
    const key = record.key.toString('latin1');
    if (record.unchanged !== null) {
      const moved = record.was !== null;
      const under = moved ? null : (rows.get(key) ?? null);
      rows.set(key, { record, under, movedBy: moved ? tombstoneBefore(record) : null });
      return;
    }
    if (record.value === null) {
      this.#moved?.set(formatPosition(record.position), rows.get(key) ?? null);
    }
    rows.set(key, { record, under: null, movedBy: null });
  }

  tables(): TableRows[] {
    return [...this.#relations].map(([relationId, rows]) => {
      const deletes: RowRecord[] = [];
      const upserts: WholeRow[] = [];
      const partials: PartialRow[] = [];
      for (const state of rows.values()) {
        const { record } = state;
        if (record.value === null) deletes.push(record);
        else if (record.unchanged === null) upserts.push(record as WholeRow);
        else partials.push(...this.#completed(state));
      }
      return { relationId, deletes, upserts, partials };
    });
  }

  /** None where the base is missing and may be. */
  #completed(newest: State): PartialRow[] {
    const mayLack = this.#mayLackBase(newest.record.relationId);
    const layers: [WholeRow, ...WholeRow[]] = [newest.record as WholeRow];
    for (let state = newest; ; ) {
      const { record, under, movedBy } = state;
      if (record.value === null) {
        if (mayLack) return [];
        throw partialOfDeletedRow(record);
      }
      if (state !== newest) layers.push(record as WholeRow);
      if (record.unchanged === null) return [{ layers, base: null }];
      const older = movedBy === null ? under : this.#moved?.get(movedBy);
      if (older === undefined) {
        if (mayLack) return [];
        throw partialOfDeletedRow(record);
      }
      if (older === null) return [{ layers, base: record.was ?? record.identity }];
      state = older;
    }
  }
}

/** The two records of a key change follow one another. */
function tombstoneBefore({ position }: RowRecord): string {
  const before: Position = { ...position, ordinal: position.ordinal - 1 };
  return formatPosition(before);
}
