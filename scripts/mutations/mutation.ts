/**
 * A mutation: edits of the source that break one rule, and the tests that have to fail then. Data
 * only: main.ts applies the edits, in their order, and runs the tests.
 */
import type { Strike } from './struck-rule.ts';

export interface Edit extends Strike {
  readonly file: string;
}

export interface Mutation {
  readonly name: string;
  /** The consequence for users. */
  readonly harm: string;
  readonly edits: readonly Edit[];
  /** Each of them has to fail. */
  readonly tests: readonly string[];
}
