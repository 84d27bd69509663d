/**
 * A table as read-catalog.ts reads it, and its replica identity, as Postgres chooses it. Takes what
 * the catalog says of a table; gives the index that identifies its rows. Pure.
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

export function displayName(table: Pick<TableShape, 'schema' | 'name'>): string {
  return `${table.schema}.${table.name}`;
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
