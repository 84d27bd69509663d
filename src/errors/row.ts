/**
 * Rows and tables that this node cannot have as the stream has them: ROW_REFUSED, SCHEMA_DIFFERS,
 * SCHEMA_BUILD_FAILED.
 */
import { UnderstudyError } from './understudy-error.ts';

/** At init. `listed` enumerates the tables for people. */
export function tablesMissing(node: string, listed: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `node ${node} lacks tables that the leader has: ${listed}`,
    `Create them on ${node} too, or give it an empty database, where all of them are created.`,
    undefined,
    { node },
  );
}

/** The schema was built, and the result differs: `difference` completes the sentence. */
export function builtDifferently(node: string, difference: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `building the leader’s schema on node ${node} gave another table: ${difference}`,
    `Create the tables on ${node} yourself and set ddl: manual; please report this.`,
    undefined,
    { node },
  );
}

/** A table of a new node, against the relation of the stream. */
export function tableDiffers(table: string, difference: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `the table ${table} is not as in the stream: ${difference}`,
    'Create the tables of this node as they are on the leader (pg_dump --schema-only), empty, or ' +
      'give it a database without any; then run this again.',
    undefined,
    { table },
  );
}
