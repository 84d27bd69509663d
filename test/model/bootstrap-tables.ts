/**
 * The tables of a new node, as a map. Flows in: steps as the real folding makes them, and where
 * they lead; flows out: rows, or what Postgres would refuse. Spellings that are equal in Postgres
 * are one key. Of a table under resnapshot the rows that were not written again are deleted at the
 * end.
 */

import { finishedAt, rowsSeen } from '../../src/follower/apply/resnapshots.ts';
import type { ApplyStep, MayLackBase } from '../../src/follower/apply/stages.ts';
import { BootstrapRestart } from '../../src/follower/bootstrap/bootstrap-restart.ts';
import type { FollowerPosition } from '../../src/follower/state/follower-state.ts';
import { type ModelRow, type ModelRows, rowId } from './bootstrap-leader.ts';
import { applyRows, type ModelStore } from './model-tables.ts';

export class BootstrapTables {
  readonly #rows = new Map<string, ModelRow>();
  /** Of each table under resnapshot. */
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
    applyRows(this.#store, {
      tables: step.tables,
      columns: ['id', 'small', 'large'],
      replaceOnly: (table) => this.#seen.has(table),
      mayLackBase: mayLack,
    });
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

  /** Ids of the rows that the statement under way has written. */
  #written = new Set<string>();

  readonly #store: ModelStore = {
    values: ({ identity, value }) => {
      const [small = '', large = ''] = String(value).split('/');
      return [identity[0] ?? '', small, large];
    },
    read: (table, key) => {
      const row = this.#rows.get(rowId(table, key));
      return row === undefined ? null : [row.key, row.small, row.large];
    },
    delete: (table, key) => this.#rows.delete(rowId(table, key)),
    write: (table, [key, small, large]) => {
      const id = rowId(table, key ?? '');
      // Postgres refuses a statement that touches a row twice.
      if (this.#written.has(id)) throw new BootstrapRestart('two rows have equal keys', true);
      this.#written.add(id);
      this.#rows.set(id, { key: key ?? '', small: small ?? '', large: large ?? '' });
    },
    end: (rows) => {
      this.#written = new Set();
      for (const { identity } of rowsSeen(rows)) {
        this.#seen.get(rows.relationId)?.add(rowId(rows.relationId, identity[0] ?? ''));
      }
    },
  };
}
