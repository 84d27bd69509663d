/**
 * Judges a gap: is the topic damaged, or is this node only too late? Flows in: the times of both
 * ends of the gap and the smallest min.compaction.lag.ms the topic ever had; flows out: the error
 * to stop with. Pure. Damage concerns every node; a node that was away longer than the topic keeps
 * each change is stale, and concerns nobody else.
 */
import { UnderstudyError } from '../errors.ts';
import type { GapError } from './aligner.ts';

/** Brokers' clocks and the moment of cleaning are not exact: a tenth is in doubt, and is damage. */
const certainShare = 0.9;

export function isStale(gapMs: number, smallestCompactionLagMs: number | null): boolean {
  return smallestCompactionLagMs !== null && gapMs >= smallestCompactionLagMs * certainShare;
}

/** `lastAppendMs`: LogAppendTime of the last common point this node has applied. */
export function judgeGap(
  gap: GapError,
  lastAppendMs: number,
  smallestCompactionLagMs: number | null,
): UnderstudyError {
  const gapMs = gap.newestAppendMs - lastAppendMs;
  if (!isStale(gapMs, smallestCompactionLagMs)) return gap;
  return new UnderstudyError(
    'STALE',
    `this node was away for ${Math.round(gapMs / 1_000)} s and the topic keeps each change for ` +
      `${Math.round((smallestCompactionLagMs ?? 0) / 1_000)} s: what lies between was compacted`,
    'Give the node a new database with the same tables, empty, and run it again: it is built ' +
      'from the log.',
    gap,
  );
}
