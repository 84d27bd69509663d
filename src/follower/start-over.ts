/**
 * Why what a new node has read so far is worth nothing. It is no error: nothing is wrong with the
 * topic or the node, and whoever runs the bootstrap empties the tables and begins again.
 */
export class StartOver extends Error {
  /** Whether two rows stood in each other's way; the next try has to get past them. */
  readonly isConflict: boolean;

  constructor(reason: string, isConflict = false, cause?: unknown) {
    super(reason, cause === undefined ? undefined : { cause });
    this.name = 'StartOver';
    this.isConflict = isConflict;
  }
}
