/**
 * What batches cost that wait for the applier. Flows in: what is aligned and not applied; flows
 * out: bytes, roughly, against the bound at which reading pauses. Pure.
 */
import type { Aligned } from './aligner.ts';

/** What may wait for the applier before reading pauses. */
export const waitingBytesMax = 64 * 1024 * 1024;
/** What a point costs without any record: of a quiet leader thousands wait behind a delay. */
const pointBytes = 2_000;
const unfinishedTableBytes = 300;

export function bytesWaiting(waiting: readonly Aligned[]): number {
  return waiting.reduce((sum, one) => sum + costOf(one), 0);
}

function costOf(aligned: Aligned): number {
  const { unfinished } = aligned.kind === 'epoch' ? aligned.begin : aligned.point;
  const rows = aligned.kind === 'batch' ? aligned.bytes : 0;
  return pointBytes + unfinished.length * unfinishedTableBytes + rows;
}
