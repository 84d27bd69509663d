/**
 * What a log says up to a mark, whatever compaction has taken of it. Flows in: the records of each
 * partition and the epochs that count; flows out: rows and truncates in the order of positions,
 * piece after piece. Pure: no I/O.
 *
 * Nothing is counted: compaction took what it took, and may go on while this is read. The order
 * makes up for it. A truncate empties what came before it, the tombstone of a key that is spelled
 * otherwise comes before the row that Postgres takes for the same, and a row that a later record
 * replaces is replaced. Void records are left out: a void truncate would take rows that nobody
 * publishes again. So are relation records: compaction leaves other ones in each partition, and
 * who begins has taken the newest already.
 */
import type { RelationId } from '../change/change.ts';
import { type EpochBase, isVoid } from '../change/void.ts';
import type { StreamRecord } from '../topic/stream-record.ts';
import { type ContentRecord, heldBytes } from './aligner.ts';
import type { ApplyStep } from './coalesce.ts';
import { OrderedMerge, type Piece } from './ordered-merge.ts';
import { StartOver } from './start-over.ts';

export class CompactedLog {
  readonly #merge: OrderedMerge;
  readonly #ends: readonly bigint[];
  readonly #epochs: readonly EpochBase[];

  constructor(from: readonly bigint[], ends: readonly bigint[], epochs: readonly EpochBase[]) {
    this.#ends = ends;
    this.#epochs = epochs;
    this.#merge = new OrderedMerge(from, ends, (what) => new StartOver(what));
  }

  /** Where to read on; none at the end. */
  wanted(): Map<number, bigint> {
    return this.#merge.wanted();
  }

  get complete(): boolean {
    return this.#merge.complete;
  }

  /** Per partition, where to begin again once what was handed out is applied. */
  get offsets(): readonly bigint[] {
    return this.#merge.offsets;
  }

  push(partition: number, records: readonly StreamRecord[], nextOffset: bigint): void {
    const end = this.#ends[partition] ?? 0n;
    const content = records.flatMap((record) => {
      return record.offset < end && this.#counts(record) ? [record as ContentRecord] : [];
    });
    this.#merge.push(partition, content, nextOffset);
  }

  /** What is next in the order of positions; empty until more is read. */
  next(): Piece {
    return this.#merge.next();
  }

  #counts(record: StreamRecord): boolean {
    if (record.kind === 'point' || record.kind === 'epoch' || record.kind === 'relation') {
      return false;
    }
    return !isVoid(record.position, this.#epochs);
  }
}

/** What holding a piece costs, roughly. */
export function pieceBytes(piece: Piece): number {
  let bytes = 0;
  for (const records of piece) for (const record of records) bytes += heldBytes(record);
  return bytes;
}

/** Steps for who serves no readers. */
export function forNobody(steps: readonly ApplyStep[]): readonly ApplyStep[] {
  return withoutEmptied(steps.map(asForNobody));
}

/**
 * Where a table is read anew, what came before may be gone: who serves readers keeps it until the
 * end of the reading, who has none of them empties the table at once.
 */
function asForNobody(step: ApplyStep): ApplyStep {
  if (step.kind !== 'reread') return step;
  return { kind: 'truncate', relationIds: [step.relationId] };
}

/**
 * Rows that a later step takes away again: below a table's reading anew the log may hold two keys
 * that are one row, of which the leader told nothing, and that no statement would take.
 */
function withoutEmptied(steps: readonly ApplyStep[]): ApplyStep[] {
  const emptied = new Set<RelationId>();
  const kept: ApplyStep[] = [];
  for (const step of [...steps].reverse()) {
    if (step.kind === 'truncate') for (const id of step.relationIds) emptied.add(id);
    if (step.kind !== 'rows') kept.push(step);
    else
      kept.push({ ...step, tables: step.tables.filter((rows) => !emptied.has(rows.relationId)) });
  }
  return kept.reverse();
}
