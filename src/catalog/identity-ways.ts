/**
 * The ways in which a table gets a replica identity that the stream can use, the best first: an
 * index that it has, then columns that identify its rows, then a column that is added. Takes the
 * table, what the catalog says of the tables above and below it, and what was found in its rows;
 * gives statements that run as they are. Which index can be an identity is the rule of PostgreSQL:
 * unique, valid, not partial, not deferrable, over columns that are NOT NULL. Pure.
 */
import { escapeIdentifier } from 'pg';
import { alterTable, type TableShape, type UniqueIndex } from './table.ts';

/** What the catalog says of the tables above and below one. */
export interface TableTree {
  /** Of a partitioned table, with those of its partitions: a unique constraint has them all. */
  readonly partitionColumns: readonly string[];
  /** Whether one of these keys has an expression: then no unique constraint is possible. */
  readonly hasExpression: boolean;
  /** Whether a row holds NULL in them, as far as was looked. */
  readonly holdsNullThere: boolean;
  /** The tables that it is a partition of or inherits from. */
  readonly parents: readonly number[];
  readonly hasChildren: boolean;
  readonly columnsBelow: readonly string[];
  /** Whether a partition of it has a primary key of its own. */
  readonly hasPrimaryBelow: boolean;
  /** CREATE TABLE … OF: no column can be added. */
  readonly isTyped: boolean;
}

type Nulls = 'none' | 'some' | 'unknown';

export interface KeyFacts {
  readonly tree: TableTree;
  /** Whether the columns of an index hold NULL, by its name; what is absent is unknown. */
  readonly nulls: ReadonlyMap<string, Nulls>;
  /** Sets of columns that no two rows share and that hold no NULL, the best first. */
  readonly uniqueColumns: readonly (readonly string[])[];
}

export const aloneTable: KeyFacts = {
  tree: {
    ...{ partitionColumns: [], hasExpression: false, holdsNullThere: false },
    ...{ parents: [], hasChildren: false },
    ...{ columnsBelow: [], hasPrimaryBelow: false, isTyped: false },
  },
  nulls: new Map(),
  uniqueColumns: [],
};

export interface IdentityWay {
  readonly kind: 'restore' | 'index' | 'not null' | 'unique rows' | 'add column' | 'above';
  /** The columns that it makes the identity. */
  readonly identity: readonly string[];
  readonly statements: readonly string[];
  /** What the statements do to the table, and what they need. */
  readonly note: string;
  /** Whether a primary key is added, which every partition gets too. */
  readonly addsPrimary: boolean;
}

export function identityWays(table: TableShape, facts: KeyFacts = aloneTable): IdentityWay[] {
  return [
    ...restoredDefault(table),
    ...indexWays(table, facts),
    ...facts.uniqueColumns.map((columns) => uniqueRowsWay(table, facts, columns)),
    ...addColumnWay(table, facts),
  ];
}

/** Those of a partition or a child once the table above it gets its identity in `above`. */
export function waysBelow(
  table: TableShape,
  facts: KeyFacts,
  above: IdentityWay | undefined,
): IdentityWay[] {
  const own = identityWays(table, facts);
  if (above === undefined) return own;
  const kept = own.filter(({ kind }) => kind === 'restore' || kind === 'index');
  if (table.isPartition && above.addsPrimary) {
    const reset = resetOf(table) === '' ? [] : [alter(table, 'REPLICA IDENTITY DEFAULT')];
    const note = 'the primary key that the partitioned table gets';
    const statements = [...above.statements, ...reset];
    return [{ ...above, kind: 'above', statements, note }];
  }
  if (above.kind !== 'add column') return own;
  const column = above.identity.at(-1) ?? '';
  if (!table.isPartition) {
    const added = keyOver(table, facts, [column], 'the column is inherited');
    const statements = [...above.statements, ...added.statements];
    return [...own.filter(({ kind }) => kind !== 'add column'), { ...added, statements }];
  }
  const columns = withPartitionColumns(facts, [column]);
  const index = indexName(table, column);
  const create =
    `CREATE UNIQUE INDEX ${escapeIdentifier(index)} ON ` +
    `${tableName(table)} (${listOf(columns)});`;
  const use = alter(table, `REPLICA IDENTITY USING INDEX ${escapeIdentifier(index)}`);
  const note = 'over the column that the partitioned table gets';
  const statements = [...above.statements, create, use];
  return [...kept, { ...above, kind: 'above', identity: columns, statements, note }];
}

