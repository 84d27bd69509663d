/**
 * A mutation: an edit of the source that breaks one rule, and the tests that have to fail then.
 * Data only: main.ts applies the edit and runs the tests.
 */
export interface Edit {
  readonly file: string;
  /** Occurs in the file exactly once. */
  readonly find: string;
  readonly replace: string;
}

export interface Mutation {
  readonly name: string;
  /** The consequence for users. */
  readonly harm: string;
  readonly edits: readonly Edit[];
  /** Each of them has to fail. */
  readonly tests: readonly string[];
}
