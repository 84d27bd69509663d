/**
 * Reads the sequences of a database: what each is, which columns take their values from it, and how
 * far it is. Catalog facts are read without a lock; a value needs one that a session which alters
 * the sequence holds until its commit: such a sequence is left out, and never waited for.
 */
import { type Client, DatabaseError } from 'pg';
import { inTransaction, qualifiedName } from './postgres-session.ts';
import { userTablesCondition } from './read-catalog.ts';

/** A column whose default uses the sequence, or that owns it. */
export interface SequenceColumn {
  readonly schema: string;
  readonly table: string;
  readonly column: string;
  /** The largest value of its type; null where it is no integer. */
  readonly max: bigint | null;
  /** Whether the table's rows are in its partitions, which need no column of their own here. */
  readonly isPartitioned: boolean;
}

export interface SequenceFacts {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
  readonly increment: bigint;
  readonly cache: bigint;
  readonly min: bigint;
  readonly max: bigint;
  readonly cycles: boolean;
  /** By the current role. */
  readonly mayRead: boolean;
  readonly maySet: boolean;
  readonly columns: readonly SequenceColumn[];
}

/** Of Postgres, of ours and of extensions: not the application's. */
const userSequencesCondition = `
  s.relkind = 'S' AND s.relpersistence <> 't'
  AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'understudy')
  AND NOT EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype = 'e')`;

/**
 * With the schema's own, without which no session can name it. Conditions are evaluated in any
 * order, and the privileges of what is no sequence are an error.
 */
const mayReadSequence = `(
  has_schema_privilege(n.oid, 'USAGE')
  AND CASE s.relkind WHEN 'S' THEN has_sequence_privilege(s.oid, 'SELECT') END)`;

/** For a statement of the preflight: those that the role may not read, or not set. */
export const closedSequences = `
  pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
  WHERE ${userSequencesCondition} AND NOT coalesce((${mayReadSequence}
    AND CASE s.relkind WHEN 'S' THEN has_sequence_privilege(s.oid, 'UPDATE') END), false)`;

/** Of the sequence s: a domain over an integer is an integer too. */
const columnsQuery = `(
  SELECT json_agg(json_build_object(
    'schema', n.nspname, 'table', c.relname, 'column', a.attname,
    'isPartitioned', c.relkind = 'p',
    'type', (
      WITH RECURSIVE base (oid, typtype, typbasetype) AS (
        SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typtype, t.typbasetype
        FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd')
      SELECT b.oid::bigint FROM base b WHERE b.typtype <> 'd'))
    ORDER BY n.nspname, c.relname, a.attnum)
  FROM (
    SELECT d.refobjid, d.refobjsubid::int FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid
      AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    UNION
    SELECT f.adrelid, f.adnum::int
    FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid
      AND d.classid = 'pg_attrdef'::regclass) AS used (table_oid, attnum)
  JOIN pg_class c ON c.oid = used.table_oid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = used.table_oid AND a.attnum = used.attnum
  WHERE ${userTablesCondition})`;

const sequencesQuery = `
  SELECT json_build_object(
    'oid', s.oid::bigint, 'schema', n.nspname, 'name', s.relname,
    'owner', pg_get_userbyid(s.relowner),
    'increment', q.seqincrement::text, 'cache', q.seqcache::text,
    'min', q.seqmin::text, 'max', q.seqmax::text, 'cycles', q.seqcycle,
    'mayRead', ${mayReadSequence}, 'maySet', has_sequence_privilege(s.oid, 'UPDATE'),
    'columns', coalesce(${columnsQuery}, '[]'))
  FROM pg_class s
  JOIN pg_namespace n ON n.oid = s.relnamespace
  JOIN pg_sequence q ON q.seqrelid = s.oid
  WHERE ${userSequencesCondition}
  ORDER BY n.nspname, s.relname`;

interface ColumnRow extends Omit<SequenceColumn, 'max'> {
  readonly type: number;
}

