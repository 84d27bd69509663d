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

/** Only REPLICA IDENTITY FULL lets Postgres change a row that has no key. */
export function changedWithoutIdentity(
  table: string,
  what: 'updated' | 'deleted',
): UnderstudyError {
  return new UnderstudyError(
    'TABLE_UNSUPPORTED',
    `a row of ${table} was ${what}: the table has no identity, so rows can only be added to it`,
    'Give the table a primary key, then destroy the cluster and init it again: the identity of a ' +
      'table in the stream cannot change in this version.',
    undefined,
    { table },
  );
}

/** `what` says in which way, in one clause: `its columns were changed`. */
export function tableChanged(table: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `the published table ${table} is not as it was at init: ${what}`,
    'Schema changes are not replicated in this version: undo the change, or destroy the ' +
      'cluster and init it again.',
    undefined,
    { table },
  );
}

/** `resnapshotCures` says whether the stream can continue once the rows were read again. */
export function changesNotSent(
  table: string,
  what: string,
  resnapshotCures: boolean,
): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `rows of the published table ${table} changed and were not sent: ${what}`,
    resnapshotCures
      ? 'Make the table on followers as it is here, then read its rows again: ' +
          `understudy resnapshot ${table}`
      : 'The stream cannot be completed: destroy the cluster and init it again.',
    undefined,
    { table },
  );
}

/** `what` says in which way: `was dropped`. */
export function publicationChanged(publication: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `the publication ${publication} ${what}`,
    'Changes are missing in the stream, of any table. Read every table again: ' +
      'understudy resnapshot --all',
    undefined,
    { publication },
  );
}

/** Without a key, rows cannot be matched with the rows that followers have. */
export function resnapshotWithoutKey(relation: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_UNSUPPORTED',
    `${relation} has no key: its rows cannot be matched with those of followers`,
    'Name the tables that have one: understudy resnapshot <table>… Where all must be read, ' +
      'destroy the cluster and init it again.',
    undefined,
    { relation },
  );
}

/** At init, on the leader. `quoted` is the table's name in SQL. */
export function rowsWithoutKey(node: string, table: string, quoted: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_NOT_EMPTY',
    `${table} on node ${node} holds rows and has no key to read them by`,
    `Give it a key: ALTER TABLE ${quoted} ADD COLUMN id ` +
      'bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; on every node.',
    undefined,
    { node, table },
  );
}

/** At init. */
export function followerHoldsRows(node: string, table: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_NOT_EMPTY',
    `${table} on node ${node} holds rows, and that node is to follow`,
    'Its rows come from the leader. Where they may replace what followers hold: understudy init ' +
      '--replace-rows; else empty the tables (TRUNCATE), then run init again.',
    undefined,
    { node, table },
  );
}

/** The node is built from the log: no change of the stream would delete rows of its own. */
export function newNodeHoldsRows(node: string, table: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_NOT_EMPTY',
    `${table} on node ${node} holds rows, and that node is to be built from the log`,
    'A new node gets every row from the topic: give it a database with empty tables, or empty ' +
      'these (TRUNCATE), then run this again.',
    undefined,
    { node, table },
  );
}
