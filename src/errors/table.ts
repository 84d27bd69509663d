/**
 * Tables that cannot be replicated, have to be empty, or changed while they were read:
 * TABLE_UNSUPPORTED, TABLE_NOT_EMPTY, SCHEMA_CHANGED. A table is named `schema.name`.
 */
import { unreachable } from './bug.ts';
import { UnderstudyError } from './understudy-error.ts';

export function withoutIdentity(table: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_UNSUPPORTED',
    `${table} has no replica identity`,
    'Run: `understudy check`',
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
    `Drop that cast: \`DROP CAST (text AS ${type});\``,
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

/** After a change of the schema that every node has, or that was undone. */
const goOn =
  'make the same change on every follower (docs/operations/schema.md), then: `understudy ' +
  'resnapshot --all --new-slot`, and start the agent of the leader again';

/** `what` says in which way, in one clause: `its columns were changed`. */
export function tableChanged(table: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `the published table ${table} is not what the stream says of it: ${what}`,
    'Schema changes are not replicated in this version. Undo the change and start this agent ' +
      `again; or, where it has to stay or rows were written meanwhile, ${goOn}.`,
    undefined,
    { table },
  );
}

/** `cure`: what has to be read again, so that the stream can continue. */
export function changesNotSent(
  table: string,
  what: string,
  cure: 'table' | 'all' | 'none',
): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `rows of the published table ${table} changed and were not sent: ${what}`,
    changesNotSentHint(table, cure),
    undefined,
    { table },
  );
}

function changesNotSentHint(table: string, cure: 'table' | 'all' | 'none'): string {
  switch (cure) {
    case 'table':
      return (
        'Make the table on followers as it is here, then read its rows again: ' +
        `\`understudy resnapshot ${table} --no-wait\`, and start this agent again.`
      );
    case 'all':
      return `Undo the change; or ${goOn}.`;
    case 'none':
      return 'The stream cannot be completed: destroy the cluster and init it again.';
    default:
      return unreachable(cure);
  }
}

/** It left the publication: the stream lacks what was written to it since. */
export function tableNotPublished(table: string, publication: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `the table ${table} of the stream is no longer in the publication ${publication}`,
    `Publish it on the leader: \`ALTER PUBLICATION ${publication} ADD TABLE ONLY ${table};\` ` +
      'Then: `understudy resnapshot --all --new-slot`, and start the leader’s agent again.',
    undefined,
    { table, publication },
  );
}

/** A resnapshot takes the table as the stream knows it. */
export function resnapshotOfAlteredTable(table: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `${table} is not what the stream says of it, so its rows cannot be read: ${what}`,
    `Undo the change; or ${goOn}.`,
    undefined,
    { table },
  );
}

/** As it is now; `hint` is the remedy. */
export function tableCannotEnter(message: string, hint: string): UnderstudyError {
  return new UnderstudyError('TABLE_UNSUPPORTED', message, hint);
}

/** Two rows of the leader may be one row on a follower. */
export function keysEqualOtherwise(table: string, what: string): UnderstudyError {
  return changesNotSent(table, what, 'none');
}

/** `what` says in which way: `was dropped`. */
export function publicationChanged(publication: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `the publication ${publication} ${what}`,
    'Changes are missing in the stream, of any table. Read every table again: ' +
      '`understudy resnapshot --all`',
    undefined,
    { publication },
  );
}

/** Without a key, rows cannot be matched with the rows that followers have. */
export function resnapshotWithoutKey(relation: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_UNSUPPORTED',
    `${relation} has no key: its rows cannot be matched with those of followers`,
    'Name the tables that have one: `understudy resnapshot <table>…` Where all must be read, ' +
      'destroy the cluster and init it again.',
    undefined,
    { relation },
  );
}

/** At init, on the leader. `remedy` gives the table a key. */
export function rowsWithoutKey(node: string, table: string, remedy: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_NOT_EMPTY',
    `${table} on node ${node} holds rows and has no key to read them by`,
    `On every node, give it a key (${remedy}), or empty it.`,
    undefined,
    { node, table },
  );
}

/** At init. */
export function followerHoldsRows(node: string, table: string): UnderstudyError {
  return new UnderstudyError(
    'TABLE_NOT_EMPTY',
    `${table} on node ${node} holds rows, and that node is to follow`,
    'Its rows come from the leader. Where they may replace what followers hold: `understudy init ' +
      '--replace-rows`; else empty the tables (TRUNCATE), then run init again.',
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
