/**
 * SQL that finds rows of a table by their keys. It takes one text array for each identity column,
 * so that a thousand keys are one statement, and compares as the identity's index does. Pure: names
 * are quoted, values are parameters.
 */

import type { ColumnId, RelationId, RelationShape } from '../change/change.ts';
import { bug } from '../errors/bug.ts';
import type { KeyOperators, TableAccess, TextInput } from './column-access.ts';
import { qualifiedName, quoteIdentifier } from './postgres-session.ts';
import type { TableShape } from './table.ts';

interface KeyedColumn {
  readonly id: ColumnId;
  readonly name: string;
  /** As format_type prints it under an empty search_path: safe to put into SQL as it is. */
  readonly type: string;
  readonly input: TextInput;
}

/** One table of this database, in the columns of the stream. */
export interface KeyedTable {
  readonly relationId: RelationId;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly KeyedColumn[];
  /** Indexes into `columns`, in the order of the replica identity. */
  readonly identity: readonly number[];
  /** How the identity's index compares, column by column. */
  readonly keys: readonly KeyOperators[];
}

export function keyedTableOf(
  shape: RelationShape,
  table: TableShape,
  access: TableAccess | undefined,
): KeyedTable {
  if (access === undefined) {
    throw bug(`the operators of ${shape.id} were not read`);
  }
  const byName = new Map(table.columns.map((column) => [column.name, column]));
  const columns = shape.columns.map(({ id, name, type }): KeyedColumn => {
    const own = byName.get(name);
    const input = access.inputs.get(own?.attnum ?? 0) ?? 'cast';
    return { id, name, type: own?.type ?? type, input };
  });
  const identity = shape.identity.map((id) => columns.findIndex((column) => column.id === id));
  return {
    relationId: shape.id,
    schema: table.schema,
    name: table.name,
    columns,
    identity,
    keys: identity.flatMap((index) => {
      const attnum = byName.get(columns[index]?.name ?? '')?.attnum ?? 0;
      return access.keys.get(attnum) ?? [];
    }),
  };
}

/** Types that print equal values as equal text, under the settings of our sessions. */
const oneSpellingTypes =
  /^(smallint|integer|bigint|oid|uuid|boolean|bytea|date|timestamp(\(\d\))? with(out)? time zone)$/;
const textTypes = /^(text|character varying(\(\d+\))?)$/;
/** Collations that take only equal bytes for equal. */
const exactCollations = new Set([
  '"pg_catalog"."default"',
  '"pg_catalog"."C"',
  '"pg_catalog"."POSIX"',
]);

/** Whether equal keys always have the same text: not so for numeric, citext, some collations. */
export function hasOneSpelling(table: KeyedTable): boolean {
  return identityColumns(table).every(({ type }, i) => {
    if (oneSpellingTypes.test(type)) return true;
    return textTypes.test(type) && exactCollations.has(table.keys[i]?.collation ?? '');
  });
}

export function quotedTable(table: KeyedTable): string {
  return qualifiedName(table.schema, table.name);
}

export function identityColumns(table: KeyedTable): KeyedColumn[] {
  return table.identity.map((index) => columnAt(table, index));
}

/** Whether the row t has the key k, as the index of the identity compares. */
export function keyMatch(table: KeyedTable): string {
  const matches = identityColumns(table).map(({ name, type }, i) => {
    const { equal, collation } = operatorsAt(table, i);
    const key = `k.k${i}::${type}`;
    const collated = collation === null ? key : `(${key} COLLATE ${collation})`;
    // rule: equality-of-key-operator
    return `t.${quoteIdentifier(name)} ${equal} ${collated}`;
  });
  return matches.join(' AND ');
}

/**
 * Selects the present rows of the given keys. It takes one text array for each identity column, and
 * returns the index in the arrays, from 1, then the given columns as their types print them.
 */
export function rowsByKeySql(table: KeyedTable, columns: readonly number[]): string {
  const values = columns.map((index) => `t.${quoteIdentifier(columnAt(table, index).name)}`);
  const keys = unnestTexts('k', identityColumns(table), 'place');
  return (
    `SELECT ${['k.place', ...values].join(', ')} FROM ${keys} ` +
    `JOIN ONLY ${quotedTable(table)} AS t ON ${keyMatch(table)}`
  );
}

/**
 * Selects which of the given keys have a row that the deletion of other keys would remove. It takes
 * the arrays of the keys, then those of the keys to delete, and returns the index in the arrays,
 * from 1. `IS TRUE` keeps the planner, which cannot know how long the arrays are, to one look-up in
 * the index for each key: it does not become a join.
 */
export function removedRowsSql(table: KeyedTable): string {
  const identity = identityColumns(table);
  const byKey = `JOIN ONLY ${quotedTable(table)} AS t ON ${keyMatch(table)}`;
  const keys = unnestTexts('k', identity, 'place');
  const deleted = unnestTexts('k', identity, undefined, identity.length);
  return (
    `SELECT k.place FROM ${keys} ${byKey} ` +
    `WHERE (t.ctid IN (SELECT t.ctid FROM ${deleted} ${byKey})) IS TRUE`
  );
}

/** One array parameter per column, from the one after `before` on, as rows. */
export function unnestTexts(
  alias: string,
  columns: readonly KeyedColumn[],
  ordinality?: string,
  before = 0,
): string {
  const arrays = columns.map(({ type, input }, i) => {
    const taken = input === 'cast' ? 'pg_catalog.text' : type;
    return `pg_catalog.unnest($${before + i + 1}::${taken}[])`;
  });
  const names = columns.map((_, i) => `${alias}${i}`);
  const from = `ROWS FROM (${arrays.join(', ')})`;
  if (ordinality === undefined) return `${from} AS ${alias}(${names.join(', ')})`;
  return `${from} WITH ORDINALITY AS ${alias}(${[...names, ordinality].join(', ')})`;
}

export function operatorsAt(table: KeyedTable, place: number): KeyOperators {
  const operators = table.keys[place];
  if (operators === undefined) throw new RangeError(`no operators ${place} of ${table.relationId}`);
  return operators;
}

function columnAt(table: KeyedTable, index: number): KeyedColumn {
  const column = table.columns[index];
  if (column === undefined) throw new RangeError(`${table.relationId} has no column ${index}`);
  return column;
}
