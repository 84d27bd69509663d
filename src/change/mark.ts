/**
 * Marks in order. Flows in: marks of one log, where null is none; flows out: the oldest. Pure.
 */
import type { Mark } from './change.ts';
import { compareEpochLsn } from './position.ts';

export function oldestMark(marks: readonly (Mark | null)[]): Mark | null {
  return marks.reduce((a, b) => {
    if (a === null || b === null) return a ?? b;
    return compareEpochLsn(a.at, b.at) <= 0 ? a : b;
  }, null);
}
