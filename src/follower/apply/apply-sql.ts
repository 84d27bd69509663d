/**
 * The statements that write rows. Flows in: what a follower's table looks like; flows out: SQL that
 * takes one text array per column, so that a thousand rows are one statement and every value goes
 * through the type's own input. Pure: names are quoted, values are parameters.
 */
import {
  identityColumns,
  type KeyedTable,
  keyMatch,
  quotedTable,
  unnestTexts,
} from '../../catalog/key-lookup.ts';
import { quoteIdentifier } from '../../catalog/postgres-session.ts';

/** One table of this follower, in the columns of the stream. */
export interface ApplyTarget extends KeyedTable {
  readonly partitioned: boolean;
  /**
   * A GENERATED ALWAYS identity column outside of the key cannot be updated, only inserted; there
   * are unique indexes that ON CONFLICT does not take; and tables without any.
   */
  readonly replaceOnly: boolean;
}

/** Takes one text array per identity column. */
export function deleteSql(target: ApplyTarget): string {
  const keys = unnestTexts('k', identityColumns(target));
  return `DELETE FROM ONLY ${quotedTable(target)} AS t USING ${keys} WHERE ${keyMatch(target)}`;
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
    `INSERT INTO ${quotedTable(target)} (${names.join(', ')}) OVERRIDING SYSTEM VALUE ` +
    `SELECT ${values.join(', ')} FROM ${unnestTexts('v', target.columns)}`
  );
}

/** A partitioned table has no rows of its own: its partitions are named beside it. */
export function truncateSql(targets: readonly ApplyTarget[]): string {
  const names = targets.map(
    (target) => `${target.partitioned ? '' : 'ONLY '}${quotedTable(target)}`,
  );
  return `TRUNCATE ${names.join(', ')}`;
}

export function deleteAllSql(target: ApplyTarget): string {
  return `DELETE FROM ${target.partitioned ? '' : 'ONLY '}${quotedTable(target)}`;
}
