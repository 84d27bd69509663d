/**
 * Judges a gap: is the topic damaged, or is this node only too late? Flows in: how long the node
 * was away, by the brokers' clocks, and the smallest min.compaction.lag.ms the topic ever had;
 * flows out: the error to stop with. Pure. Damage concerns every node; a node that was away longer
 * than the topic keeps each change is stale, and concerns nobody else.
 */
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { GapError } from './aligner.ts';

/** Brokers' clocks and the moment of cleaning are not exact: a tenth is in doubt, and is damage. */
const certainShare = 0.9;

/** For how long nothing is taken away for a newer record. */
export function keptForMs(smallestCompactionLagMs: number): number {
  return smallestCompactionLagMs * certainShare;
}

function isStale(awayMs: number, smallestCompactionLagMs: number | null): boolean {
  return smallestCompactionLagMs !== null && awayMs >= keptForMs(smallestCompactionLagMs);
}

/**
 * `awayMs`: from the LogAppendTime of the last common point this node has applied until now. What
 * the broker has taken behind that point it may take only once it is as old as the lag, whatever
 * stands on the far side of the gap.
 */
export function judgeGap(
  gap: GapError,
  awayMs: number,
  smallestCompactionLagMs: number | null,
): UnderstudyError {
  if (!isStale(awayMs, smallestCompactionLagMs)) return gap;
  return new UnderstudyError(
    'STALE',
    `this node was away for ${Math.round(awayMs / 1_000)} s and the topic keeps each change for ` +
      `${Math.round((smallestCompactionLagMs ?? 0) / 1_000)} s: what lies between was compacted`,
    'Build it anew from the log: understudy rebuild <node>. With rebuild: swap or in-place in ' +
      'understudy.yaml its agent does so by itself.',
    gap,
  );
}
