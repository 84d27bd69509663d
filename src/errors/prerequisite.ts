/**
 * A server, a setting or a permission that is not as required (PREREQUISITE): the servers answer,
 * and nothing was changed.
 */
import { UnderstudyError } from './understudy-error.ts';

/** The schema exists, without a table of ours in it. */
export function foreignUnderstudySchema(): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    'the database has a schema named understudy that pg-understudy did not create',
    'Rename it: ALTER SCHEMA understudy RENAME TO …;',
  );
}
