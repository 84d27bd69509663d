/**
 * A table as read-catalog.ts reads it, its replica identity, and the problems that prevent its
 * replication, each with the exact SQL that solves it. Pure.
 */
import { escapeIdentifier } from 'pg';

export interface TableColumn {
  readonly attnum: number;
  readonly name: string;
  /** As format_type prints it under an empty search_path, with its modifier. */
  readonly type: string;
  readonly typeOid: number;
  /** The modifier within `type`, as the catalog has it; -1 for none. */
  readonly typeModifier: number;
  readonly notNull: boolean;
  readonly generated: 'no' | 'stored' | 'virtual';
  readonly identity: 'no' | 'always' | 'by default';
}

export interface UniqueIndex {
  readonly name: string;
  /** Key columns in index order, without INCLUDE columns; 0 for an expression. */
  readonly attnums: readonly number[];
  readonly primary: boolean;
  /** False for a deferrable constraint. */
  readonly immediate: boolean;
  readonly valid: boolean;
  readonly partial: boolean;
  /** Chosen by REPLICA IDENTITY USING INDEX. */
  readonly chosen: boolean;
  /**
   * How each key column compares: the family of its operators and, where different texts may be
   * equal, its collation. The same on all servers that take the same values for equal.
   */
  readonly equality: readonly string[];
}

type ReplicaIdentity = 'default' | 'index' | 'full' | 'nothing';

export interface TableShape {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: 'ordinary' | 'partitioned';
  readonly persistence: 'permanent' | 'unlogged' | 'temporary';
  readonly isPartition: boolean;
  readonly parentOid: number | null;
  /** In attnum order, without dropped columns. */
  readonly columns: readonly TableColumn[];
  readonly uniqueIndexes: readonly UniqueIndex[];
  readonly replicaIdentity: ReplicaIdentity;
  /** In index order; with REPLICA IDENTITY FULL the primary key's. */
  readonly identityAttnums: readonly number[] | null;
}

/**
 * The index of the replica identity; with FULL, that of the primary key. The same as
 * pg_get_replica_identity_index, which would wait for locks and fail on a dropped table.
 */
export function identityIndexOf(
  replicaIdentity: ReplicaIdentity,
  indexes: readonly UniqueIndex[],
): UniqueIndex | null {
  if (replicaIdentity === 'nothing') return null;
  const usable = indexes.filter((index) => index.immediate && index.valid && !index.partial);
  const wanted = usable.find((index) =>
    replicaIdentity === 'index' ? index.chosen : index.primary,
  );
  return wanted ?? null;
}

/** How a table without an identity is treated: refused, or replicated as insert-only. */
export type KeylessTables = 'refuse' | 'append';

/** Its rows can be inserted and truncated. Rows without any column cannot be distinguished. */
export function isAppendOnly(table: TableShape, keyless: KeylessTables): boolean {
  const hasValues = table.columns.some(({ generated }) => generated === 'no');
  return keyless === 'append' && table.identityAttnums === null && hasValues;
}

type TableProblemCode =
  | 'NO_IDENTITY'
  | 'IDENTITY_NOTHING'
  | 'FULL_WITHOUT_PRIMARY_KEY'
  | 'DEFERRABLE_IDENTITY'
  | 'GENERATED_IDENTITY';

interface TableProblem {
  readonly code: TableProblemCode;
  readonly message: string;
  readonly hint: string;
}

export function displayName(table: Pick<TableShape, 'schema' | 'name'>): string {
  return `${table.schema}.${table.name}`;
}

/** Why the table cannot be replicated. Unlogged and temporary tables never are: not a problem. */
export function problemsOf(table: TableShape, keyless: KeylessTables = 'refuse'): TableProblem[] {
  if (table.persistence !== 'permanent' || isAppendOnly(table, keyless)) return [];
  if (table.identityAttnums === null) return [missingIdentity(table)];
  const identity = new Set(table.identityAttnums);
  return table.columns
    .filter((column) => identity.has(column.attnum) && column.generated !== 'no')
    .map((column) => ({
      code: 'GENERATED_IDENTITY',
      message: `${displayName(table)} has the generated column ${column.name} in its identity`,
      hint: alter(table, `ALTER COLUMN ${escapeIdentifier(column.name)} DROP EXPRESSION`),
    }));
}

