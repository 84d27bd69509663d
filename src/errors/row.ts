/**
 * What a follower's Postgres refuses, or its tables cannot hold: rows (ROW_REFUSED), tables that
 * are not as on the leader (SCHEMA_DIFFERS), statements of the leader's schema
 * (SCHEMA_BUILD_FAILED); and rows that the leader's Postgres cannot read (ROW_UNREADABLE).
 */
import type { RelationId } from '../change/change.ts';
import { UnderstudyError } from './understudy-error.ts';

/** How a superuser gets past the write guard of a node that follows. */
export const guardBypass =
  "PGOPTIONS='-c session_replication_role=replica -c default_transaction_read_only=off'";

/** A shell command that changes this node; `<url>` is that of the node in understudy.yaml. */
export function changeHere(sql: string): string {
  return `\`${guardBypass} psql <url> -c '${sql.replaceAll("'", "'\\''")}'\``;
}

const equalTable = `Make the table equal (${changeHere('<change>')}), then start the agent again.`;

interface RefusedRow {
  readonly sqlState: string;
  /** That Postgres names, or that rows were written to; null where neither is known. */
  readonly table: string | null;
  /** Null where Postgres named none. */
  readonly constraint: string | null;
  /** The function in which the error occurred, as Postgres describes it; null outside of one. */
  readonly inFunction: string | null;
}

export function rowRefused(facts: RefusedRow, cause: unknown): UnderstudyError {
  const { sqlState, table, constraint } = facts;
  const where = [
    `SQLSTATE ${sqlState}`,
    ...(table === null ? [] : [`table ${table}`]),
    ...(constraint === null ? [] : [`constraint ${constraint}`]),
  ];
  return new UnderstudyError(
    'ROW_REFUSED',
    `this node’s Postgres refuses a row of the stream (${where.join(', ')})`,
    refusedHint(facts),
    cause,
    { ...facts },
  );
}

/** Functions, tables, types and schemas that a name without a schema does not find. */
const undefinedNames: readonly string[] = ['42883', '42P01', '42704', '3F000'];
const checkViolation = '23514';
const insufficientPrivilege = '42501';

function refusedHint({ sqlState, table, constraint, inFunction }: RefusedRow): string {
  const startAgain = 'then start the agent again.';
  if (sqlState === insufficientPrivilege) {
    return (
      'Rows are written as the owner of their table. Give it what the table needs (USAGE on the ' +
      'schemas of tables and types, EXECUTE on functions; the Postgres log has the statement): ' +
      `${changeHere('GRANT USAGE ON SCHEMA <schema> TO <owner>')}, ${startAgain}`
    );
  }
  if (inFunction !== null && undefinedNames.includes(sqlState)) {
    const set = `ALTER FUNCTION ${inFunction} SET search_path = <schemas>`;
    return (
      `A check, a generated column or an index of ${table ?? 'the table'} calls ${inFunction}, ` +
      'which finds nothing without a search_path. Set it to the schemas that the function uses: ' +
      `${changeHere(set)}; the same on the leader (\`${set}\`); ${startAgain}`
    );
  }
  if (sqlState === checkViolation && /^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$/.test(table ?? '')) {
    const quoted = `"${(constraint ?? '').replaceAll('"', '""')}"`;
    return (
      'Where the leader does not have this constraint, drop it: ' +
      `${changeHere(`ALTER TABLE ${table} DROP CONSTRAINT ${quoted}`)}, else make the table ` +
      `equal; ${startAgain} The Postgres log has the row.`
    );
  }
  return (
    `Make the table as it is on the leader (${changeHere('<change>')}; the Postgres log has the ` +
    `row), ${startAgain}`
  );
}

/** Read alone, with this error: a large value whose parts are lost, a value of a broken type. */
export function rowUnreadable(
  table: string,
  key: readonly string[],
  cause: unknown,
): UnderstudyError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new UnderstudyError(
    'ROW_UNREADABLE',
    `the row (${key.join(', ')}) of ${table} cannot be read: ${reason}`,
    'Find out what damaged it (the Postgres log, the disks). Then, on the leader, UPDATE the ' +
      'columns that cannot be read to other values, or DELETE the row; everything else goes on.',
    cause,
    { table, key: key.join(', ') },
  );
}

/** The stream has rows of a relation, and no table here matches it. */
export function tableNotMatched(relation: RelationId): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `the stream writes to ${relation}, which this node does not have as it is on the leader`,
    `${equalTable} Where the leader’s change was made here before this node had applied all ` +
      'rows of before: undo it here until the agent asks for it, or build this node again from ' +
      'the log: `understudy rebuild <node>`',
    undefined,
    { relation },
  );
}

/** A DELETE FROM ONLY of a partitioned table would delete no row. */
export function tablePartitionedHere(relation: RelationId): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `the stream has rows of ${relation} itself, which is partitioned on this node`,
    `Make it a table without partitions (${changeHere('<change>')}), then start the agent again.`,
    undefined,
    { relation },
  );
}

/** `difference` completes the sentence. */
export function tableUnlikeLeader(table: string, difference: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `${table} is not as on the leader: ${difference}`,
    equalTable,
    undefined,
    { table },
  );
}

