/**
 * What a delayed follower may apply by now. Flows in: the batches that wait, the delay and this
 * node's clock; flows out: how many of them, from the first on, are old enough, and when to look
 * again. Pure.
 *
 * A batch is judged by the newest commit time of its records: those of two commits may stand in the
 * log the other way round, and a leader's clock may have been set. So rows get older than asked for
 * by the length of a batch, never younger. What has no row (points of a quiet leader, epoch begins)
 * is judged by when it was appended, so that an LSN taken on the leader is not passed before its
 * time; it holds up nobody, because nothing is in it.
 */
import type { Aligned } from './aligner.ts';

interface Due {
  /** How many of those that wait may be applied. */
  readonly count: number;
  /** How long until one more may be; null when only something new can change that. */
  readonly inMs: number | null;
}

/** Clocks are set, and a leader's may be far ahead: nobody sleeps longer without a look. */
const lookAgainMs = 60_000;

export function dueOf(waiting: readonly Aligned[], delayMs: number, nowMs: number): Due {
  if (delayMs === 0) return { count: waiting.length, inMs: null };
  let count = 0;
  let nextMs: number | null = null;
  for (const [at, aligned] of waiting.entries()) {
    const commitMs = newestCommitMs(aligned);
    const dueMs = (commitMs ?? Math.max(...aligned.appendMs)) + delayMs;
    if (dueMs <= nowMs) {
      // What is before it and not due itself has no row.
      count = at + 1;
      nextMs = null;
      continue;
    }
    nextMs = Math.min(nextMs ?? dueMs, dueMs);
    if (commitMs !== null) break;
  }
  return { count, inMs: nextMs === null ? null : Math.min(nextMs - nowMs, lookAgainMs) };
}

/** Rounded up: a row that is younger by a microsecond is younger. */
function newestCommitMs(aligned: Aligned): number | null {
  if (aligned.kind === 'epoch' || aligned.newestCommitMicros === null) return null;
  return Number((aligned.newestCommitMicros + 999n) / 1000n);
}
