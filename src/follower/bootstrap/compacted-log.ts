/**
 * The rows of a log up to a checkpoint, whatever compaction has removed. Flows in: the records of
 * each partition, the epochs that count, and where each relation was emptied last; flows out: rows
 * in the order of positions, piece after piece. Pure: no I/O.
 *
 * Nothing is counted: compaction has removed records, and may continue while this is read. The
 * order makes up for it: the tombstone of a key with another spelling comes before the row that
 * Postgres takes for the same, and a row that a later record replaces is replaced. Rows from before
 * a truncate or a resnapshot are left out, and with them the truncates: below a resnapshot the log
 * may hold two keys that are one row, of which the leader published nothing, and no statement would
 * accept both. Void records are left out, and relation records: compaction leaves other ones in
 * each partition, and the survey of the topic has the newest.
 */
import { comparePositions, type EpochBase, isVoid } from '../../change/position.ts';
import type { RowRecord, StreamRecord } from '../../topic/records/stream-record.ts';
import { heldBytes } from '../apply/aligner.ts';
import { OrderedMerge, type Piece } from '../apply/ordered-merge.ts';
import type { Emptied } from '../state/bootstrap-state.ts';
import { BootstrapRestart } from './bootstrap-restart.ts';

export class CompactedLog {
  readonly #merge: OrderedMerge;
  readonly #ends: readonly bigint[];
  readonly #epochs: readonly EpochBase[];
  readonly #emptied: Emptied;

  constructor(
    from: readonly bigint[],
    ends: readonly bigint[],
    epochs: readonly EpochBase[],
    emptied: Emptied,
  ) {
    this.#ends = ends;
    this.#epochs = epochs;
    this.#emptied = emptied;
    this.#merge = new OrderedMerge(from, ends, (what) => new BootstrapRestart(what));
  }

  /** The next offsets to read; none at the end. */
  wanted(): Map<number, bigint> {
    return this.#merge.wanted();
  }

  get complete(): boolean {
    return this.#merge.complete;
  }

  /** Per partition, where to continue once what was taken is applied. */
  get offsets(): readonly bigint[] {
    return this.#merge.offsets;
  }

  push(partition: number, records: readonly StreamRecord[], nextOffset: bigint): void {
    const end = this.#ends[partition] ?? 0n;
    const rows = records.flatMap((record) => {
      return record.kind === 'row' && record.offset < end && this.#counts(record) ? [record] : [];
    });
    this.#merge.push(partition, rows, nextOffset);
  }

  /** Takes out what is next in the order of positions; empty until more is read. */
  take(): Piece {
    return this.#merge.take();
  }

  #counts({ relationId, position }: RowRecord): boolean {
    const emptied = this.#emptied.get(relationId);
    // rule: emptied-rows-left-out
    if (emptied !== undefined && comparePositions(position, emptied) < 0) return false;
    return !isVoid(position, this.#epochs);
  }
}

/** What holding a piece costs, roughly. */
export function pieceBytes(piece: Piece): number {
  let bytes = 0;
  for (const records of piece) for (const record of records) bytes += heldBytes(record);
  return bytes;
}
