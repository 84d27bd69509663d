/**
 * pg_dump cannot be used, or its output cannot be read: SCHEMA_DUMP_FAILED, and MESSAGE_UNKNOWN for
 * output that is not SQL.
 */
import { UnderstudyError } from './understudy-error.ts';

/** `problem` names the program; `serverVersion` is a major version. */
export function unusableDump(problem: string, serverVersion: number): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DUMP_FAILED',
    problem,
    `Install the client programs of PostgreSQL ${serverVersion} or newer here, or set pgDump to ` +
      'such a pg_dump. Without one, create the tables on every node yourself and set ddl: manual.',
    undefined,
    { serverVersion },
  );
}

/** `reason` is what pg_dump printed last. */
export function dumpFailed(reason: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DUMP_FAILED',
    `pg_dump could not read the schema: ${reason}`,
    'Remove the object that it names, or create the tables on every node yourself and set ' +
      'ddl: manual.',
  );
}

/** `shown` is the beginning of what cannot be read, `problem` completes the sentence. */
export function unreadableDump(line: number, problem: string, shown: string): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    `line ${line} of the schema dump ${problem}: ${JSON.stringify(shown)}`,
    'Set pgDump to the pg_dump of the leader’s server version; if it is that one, report this.',
    undefined,
    { line },
  );
}
