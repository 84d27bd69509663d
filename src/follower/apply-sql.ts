/**
 * The statements that write rows. Flows in: what a follower's table looks like; flows out: SQL that
 * takes one text array per column, so that a thousand rows are one statement and every value goes
 * through the type's own input. Pure: names are quoted, values are parameters.
 */
import type { KeyEquality, TextInput } from '../catalog/column-access.ts';
import { qualifiedName, quoteIdentifier } from '../catalog/postgres-session.ts';
import type { ColumnId, RelationId } from '../change/change.ts';

export interface TargetColumn {
  readonly id: ColumnId;
  readonly name: string;
  /** As format_type prints it under an empty search_path: safe to put into SQL as it is. */
  readonly type: string;
  readonly input: TextInput;
}

/** One table of this follower, in the columns of the stream. */
export interface ApplyTarget {
  readonly relationId: RelationId;
  readonly schema: string;
  readonly name: string;
  readonly partitioned: boolean;
  readonly columns: readonly TargetColumn[];
  /** Indexes into `columns`, in the order of the replica identity. */
  readonly identity: readonly number[];
  /** How the identity's index compares, column by column. */
  readonly equalities: readonly KeyEquality[];
  /**
   * A GENERATED ALWAYS identity column outside of the key cannot be updated, only inserted; there
   * are unique indexes that ON CONFLICT does not take; and tables without any.
   */
  readonly replaceOnly: boolean;
}

/** Takes one text array per identity column. */
export function deleteSql(target: ApplyTarget): string {
  const keys = unnest('k', identityColumns(target));
  return `DELETE FROM ONLY ${tableOf(target)} AS t USING ${keys} WHERE ${keyMatch(target)}`;
}

/** Whether the row t has the key k, as the index of the identity compares. */
function keyMatch(target: ApplyTarget): string {
  const matches = identityColumns(target).map(({ name, type }, i) => {
    const equality = target.equalities[i];
    if (equality === undefined) throw new RangeError(`no equality ${i} of ${target.relationId}`);
    const { operator, collation } = equality;
    const key = `k.k${i}::${type}`;
    const collated = collation === null ? key : `(${key} COLLATE ${collation})`;
    return `t.${quoteIdentifier(name)} ${operator} ${collated}`;
  });
  return matches.join(' AND ');
}

/** Takes one text array per column. */
export function upsertSql(target: ApplyTarget): string {
  const key = new Set(target.identity);
  const updates = target.columns
    .filter((_, index) => !key.has(index))
    .map(({ name }) => `${quoteIdentifier(name)} = EXCLUDED.${quoteIdentifier(name)}`);
  const conflict = identityColumns(target).map(({ name }) => quoteIdentifier(name));
  const action = updates.length === 0 ? 'NOTHING' : `UPDATE SET ${updates.join(', ')}`;
  return `${insertSql(target)} ON CONFLICT (${conflict.join(', ')}) DO ${action}`;
}

/** Takes one text array per column; rows of the same key must be gone. */
export function insertSql(target: ApplyTarget): string {
  const names = target.columns.map(({ name }) => quoteIdentifier(name));
  const values = target.columns.map(({ type }, i) => `v.v${i}::${type}`);
  return (
    `INSERT INTO ${tableOf(target)} (${names.join(', ')}) OVERRIDING SYSTEM VALUE ` +
    `SELECT ${values.join(', ')} FROM ${unnest('v', target.columns)}`
  );
}

/**
 * The rows that the table holds now under the given keys. Takes one text array per identity column;
 * gives the place in the arrays, from 1, then the given columns as their types print them.
 */
export function readSql(target: ApplyTarget, columns: readonly number[]): string {
  const values = columns.map((index) => `t.${quoteIdentifier(columnAt(target, index).name)}`);
  const keys = unnest('k', identityColumns(target), 'place');
  return (
    `SELECT ${['k.place', ...values].join(', ')} FROM ${keys} ` +
    `JOIN ONLY ${tableOf(target)} AS t ON ${keyMatch(target)}`
  );
}

/** A partitioned table has no rows of its own: its partitions are named beside it. */
export function truncateSql(targets: readonly ApplyTarget[]): string {
  const names = targets.map((target) => `${target.partitioned ? '' : 'ONLY '}${tableOf(target)}`);
  return `TRUNCATE ${names.join(', ')}`;
}

export function deleteAllSql(target: ApplyTarget): string {
  return `DELETE FROM ${target.partitioned ? '' : 'ONLY '}${tableOf(target)}`;
}

function tableOf(target: ApplyTarget): string {
  return qualifiedName(target.schema, target.name);
}

function identityColumns(target: ApplyTarget): TargetColumn[] {
  return target.identity.map((index) => columnAt(target, index));
}

function columnAt(target: ApplyTarget, index: number): TargetColumn {
  const column = target.columns[index];
  if (column === undefined) throw new RangeError(`${target.relationId} has no column ${index}`);
  return column;
}

function unnest(alias: string, columns: readonly TargetColumn[], ordinality?: string): string {
  const arrays = columns.map(({ type, input }, i) => {
    return `pg_catalog.unnest($${i + 1}::${input === 'cast' ? 'pg_catalog.text' : type}[])`;
  });
  const names = columns.map((_, i) => `${alias}${i}`);
  const from = `ROWS FROM (${arrays.join(', ')})`;
  if (ordinality === undefined) return `${from} AS ${alias}(${names.join(', ')})`;
  return `${from} WITH ORDINALITY AS ${alias}(${[...names, ordinality].join(', ')})`;
}
