/**
 * What counts for nobody. Flows in: positions and what the epochs of a log continue; flows out:
 * whether a record is void. Pure. Compaction keeps the newest record of a key, void or not: whoever
 * reads an old log meets records of torn batches long after their epoch has ended.
 */
import { type EpochLsn, isCovered, type Position } from './position.ts';

export interface EpochBase {
  readonly epoch: number;
  /** What the epoch continues; null for the first. */
  readonly base: EpochLsn | null;
}

/** What an epoch does not continue of lower ones counts for nobody. */
export function isVoid(position: Position, epochs: readonly EpochBase[]): boolean {
  return epochs.some(({ epoch, base }) => {
    return position.epoch < epoch && (base === null || !isCovered(position, base));
  });
}
