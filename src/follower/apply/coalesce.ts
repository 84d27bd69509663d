/**
 * Folds batches into what has to be done to the tables. Flows in: aligned batches, in order; flows
 * out: steps in order, each the final rows of some tables, or a barrier. Pure: no I/O.
 *
 * Between two barriers only the last change of a key counts, so a row that was written ten thousand
 * times is written once. A truncate, a relation record and the begin of a resnapshot are barriers
 * at their position, in all partitions alike.
 */
import { comparePositions, isCovered, type Position } from '../../change/position.ts';
import { damagedLog } from '../../errors/topic.ts';
import type {
  RelationRecord,
  RereadRecord,
  TruncateRecord,
} from '../../topic/records/stream-record.ts';
import { neverLacksBase, RowFold } from './row-fold.ts';
import type { AlignedBatch, ApplyStep, ApplyWindow, ContentRecord, MayLackBase } from './stages.ts';

type Barrier = RelationRecord | TruncateRecord | RereadRecord;

/** Of batches that follow one another, or of a piece of one with all records up to a position. */
export function coalesce(
  batches: readonly Pick<AlignedBatch, 'partitions'>[],
  window: ApplyWindow,
  mayLackBase: MayLackBase = neverLacksBase,
): ApplyStep[] {
  const steps: ApplyStep[] = [];
  const movesPartials = batches.some(({ partitions }) => partitions.some(isMovedPartial));
  let rows = new RowFold(movesPartials, mayLackBase);
  const flush = (): void => {
    if (!rows.empty) steps.push({ kind: 'rows', tables: rows.tables() });
    rows = new RowFold(movesPartials, mayLackBase);
  };
  for (const batch of batches) {
    const partitions = batch.partitions.map((records) => inWindow(records, window));
    const barriers = barriersOf(partitions);
    const taken = partitions.map(() => 0);
    for (const barrier of [...barriers, null]) {
      partitions.forEach((records, partition) => {
        taken[partition] = foldUntil(records, taken[partition] ?? 0, barrier?.position, rows);
      });
      if (barrier === null) continue;
      // rule: barrier-after-earlier-rows
      flush();
      pushBarrier(steps, barrier);
    }
  }
  flush();
  return steps;
}

function isMovedPartial(records: readonly ContentRecord[]): boolean {
  return records.some((record) => {
    return record.kind === 'row' && record.unchanged !== null && record.was !== null;
  });
}

function inWindow(
  records: readonly ContentRecord[],
  window: ApplyWindow,
): readonly ContentRecord[] {
  // rule: exact-stop-inside-batch
  const { from, to } = window;
  const first = records[0];
  const last = records[records.length - 1];
  if (first === undefined || last === undefined) return records;
  const allIn = !isCovered(first.position, from) && (to === null || isCovered(last.position, to));
  if (allIn) return records;
  // rule: window-by-end-lsn
  return records.filter(({ position }) => {
    return !isCovered(position, from) && (to === null || isCovered(position, to));
  });
}

/** Barriers are in every partition at the same position; one of each is taken. */
function barriersOf(partitions: readonly (readonly ContentRecord[])[]): Barrier[] {
  const perPartition = partitions.map((records) =>
    records.filter((record): record is Barrier => record.kind !== 'row'),
  );
  const [first = [], ...rest] = perPartition;
  for (const other of rest) {
    const alike =
      other.length === first.length &&
      other.every((barrier, i) => {
        const twin = first[i];
        return twin !== undefined && comparePositions(barrier.position, twin.position) === 0;
      });
    if (alike) continue;
    throw damagedLog('a record that concerns a whole table is missing in a partition');
  }
  return first;
}

function foldUntil(
  records: readonly ContentRecord[],
  start: number,
  end: Position | undefined,
  rows: RowFold,
): number {
  let i = start;
  for (; i < records.length; i += 1) {
    const record = records[i] as ContentRecord;
    if (record.kind === 'row') {
      rows.add(record);
      continue;
    }
    if (end !== undefined && comparePositions(record.position, end) === 0) return i + 1;
  }
  return i;
}

function pushBarrier(steps: ApplyStep[], barrier: Barrier): void {
  if (barrier.kind === 'relation') {
    steps.push({ kind: 'relation', relation: barrier.relation });
    return;
  }
  if (barrier.kind === 'reread') {
    steps.push({ kind: 'reread', relationId: barrier.relationId });
    return;
  }
  const last = steps[steps.length - 1];
  // TRUNCATE a, b is one command and must be one again: alone, a referenced table is refused.
  if (last?.kind === 'truncate') {
    const relationIds = [...last.relationIds, barrier.relationId];
    steps[steps.length - 1] = { kind: 'truncate', relationIds };
  } else {
    steps.push({ kind: 'truncate', relationIds: [barrier.relationId] });
  }
}
