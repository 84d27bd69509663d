/**
 * Tables that cannot be replicated, have to be empty, or changed while they were read:
 * TABLE_UNSUPPORTED, TABLE_NOT_EMPTY, SCHEMA_CHANGED. A table is named `schema.name`.
 */
import { UnderstudyError } from './understudy-error.ts';

export function withoutIdentity(table: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_UNSUPPORTED',
    `${table} has no replica identity`,
    'Run: understudy check',
    undefined,
    { table },
  );
}

export function identityWithoutOrder(table: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_UNSUPPORTED',
    `the identity of ${table} is an index without operators for its order`,
    'Give the table a primary key of its type’s default operator class.',
    undefined,
    { table },
  );
}

/** `type` as SQL names it. */
export function castFromText(table: string, type: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_UNSUPPORTED',
    `${table} has a column of the type ${type}, and a function casts text to that type`,
    `Drop that cast: DROP CAST (text AS ${type});`,
    undefined,
    { table, type },
  );
}

export function identityColumnMissing(table: string, columnId: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `${table} lost the column ${columnId} of its identity`,
    'Restore the column, then run verify again.',
    undefined,
    { table, column: columnId },
  );
}

/** `table` is null where Postgres does not name it. */
export function changedDuringVerify(table: string | null, cause?: unknown): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `${table ?? 'a table of the stream'} was changed while the comparison began`,
    'Run verify again when no schema change, TRUNCATE or VACUUM FULL is running.',
    cause,
    { table },
  );
}
