/**
 * Random tables over the types of the matrix, and random transactions on them. Flows in:
 * fast-check's choices; flows out: SQL that makes the tables, and SQL of one transaction after the
 * other. Values come from short lists, so that keys are met again and unique values collide.
 */
import fc from 'fast-check';
import type { Matrix } from './type-matrix.ts';

interface RandomColumn {
  readonly type: string;
  readonly values: readonly string[];
}

interface TableChoice {
  readonly key: readonly RandomColumn[];
  readonly others: readonly RandomColumn[];
  readonly identity: 'primary' | 'index' | 'full';
  /** Of the pair (part, place). */
  readonly unique: 'plain' | 'nulls not distinct' | 'deferrable';
  /** Has a `body` that is stored elsewhere, which most updates leave out. */
  readonly large: boolean;
  readonly partitioned: boolean;
  readonly generated: boolean;
  readonly numbered: boolean;
}

export interface RandomTable extends TableChoice {
  readonly name: string;
  /** Key columns first; every table also has `part`, in its key, and `place`, which is unique. */
  readonly columns: readonly (RandomColumn & { readonly name: string })[];
}

/** Rows stay below the size from which Postgres stores a value elsewhere, but for `body`. */
const valueCharsMax = 100;

/** Under it keys of other letters are equal. */
export const foldedCollation = `CREATE COLLATION public.folded
  (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`;
const folded = {
  type: 'text COLLATE public.folded',
  values: ['Anna', 'anna', 'ANNA', 'b', 'B', '', 'É', 'é', 'e'],
  isKey: true,
};

export function anyTables(matrix: Matrix, count: number): fc.Arbitrary<readonly RandomTable[]> {
  const columns = matrix.types.map(({ type, values, isKey }) => {
    return { type, isKey, values: values.filter(({ length }) => length <= valueCharsMax) };
  });
  const any = (list: readonly RandomColumn[]) =>
    fc.oneof(
      { weight: 7, arbitrary: fc.constantFrom(...list) },
      { weight: 1, arbitrary: fc.constant(folded) },
    );
  const choice: fc.Arbitrary<TableChoice> = fc.record({
    key: fc.array(any(columns.filter(({ isKey }) => isKey)), { minLength: 1, maxLength: 3 }),
    others: fc.array(any(columns), { maxLength: 6 }),
    identity: fc.constantFrom('primary', 'primary', 'index', 'full'),
    unique: fc.constantFrom('plain', 'nulls not distinct', 'deferrable'),
    large: fc.boolean(),
    partitioned: fc.boolean(),
    generated: fc.boolean(),
    numbered: fc.boolean(),
  });
  return fc.array(choice, { minLength: count, maxLength: count }).map((choices) =>
    choices.map((one, at) => ({
      ...one,
      name: `table_${at}`,
      columns: [...one.key, ...one.others].map((column, i) => ({ ...column, name: `c${i}` })),
    })),
  );
}

const uniqueSql: Readonly<Record<TableChoice['unique'], string>> = {
  plain: 'UNIQUE (part, place)',
  'nulls not distinct': 'UNIQUE NULLS NOT DISTINCT (part, place)',
  deferrable: 'UNIQUE (part, place) DEFERRABLE',
};

export function createSql(table: RandomTable): string {
  const { name, key, columns, identity, unique, large, partitioned, generated, numbered } = table;
  const keyNames = ['part', ...columns.slice(0, key.length).map((column) => column.name)].join();
  const parts = [
    'part int NOT NULL',
    ...columns.map(
      (column, i) => `${column.name} ${column.type}${i < key.length ? ' NOT NULL' : ''}`,
    ),
    `place int, ${uniqueSql[unique]}`,
    ...(large ? ['body text'] : []),
    ...(generated ? ['twice int GENERATED ALWAYS AS (place * 2) STORED'] : []),
    // An identity column cannot be in a partitioned table before version 17.
    ...(numbered && !partitioned ? ['number int GENERATED ALWAYS AS IDENTITY'] : []),
    ...(identity === 'index' ? [] : [`PRIMARY KEY (${keyNames})`]),
  ];
  const leaves = partitioned ? [`${name}_low`, `${name}_high`] : [name];
  return [
    `CREATE TABLE ${name} (${parts.join(', ')})${partitioned ? ' PARTITION BY RANGE (part)' : ''}`,
    ...(partitioned
      ? [
          `CREATE TABLE ${name}_low PARTITION OF ${name} FOR VALUES FROM (MINVALUE) TO (2)`,
          `CREATE TABLE ${name}_high PARTITION OF ${name} FOR VALUES FROM (2) TO (MAXVALUE)`,
        ]
      : []),
    ...(large ? leaves.map((leaf) => `ALTER TABLE ${leaf} ALTER body SET STORAGE EXTERNAL`) : []),
    ...(identity === 'index' ? indexIdentity(table, keyNames) : []),
    ...(identity === 'full'
      ? leaves.map((leaf) => `ALTER TABLE ${leaf} REPLICA IDENTITY FULL`)
      : []),
  ].join(';\n');
}

/** The leaves' own indexes have names that Postgres gives; the root's is found by init. */
function indexIdentity({ name, partitioned }: RandomTable, keyNames: string): string[] {
  const tables = partitioned ? [name, `${name}_low`, `${name}_high`] : [name];
  return tables.flatMap((table) => [
    `CREATE UNIQUE INDEX ${table}_key ON ${table} (${keyNames})`,
    `ALTER TABLE ${table} REPLICA IDENTITY USING INDEX ${table}_key`,
  ]);
}