interface SequenceRow
  extends Omit<SequenceFacts, 'increment' | 'cache' | 'min' | 'max' | 'columns'>,
    Readonly<Record<'increment' | 'cache' | 'min' | 'max', string>> {
  readonly columns: readonly ColumnRow[];
}

/** By OID: int8, int2, int4. */
const integerMax: Readonly<Record<number, bigint>> = {
  20: 2n ** 63n - 1n,
  21: 32_767n,
  23: 2_147_483_647n,
};

/** All sequences of the application, with those that no column uses. */
export async function readSequences(client: Client): Promise<SequenceFacts[]> {
  const { rows } = await client.query<[string]>({ text: sequencesQuery, rowMode: 'array' });
  return rows.map(([json]) => {
    const row = JSON.parse(json) as SequenceRow;
    const columns = row.columns.map(({ type, ...column }) => {
      return { ...column, max: integerMax[type] ?? null };
    });
    return {
      ...row,
      increment: BigInt(row.increment),
      cache: BigInt(row.cache),
      min: BigInt(row.min),
      max: BigInt(row.max),
      columns,
    };
  });
}

/** A sequence as a session may refer to it. */
export interface SequenceValue {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** What nextval or setval gave last; null where nextval gives the start value next. */
  readonly lastValue: bigint | null;
}

const lockWaitMs = 500;

/**
 * The values of all sequences that the role may read. One that another session holds locked is left
 * out, as is one that is dropped meanwhile.
 */
export async function readSequenceValues(client: Client): Promise<SequenceValue[]> {
  try {
    return await readValues(client, '');
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    return readValues(client, notLockedCondition);
  }
}

/** Modes that conflict with the lock of pg_sequence_last_value. */
const notLockedCondition = `
  AND NOT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.relation = s.oid
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.mode IN
      ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))`;

async function readValues(client: Client, condition: string): Promise<SequenceValue[]> {
  return inTransaction(client, async () => {
    await client.query(`SET LOCAL lock_timeout = ${lockWaitMs}`);
    const { rows } = await client.query<[string, string, string, string | null]>({
      text: `
        WITH s AS MATERIALIZED (
          SELECT s.oid, n.nspname, s.relname
          FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
          WHERE ${userSequencesCondition} AND ${mayReadSequence} ${condition})
        SELECT s.oid::bigint, s.nspname, s.relname, pg_sequence_last_value(s.oid) FROM s`,
      rowMode: 'array',
    });
    return rows.map(([oid, schema, name, lastValue]) => {
      return {
        oid: Number(oid),
        schema,
        name,
        lastValue: lastValue === null ? null : BigInt(lastValue),
      };
    });
  });
}

/** A statement that reads this many sequences stays far below the planner's limits. */
const sequencesPerStatement = 200;

/**
 * What nextval gives next of sequences that have given none since they were created or restarted,
 * by OID. It is not always the start value: ALTER SEQUENCE … RESTART WITH.
 */
export async function readFirstValues(
  client: Client,
  sequences: readonly Pick<SequenceValue, 'oid' | 'schema' | 'name'>[],
): Promise<ReadonlyMap<number, bigint>> {
  const found = new Map<number, bigint>();
  for (let first = 0; first < sequences.length; first += sequencesPerStatement) {
    const part = sequences.slice(first, first + sequencesPerStatement);
    const selects = part.map(({ oid, schema, name }) => {
      const from = qualifiedName(schema, name);
      return `SELECT ${Number(oid)}, last_value FROM ${from} WHERE NOT is_called`;
    });
    const { rows } = await inTransaction(client, async () => {
      await client.query(`SET LOCAL lock_timeout = ${lockWaitMs}`);
      return client.query<[string, string]>({
        text: selects.join(' UNION ALL '),
        rowMode: 'array',
      });
    });
    for (const [oid, value] of rows) found.set(Number(oid), BigInt(value));
  }
  return found;
}
