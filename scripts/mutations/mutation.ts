/**
 * A shortcut somebody might take in the source, and the tests that have to turn red then. Data
 * alone: main.ts breaks the code so and runs the tests.
 */
export interface Edit {
  readonly file: string;
  /** Stands in the file exactly once. */
  readonly find: string;
  readonly replace: string;
}

export interface Mutation {
  readonly name: string;
  /** What would happen to whom. */
  readonly harm: string;
  readonly edits: readonly Edit[];
  /** Each of them has to see it. */
  readonly tests: readonly string[];
}