/** A relation that is new here: `alteration` is SQL that would do, null where none is known. */
export function tableNotAltered(
  table: string,
  difference: string,
  alteration: string | null,
): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_BEHIND',
    `the leader has changed ${table}, and this node has not: ${difference}`,
    `Make the change of the leader here too (${changeHere(alteration ?? '<change>')}): the agent ` +
      'then continues by itself.',
    undefined,
    { table },
  );
}

/** The stream goes on with a table that this node never had. */
export function tableNotCreated(table: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_BEHIND',
    `this node has no table ${table}, which the leader has created or renamed`,
    `Make the change of the leader here too (${changeHere('<change>')}): the agent then ` +
      'continues ' +
      'by itself.',
    undefined,
    { table },
  );
}

/** The topic has relations that its schema does not name yet. */
export function schemaNotRenewed(relation: RelationId): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_BEHIND',
    `the schema in the topic does not have ${relation} yet, which the leader publishes`,
    'Wait: the leader’s agent writes the schema again within minutes, and its log says why if not.',
    undefined,
    { relation },
  );
}

/** Missing, or re-created under the same name: then it has lost its rows. */
export function tableMissingHere(table: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `this node has no table ${table}, or it was dropped and re-created here`,
    `Create the table here as it is on the leader (${changeHere('<change>')}), then start the ` +
      'agent again. If it held rows of the stream, build this node again from the log: ' +
      '`understudy rebuild <node>`',
    undefined,
    { table },
  );
}

/** Columns are named by their ids. */
export function rowColumnsDiffer(
  relation: RelationId,
  ofRow: readonly string[],
  ofTable: readonly string[],
): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `a row of ${relation} has the columns ${ofRow.join(', ')}, the table here has ` +
      ofTable.join(', '),
    'Schema changes are not replicated in this version: make the table as it is on the leader, ' +
      'then build this node again from the log: `understudy rebuild <node>`',
    undefined,
    { relation, ofRow: ofRow.join(), ofTable: ofTable.join() },
  );
}

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
    'Give the node a database without any tables, or with all of them as they are on the leader, ' +
      'empty; then run this again.',
    undefined,
    { table },
  );
}

const newDatabase = (node: string): string => {
  return `Give node ${node} a new empty database, then: \`understudy run ${node} --replace\``;
};

/** The rest of the schema cannot be built on tables that are not all there. */
export function tablesUnfinished(node: string, done: number, total: number): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_BUILD_FAILED',
    `the tables of node ${node} were not all created: ${done} of ${total} statements are done`,
    newDatabase(node),
    undefined,
    { node, done, total },
  );
}

export function otherSchemaBegun(node: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_BUILD_FAILED',
    `node ${node} has begun to build another schema than this one`,
    newDatabase(node),
    undefined,
    { node },
  );
}

/** Postgres refused one statement; the session and the other statements are not affected. */
export class StatementRefused extends UnderstudyError {
  /** What Postgres says. */
  readonly reason: string;

  constructor(
    { code, message, hint }: Pick<UnderstudyError, 'code' | 'message' | 'hint'>,
    facts: { readonly node: string; readonly statement: string },
    reason: string,
    cause: unknown,
  ) {
    super(code, message, hint, cause, { ...facts, reason });
    this.reason = reason;
  }
}

/** `statement` is described without its details. */
export function statementLockTimeout(
  statement: string,
  node: string,
  cause: unknown,
): StatementRefused {
  const reason = 'waited too long for a lock';
  const message = `${statement} ${reason} on node ${node}`;
  const hint = 'End the transactions that hold it: see pg_stat_activity and pg_locks there.';
  return new StatementRefused(
    { code: 'TIMED_OUT', message, hint },
    { node, statement },
    reason,
    cause,
  );
}

interface RefusedStatement {
  /** Described without its details. */
  readonly statement: string;
  readonly node: string;
  readonly sqlState: string;
  readonly reason: string;
  /** The extension that the statement creates; null for any other statement. */
  readonly extension: string | null;
}

export function statementRefused(refused: RefusedStatement, cause: unknown): StatementRefused {
  const { statement, node, reason } = refused;
  const message = `node ${node} refuses ${statement}: ${reason}`;
  const hint = buildHint(refused);
  const code = 'SCHEMA_BUILD_FAILED';
  return new StatementRefused({ code, message, hint }, { node, statement }, reason, cause);
}

const undefinedObject = '42704';
const duplicates: readonly string[] = ['42710', '42P07', '42P06', '42723', '42P04'];

function buildHint({ extension, sqlState, node }: RefusedStatement): string {
  if (extension !== null && sqlState !== insufficientPrivilege) {
    return (
      `Install the extension ${extension} on the server of node ${node} (those of PostgreSQL are ` +
      `in the package postgresql-contrib, others in their own, such as postgresql-18-${extension}` +
      '), then retry.'
    );
  }
  if (sqlState === insufficientPrivilege) {
    return `Give the role of the URL of node ${node} that right, or let a superuser build there.`;
  }
  if (sqlState === undefinedObject) {
    return `Create what is missing on the server of node ${node}, then retry.`;
  }
  if (duplicates.includes(sqlState)) {
    return `Drop it on node ${node}, or re-create that database: it has to be empty for this.`;
  }
  return `Remove the cause on node ${node}, then retry: what is built stays.`;
}
