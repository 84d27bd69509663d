/**
 * The reason why a bootstrap cannot use what it has read so far. It is no failure of the topic or
 * the node: the caller of the bootstrap empties the tables and restarts it.
 */
import { DatabaseError } from 'pg';
import { hasCode } from '../../errors/understudy-error.ts';

export class BootstrapRestart extends Error {
  /** Whether two rows were in conflict: the number of such restarts is bounded. */
  readonly isConflict: boolean;

  constructor(reason: string, isConflict = false, cause?: unknown) {
    super(reason, cause === undefined ? undefined : { cause });
    this.name = 'BootstrapRestart';
    this.isConflict = isConflict;
  }
}

/** Unique and exclusion conflicts, and a statement with two rows of equal keys. */
const conflictCodes: readonly string[] = ['23505', '23P01', '21000'];
/** Cleaning is rare: conflicts in this many attempts come from a table that differs. */
const conflictsMax = 3;

/**
 * The broker may remove a row between two reads, after an older one was read: then a later row may
 * be in conflict with the older one. It is not once the log is read after the cleaning.
 */
export function restartFor(error: unknown, conflicts: number): unknown {
  if (!hasCode(error, 'ROW_REFUSED')) return error;
  const { cause } = error;
  const isConflict = cause instanceof DatabaseError && conflictCodes.includes(cause.code ?? '');
  if (!isConflict || conflicts >= conflictsMax) return error;
  return new BootstrapRestart(
    'a row is in conflict with one that the topic no longer has',
    true,
    error,
  );
}