const operations = [
  ...['insert', 'insert', 'insert', 'insert', 'update', 'update', 'updateAll', 'key', 'key'],
  ...['move', 'delete', 'delete', 'swap', 'rotate', 'again', 'body', 'truncate'],
  ...['savepoint', 'savepoint', 'undo'],
] as const;

interface Step {
  readonly table: number;
  readonly operation: (typeof operations)[number];
  /** Which row, and which values. */
  readonly picks: readonly number[];
}

export interface RandomTransaction {
  readonly steps: readonly Step[];
  readonly ends: 'COMMIT' | 'ROLLBACK';
  /** Rows are compared after it, and not only at the end. */
  readonly isLookedAt: boolean;
}

const anyStep: fc.Arbitrary<Step> = fc.record({
  table: fc.nat(1_000),
  operation: fc.constantFrom(...operations),
  picks: fc.array(fc.nat(1_000), { minLength: 12, maxLength: 12 }),
});

export const anyTransactions: fc.Arbitrary<readonly RandomTransaction[]> = fc.array(
  fc.record({
    steps: fc.array(anyStep, { minLength: 1, maxLength: 15 }),
    ends: fc.constantFrom('COMMIT', 'COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK'),
    isLookedAt: fc.constantFrom(false, false, true),
  }),
  { minLength: 1, maxLength: 12 },
);

export function transactionSql(
  { steps, ends }: RandomTransaction,
  tables: readonly RandomTable[],
): string {
  let savepoints = 0;
  const statements = steps.flatMap((step) => {
    const table = tables[step.table % tables.length];
    if (step.operation === 'savepoint') {
      savepoints += 1;
      return ['SAVEPOINT s'];
    }
    // Goes back to the last one of that name, and that one stays.
    if (step.operation === 'undo') return savepoints === 0 ? [] : ['ROLLBACK TO s'];
    // A step that breaks a constraint is a subtransaction that rolls back.
    return table === undefined || !isRowStep(step)
      ? []
      : [
          `DO $step$ BEGIN ${stepSql(step, table)};
            EXCEPTION WHEN integrity_constraint_violation THEN NULL; END $step$`,
        ];
  });
  return ['BEGIN', ...statements, ends].join(';\n');
}

type RowStep = Step & { readonly operation: Exclude<Step['operation'], 'savepoint' | 'undo'> };

function isRowStep(step: Step): step is RowStep {
  return step.operation !== 'savepoint' && step.operation !== 'undo';
}

function stepSql({ operation, picks }: RowStep, table: RandomTable): string {
  const { name, key, columns, large } = table;
  const [row = 0, part = 0, place = 0, ...rest] = picks;
  const literalOf = (at: number): string =>
    value(columns[at], rest[at % rest.length] ?? 0, at >= key.length);
  const isOther = (_: unknown, at: number): boolean => at >= key.length;
  const others = columns.map((column, at) => `${column.name} = ${literalOf(at)}`).filter(isOther);
  const sets = [...others, `place = ${place % 9}`].join(', ');
  const keys = columns.slice(0, key.length).map((one, at) => `${one.name} = ${literalOf(at)}`);
  const where = `WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM ${name} ORDER BY 1, 2
    OFFSET ${row} % (SELECT greatest(count(*), 1) FROM ${name}) LIMIT 1)`;
  const body = place % 4 === 0 ? 'NULL' : `repeat('${place} ', 1000)`;
  const names = [
    'part',
    'place',
    ...columns.map((column) => column.name),
    ...(large ? ['body'] : []),
  ];
  switch (operation) {
    case 'insert': {
      const fixed = [part % 4, place % 9, ...columns.map((_, at) => literalOf(at))];
      const values = [...fixed, ...(large ? [body] : [])].join(', ');
      return `INSERT INTO ${name} (${names}) VALUES (${values})`;
    }
    case 'update':
      return `UPDATE ${name} SET ${sets} ${where}`;
    case 'updateAll':
      return `UPDATE ${name} SET ${[...others, 'place = NULL'].join(', ')}`;
    case 'key':
      return `UPDATE ${name} SET ${keys.join(', ')} ${where}`;
    case 'move':
      return `UPDATE ${name} SET part = ${part % 4}, ${sets} ${where}`;
    case 'delete':
      return `DELETE FROM ${name} ${where}`;
    case 'swap':
      return `UPDATE ${name} SET place = -1 - place; UPDATE ${name} SET place = 7 + place`;
    case 'rotate':
      return `UPDATE ${name} SET place = (place + 1) % 9`;
    case 'body':
      return large ? `UPDATE ${name} SET body = ${body} ${where}` : `DELETE FROM ${name} ${where}`;
    case 'again':
      return `WITH gone AS (DELETE FROM ${name} ${where} RETURNING ${names})
        INSERT INTO ${name} (${names}) SELECT ${names} FROM gone`;
    case 'truncate':
      return `TRUNCATE ${name}`;
  }
}

/** Key columns take no null; every sixth other value is one. */
function value(column: RandomColumn | undefined, pick: number, nullable: boolean): string {
  if (column === undefined || (nullable && pick % 6 === 5)) return 'NULL';
  const text = column.values[pick % column.values.length] ?? '';
  return `'${text.replaceAll("'", "''")}'::${column.type}`;
}