/** Unique indexes that can be the identity once their columns are NOT NULL. */
export function candidatesOf(table: TableShape): UniqueIndex[] {
  const plain = new Set(
    table.columns.filter((column) => column.generated === 'no').map((column) => column.attnum),
  );
  return table.uniqueIndexes
    .filter((index) => index.immediate && index.valid && !index.partial)
    .filter((index) => index.attnums.every((attnum) => plain.has(attnum)))
    .sort((a, b) => nullableColumns(table, a).length - nullableColumns(table, b).length);
}

export function nullableColumns(table: TableShape, index: UniqueIndex): string[] {
  const nullable = new Set(
    table.columns.filter((column) => !column.notNull).map(({ attnum }) => attnum),
  );
  return namesOf(
    table,
    index.attnums.filter((attnum) => nullable.has(attnum)),
  );
}

/** A primary key that is not used for it. */
function restoredDefault(table: TableShape): IdentityWay[] {
  const primary = candidatesOf(table).find((index) => index.primary);
  if (primary === undefined) return [];
  return [
    {
      ...{ kind: 'restore', identity: namesOf(table, primary.attnums), addsPrimary: false },
      statements: [alter(table, 'REPLICA IDENTITY DEFAULT')],
      note: 'its primary key',
    },
  ];
}

function indexWays(table: TableShape, facts: KeyFacts): IdentityWay[] {
  return candidatesOf(table)
    .filter((index) => !index.primary && facts.nulls.get(index.name) !== 'some')
    .map((index) => {
      const identity = namesOf(table, index.attnums);
      const nullable = nullableColumns(table, index);
      const kind = nullable.length === 0 ? 'index' : 'not null';
      // A partition that is made later has an index of its own, and no REPLICA IDENTITY.
      if (table.kind === 'partitioned' && mayAddPrimary(table, facts)) {
        const added = keyOver(table, facts, identity, `the unique index ${index.name}`);
        return { ...added, kind, note: `${added.note}; ${scanNote(nullable, facts, index)}` };
      }
      const notNull = nullable.map((column) => `ALTER COLUMN ${quoted(column)} SET NOT NULL, `);
      const use = `REPLICA IDENTITY USING INDEX ${quoted(index.name)}`;
      const later = table.kind === 'partitioned' ? `; ${laterPartitions}` : '';
      return {
        ...{ kind, identity, addsPrimary: false },
        statements: [alter(table, notNull.join('') + use)],
        note: `the unique index ${index.name}; ${scanNote(nullable, facts, index)}${later}`,
      };
    });
}

const laterPartitions = 'partitions that are made later need a REPLICA IDENTITY of their own';

function scanNote(nullable: readonly string[], facts: KeyFacts, index: UniqueIndex): string {
  if (nullable.length === 0) return 'only the catalog changes';
  const found =
    facts.nulls.get(index.name) === 'none'
      ? 'no row holds a NULL there now'
      : 'whether a row holds a NULL there is not known: then the statement changes nothing';
  return `SET NOT NULL reads the table under ACCESS EXCLUSIVE; ${found}`;
}

function uniqueRowsWay(
  table: TableShape,
  facts: KeyFacts,
  columns: readonly string[],
): IdentityWay {
  const found = `no two rows share (${columns.join(', ')}) now, and from then on none may`;
  return { ...keyOver(table, facts, columns, found), kind: 'unique rows' };
}

/** A primary key, or beside another one a unique index, over columns that the table has. */
function keyOver(
  table: TableShape,
  facts: KeyFacts,
  columns: readonly string[],
  why: string,
): IdentityWay {
  const identity = withPartitionColumns(facts, columns);
  const common = { kind: 'add column', identity, note: `${why}; ${buildNote}` } as const;
  if (mayAddPrimary(table, facts)) {
    const add = `ADD PRIMARY KEY (${listOf(identity)})${resetOf(table)}`;
    return { ...common, statements: [alter(table, add)], addsPrimary: true };
  }
  const statements = uniqueBeside(table, identity, []);
  return { ...common, statements, addsPrimary: false };
}