function missingIdentity(table: TableShape): TableProblem {
  const name = displayName(table);
  const hint = identityHint(table);
  const wanted = table.uniqueIndexes.find((index) =>
    table.replicaIdentity === 'index' ? index.chosen : index.primary,
  );
  if (table.replicaIdentity === 'nothing') {
    const message = `${name} has REPLICA IDENTITY NOTHING: its updates and deletes identify no row`;
    return { code: 'IDENTITY_NOTHING', message, hint };
  }
  if (wanted !== undefined && !wanted.immediate) {
    const message = `the identity of ${name} is deferrable (${wanted.name}) and cannot be used`;
    return { code: 'DEFERRABLE_IDENTITY', message, hint };
  }
  if (table.replicaIdentity === 'full') {
    const message = `${name} has REPLICA IDENTITY FULL and no primary key that identifies its rows`;
    return { code: 'FULL_WITHOUT_PRIMARY_KEY', message, hint };
  }
  const message = `${name} has no replica identity: published, its updates and deletes would fail`;
  return { code: 'NO_IDENTITY', message, hint };
}

/** SQL that gives the table an identity, from its present columns and indexes where possible. */
function identityHint(table: TableShape): string {
  const reset = table.replicaIdentity === 'default' ? '' : ', REPLICA IDENTITY DEFAULT';
  const primary = table.uniqueIndexes.find((index) => index.primary);
  if (primary?.immediate) return alter(table, 'REPLICA IDENTITY DEFAULT');
  const best = bestCandidate(table);
  if (best !== undefined) {
    const setNotNull = nullableColumns(table, best).map(
      (column) => `ALTER COLUMN ${escapeIdentifier(column.name)} SET NOT NULL, `,
    );
    const use = `REPLICA IDENTITY USING INDEX ${escapeIdentifier(best.name)}`;
    return alter(table, setNotNull.join('') + use);
  }
  if (primary !== undefined) return alter(table, notDeferrable(table, primary) + reset);
  const id = table.columns.find((column) => column.name === 'id');
  const column = escapeIdentifier(freeColumnName(table));
  const add =
    id?.generated === 'no'
      ? 'ADD PRIMARY KEY ("id")'
      : `ADD COLUMN ${column} bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY`;
  return alter(table, add + reset);
}

/** The unique index that can be the identity and has the fewest nullable columns. */
function bestCandidate(table: TableShape): UniqueIndex | undefined {
  const plain = new Set(
    table.columns.filter((column) => column.generated === 'no').map((column) => column.attnum),
  );
  return table.uniqueIndexes
    .filter((index) => index.immediate && index.valid && !index.partial)
    .filter((index) => index.attnums.every((attnum) => plain.has(attnum)))
    .sort((a, b) => nullableColumns(table, a).length - nullableColumns(table, b).length)[0];
}

function nullableColumns(table: TableShape, index: UniqueIndex): TableColumn[] {
  return table.columns.filter((column) => !column.notNull && index.attnums.includes(column.attnum));
}

function freeColumnName(table: TableShape): string {
  const used = new Set(table.columns.map((column) => column.name));
  if (!used.has('id')) return 'id';
  let number = 2;
  while (used.has(`id_${number}`)) number += 1;
  return `id_${number}`;
}

function notDeferrable(table: TableShape, index: UniqueIndex): string {
  const constraint = escapeIdentifier(index.name);
  const names = new Map(table.columns.map((column) => [column.attnum, column.name]));
  const columns = index.attnums.map((attnum) => escapeIdentifier(names.get(attnum) ?? ''));
  const key = `PRIMARY KEY (${columns.join(', ')})`;
  return `DROP CONSTRAINT ${constraint}, ADD CONSTRAINT ${constraint} ${key}`;
}

function alter(table: TableShape, action: string): string {
  return `${alterTable(table)} ${action};`;
}

/** The beginning of a statement that changes the table. */
export function alterTable({ schema, name }: Pick<TableShape, 'schema' | 'name'>): string {
  return `ALTER TABLE ${escapeIdentifier(schema)}.${escapeIdentifier(name)}`;
}

/** The topmost partitioned table; the table itself where it is no partition. */
export function rootOf(table: TableShape, byOid: ReadonlyMap<number, TableShape>): TableShape {
  const parent = table.isPartition && byOid.get(table.parentOid ?? 0);
  return parent ? rootOf(parent, byOid) : table;
}
