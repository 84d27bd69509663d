/**
 * Why what a new node has read so far is worth nothing. It is no error: nothing is wrong with the
 * topic or the node, and whoever runs the bootstrap empties the tables and begins again.
 */
import { DatabaseError } from 'pg';
import { hasCode } from '../../errors/understudy-error.ts';

export class BootstrapRestart extends Error {
  /** Whether two rows stood in each other's way; the next try has to get past them. */
  readonly isConflict: boolean;

  constructor(reason: string, isConflict = false, cause?: unknown) {
    super(reason, cause === undefined ? undefined : { cause });
    this.name = 'BootstrapRestart';
    this.isConflict = isConflict;
  }
}

/** Unique and exclusion conflicts, and a statement with two rows of equal keys. */
const conflictCodes: readonly string[] = ['23505', '23P01', '21000'];
/** Cleaning takes place now and then: who meets conflicts again and again has another table. */
const conflictsMax = 3;

/**
 * The broker may take a row away between two reads, and leave an older one standing that we have
 * read: then one that came later may be in conflict with it. Behind the cleaning it is not.
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
