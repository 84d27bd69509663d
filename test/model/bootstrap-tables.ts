/**
 * The tables of a new node, as a map. Flows in: steps as the real folding makes them, and where
 * they lead; flows out: rows, or what Postgres would refuse. Spellings that are equal in Postgres
 * are one key. Of a table that is read anew the rows that have not come again go in the end.
 */
import * as assert from 'uvu/assert';
import type { ApplyStep } from '../../src/follower/apply/coalesce.ts';
import { finishedAt, rowsThatCame } from '../../src/follower/apply/rereads.ts';
import type { MayLackBase, PartialRow, TableRows } from '../../src/follower/apply/row-fold.ts';
import { StartOver } from '../../src/follower/bootstrap/start-over.ts';
import type { FollowerPosition } from '../../src/follower/state/follower-state.ts';
import { type ModelRow, type ModelRows, rowId } from './bootstrap-leader.ts';

export class BootstrapTables {
  readonly #rows = new Map<string, ModelRow>();
  /** Of each table that is read anew. */
  readonly #seen = new Map<string, Set<string>>();

  get rows(): ModelRows {
    return this.#rows;
  }

  /** `mayLack`: whether a partial row without a base is left out. */
  apply(step: ApplyStep, mayLack: MayLackBase): void {
    if (step.kind === 'relation') return;
    if (step.kind === 'reread') {
      this.#seen.set(step.relationId, new Set());
      return;
    }
    if (step.kind === 'truncate') {
      for (const id of [...this.#rows.keys()]) {
        if (step.relationIds.some((table) => id.startsWith(`${table} `))) this.#rows.delete(id);
      }
      return;
    }
    for (const rows of step.tables) {
      this.#applyRows(rows, mayLack(rows.relationId));
      for (const { identity } of rowsThatCame(rows)) {
        this.#seen.get(rows.relationId)?.add(rowId(rows.relationId, identity[0] ?? ''));
      }
    }
  }

  /** All steps up to the position are applied. */
  reached(position: FollowerPosition): void {
    for (const table of finishedAt(position, [...this.#seen.keys()])) {
      for (const id of [...this.#rows.keys()]) {
        if (id.startsWith(`${table} `) && !this.#seen.get(table)?.has(id)) this.#rows.delete(id);
      }
      this.#seen.delete(table);
    }
  }

  #applyRows({ relationId, deletes, upserts, partials }: TableRows, mayLack: boolean): void {
    const completed = partials.map((partial) => this.#complete(relationId, partial));
    for (const { identity } of deletes) this.#rows.delete(rowId(relationId, identity[0] ?? ''));
    const written = upserts.map(({ identity, value }) => rowOf(identity[0] ?? '', String(value)));
    const seen = new Set<string>();
    for (const row of [...written, ...completed]) {
      if (row === null) {
        assert.ok(mayLack, 'a row is not there that a record changes');
        continue;
      }
      const id = rowId(relationId, row.key);
      // Postgres refuses a statement that touches a row twice.
      if (seen.has(id)) throw new StartOver('two rows have equal keys', true);
      seen.add(id);
      this.#rows.set(id, row);
    }
  }

  /** What a partial row lacks comes from older records, or from the table. */
  #complete(relationId: string, { layers, base }: PartialRow): ModelRow | null {
    const [newest] = layers;
    const row = rowOf(newest.identity[0] ?? '', String(newest.value));
    const whole = layers.find(({ unchanged }) => unchanged === null);
    if (whole !== undefined) return { ...row, large: rowOf('', String(whole.value)).large };
    const held = this.#rows.get(rowId(relationId, base?.[0] ?? ''));
    return held === undefined ? null : { ...row, large: held.large };
  }
}

function rowOf(key: string, value: string): ModelRow {
  const [small = '', large = ''] = value.split('/');
  return { key, small, large };
}
