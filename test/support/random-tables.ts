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
  readonly partitioned: boolean;
  readonly generated: boolean;
  readonly numbered: boolean;
}

export interface RandomTable extends TableChoice {
  readonly name: string;
  /** Key columns first; every table also has `part`, in its key, and `place`, which is unique. */
  readonly columns: readonly (RandomColumn & { readonly name: string })[];
}

/** Rows stay below the size from which Postgres stores a value elsewhere. */
const valueCharsMax = 100;

export function anyTables(matrix: Matrix, count: number): fc.Arbitrary<readonly RandomTable[]> {
  const columns = matrix.types.map(({ type, values, isKey }) => {
    return { type, isKey, values: values.filter(({ length }) => length <= valueCharsMax) };
  });
  const any = (list: readonly RandomColumn[]) => fc.constantFrom(...list);
  const choice: fc.Arbitrary<TableChoice> = fc.record({
    key: fc.array(any(columns.filter(({ isKey }) => isKey)), { minLength: 1, maxLength: 3 }),
    others: fc.array(any(columns), { maxLength: 6 }),
    identity: fc.constantFrom('primary', 'primary', 'index', 'full'),
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

export function createSql(table: RandomTable): string {
  const { name, key, columns, identity, partitioned, generated, numbered } = table;
  const keyNames = ['part', ...columns.slice(0, key.length).map((column) => column.name)].join();
  const parts = [
    'part int NOT NULL',
    ...columns.map(
      (column, i) => `${column.name} ${column.type}${i < key.length ? ' NOT NULL' : ''}`,
    ),
    `place int, UNIQUE (part, place)`,
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
  ...['move', 'delete', 'delete', 'swap', 'again', 'truncate'],
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
  }),
  { minLength: 1, maxLength: 12 },
);

export function transactionSql(
  { steps, ends }: RandomTransaction,
  tables: readonly RandomTable[],
): string {
  const statements = steps.flatMap((step) => {
    const table = tables[step.table % tables.length];
    // A step that breaks a constraint is a subtransaction that rolls back.
    return table === undefined
      ? []
      : [
          `DO $step$ BEGIN ${stepSql(step, table)};
            EXCEPTION WHEN integrity_constraint_violation THEN NULL; END $step$`,
        ];
  });
  return ['BEGIN', ...statements, ends].join(';\n');
}

function stepSql({ operation, picks }: Step, table: RandomTable): string {
  const { name, key, columns } = table;
  const [row = 0, part = 0, place = 0, ...rest] = picks;
  const literalOf = (at: number): string =>
    value(columns[at], rest[at % rest.length] ?? 0, at >= key.length);
  const isOther = (_: unknown, at: number): boolean => at >= key.length;
  const others = columns.map((column, at) => `${column.name} = ${literalOf(at)}`).filter(isOther);
  const sets = [...others, `place = ${place % 9}`].join(', ');
  const keys = columns.slice(0, key.length).map((one, at) => `${one.name} = ${literalOf(at)}`);
  const where = `WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM ${name} ORDER BY 1, 2
    OFFSET ${row} % (SELECT greatest(count(*), 1) FROM ${name}) LIMIT 1)`;
  const names = ['part', 'place', ...columns.map((column) => column.name)].join(', ');
  switch (operation) {
    case 'insert': {
      const values = [part % 4, place % 9, ...columns.map((_, at) => literalOf(at))];
      return `INSERT INTO ${name} (${names}) VALUES (${values.join(', ')})`;
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