const buildNote = 'builds an index under ACCESS EXCLUSIVE';

/** The last of the ways: works for every table that may get another column. */
function addColumnWay(table: TableShape, facts: KeyFacts): IdentityWay[] {
  const { tree } = facts;
  if (table.isPartition || tree.isTyped || tree.hasExpression || tree.holdsNullThere) return [];
  const column = freeColumnName(table, tree);
  const identity = withPartitionColumns(facts, [column]);
  // An identity column is not inherited before version 17, and never by children.
  const isShared = table.kind === 'partitioned' || tree.hasChildren;
  const type = isShared ? 'bigserial' : 'bigint GENERATED BY DEFAULT AS IDENTITY';
  const add = `ADD COLUMN ${quoted(column)} ${type}`;
  const common = { kind: 'add column', identity } as const;
  const note = 'a new column, which SELECT * shows; rewrites the table under ACCESS EXCLUSIVE';
  if (!mayAddPrimary(table, facts)) {
    const statements = uniqueBeside(table, identity, [add]);
    return [{ ...common, note, statements, addsPrimary: false }];
  }
  const key = isShared ? `, ADD PRIMARY KEY (${listOf(identity)})` : ' PRIMARY KEY';
  const statements = [alter(table, add + key + resetOf(table))];
  return [{ ...common, note, statements, addsPrimary: true }];
}

/** The index exists only after the first statement. */
function uniqueBeside(
  table: TableShape,
  columns: readonly string[],
  before: readonly string[],
): string[] {
  const name = quoted(indexName(table, columns.at(-1) ?? ''));
  const nullable = table.columns.filter((column) => {
    return !column.notNull && columns.includes(column.name);
  });
  const notNull = nullable.map((column) => `ALTER COLUMN ${quoted(column.name)} SET NOT NULL`);
  const add = `ADD CONSTRAINT ${name} UNIQUE (${listOf(columns)})`;
  return [
    alter(table, [...before, ...notNull, add].join(', ')),
    alter(table, `REPLICA IDENTITY USING INDEX ${name}`),
  ];
}

/** A unique constraint of a partitioned table has to include its partition key. */
function withPartitionColumns({ tree }: KeyFacts, columns: readonly string[]): string[] {
  const missing = tree.partitionColumns.filter((name) => !columns.includes(name));
  return [...missing, ...columns];
}

function mayAddPrimary(table: TableShape, { tree }: KeyFacts): boolean {
  return !tree.hasPrimaryBelow && !table.uniqueIndexes.some((index) => index.primary);
}

/** With FULL the primary key is the identity too. */
function resetOf({ replicaIdentity }: TableShape): string {
  const isKept = replicaIdentity === 'default' || replicaIdentity === 'full';
  return isKept ? '' : ', REPLICA IDENTITY DEFAULT';
}

function freeColumnName(table: TableShape, tree: TableTree): string {
  const used = new Set([...table.columns.map((column) => column.name), ...tree.columnsBelow]);
  if (!used.has('id')) return 'id';
  let number = 2;
  while (used.has(`id_${number}`)) number += 1;
  return `id_${number}`;
}

/** Postgres cuts longer names. */
const nameBytesMax = 63;

function indexName(table: TableShape, column: string): string {
  const end = `_${column}_key`;
  let start = table.name;
  while (start.length > 0 && Buffer.byteLength(start + end) > nameBytesMax) {
    start = [...start].slice(0, -1).join('');
  }
  return start + end;
}

function namesOf(table: TableShape, attnums: readonly number[]): string[] {
  const names = new Map(table.columns.map(({ attnum, name }) => [attnum, name]));
  return attnums.flatMap((attnum) => names.get(attnum) ?? []);
}

function listOf(columns: readonly string[]): string {
  return columns.map(quoted).join(', ');
}

function quoted(name: string): string {
  return escapeIdentifier(name);
}

function tableName({ schema, name }: TableShape): string {
  return `${quoted(schema)}.${quoted(name)}`;
}

function alter(table: TableShape, action: string): string {
  return `${alterTable(table)} ${action};`;
}
