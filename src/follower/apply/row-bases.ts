/**
 * Completes partial rows from this node's own tables. Flows in: partial rows of one table; flows
 * out: what the table holds under the keys that complete them, and whole rows. A partial row whose
 * base is missing or lacks a value is damage: every earlier state of the row was applied here.
 */
import type { Client } from 'pg';
import { rowsByKeySql } from '../../catalog/key-lookup.ts';
import type { ColumnId, PgText } from '../../change/change.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import type { ApplyTarget } from './apply-sql.ts';
import type { ApplyTargets } from './apply-targets.ts';
import { type Layer, layerOf, missingColumns, wholeRow } from './partial-rows.ts';
import type { PartialRow, WholeRow } from './row-fold.ts';

/** What a partial row lacks, as the table holds it. */
export type Bases = Map<PartialRow, Layer>;

/** Each may hold large values: no more than this many are looked up at once. */
export const basesMax = 50;

export class RowBases {
  readonly #client: Client;
  readonly #targets: ApplyTargets;
  readonly #decoder: RecordDecoder;

  constructor(client: Client, targets: ApplyTargets, decoder: RecordDecoder) {
    this.#client = client;
    this.#targets = targets;
    this.#decoder = decoder;
  }

  /** The columns that each needs; those that need nothing of the table are left out. */
  async read(target: ApplyTarget, partials: readonly PartialRow[]): Promise<Bases> {
    const bases: Bases = new Map();
    const ids = target.columns.map(({ id }) => id);
    const wanting = partials.filter(({ base }) => base !== null);
    if (wanting.length === 0) return bases;
    const missing = new Set(
      wanting.flatMap(({ layers }) => missingColumns(ids, this.#layersOf(target, layers))),
    );
    const columns = ids.flatMap((id, index) => (missing.has(id) ? [index] : []));
    const keys = target.identity.map((_, k) => wanting.map(({ base }) => base?.[k] ?? null));
    const { rows } = await this.#client.query<PgText[]>({
      text: rowsByKeySql(target, columns),
      values: keys,
      rowMode: 'array',
    });
    const columnIds = columns.map((index) => ids[index] ?? '');
    for (const [place, ...values] of rows) {
      const partial = wanting[Number(place) - 1];
      if (partial !== undefined) bases.set(partial, layerOf(columnIds, values, null));
    }
    return bases;
  }

  /** One value for each column of the target. */
  complete(target: ApplyTarget, partial: PartialRow, base: Layer | null): readonly PgText[] {
    const ids = target.columns.map(({ id }) => id);
    const whole = wholeRow(ids, this.#layersOf(target, partial.layers), base);
    if (whole !== null) return whole;
    const { relationId, partition, offset } = partial.layers[0];
    throw new UnderstudyError(
      'DAMAGED',
      `the record at partition ${partition}, offset ${offset} changes a row of ${relationId} ` +
        'that this node does not have',
      'Somebody changed rows of this node, or the topic lost records: compare with understudy ' +
        'verify; destroy the cluster and init it again.',
    );
  }

  #layersOf(target: ApplyTarget, layers: readonly WholeRow[]): Layer[] {
    return layers.map((row) => {
      const { columnIds, values } = this.#decoder.rowValues(row);
      // Refuses a row whose columns are not the table's.
      this.#targets.columnOrder(target, columnIds);
      return layerOf(columnIds as readonly ColumnId[], values, row.unchanged);
    });
  }
}
