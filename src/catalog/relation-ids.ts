/**
 * Relation ids and column ids. A relation id is assigned when a table enters the stream, a column
 * id when a column enters its relation. Both are kept over renames and never reused, so that a
 * record of a dropped or renamed table is never taken for a record of a later table of that name.
 * From the catalog and the ids in use come new ids, and the shape of a table in the stream. Pure.
 */

import { escapeIdentifier } from 'pg';
import type { ColumnId, RelationId, RelationShape } from '../change/change.ts';
import { bug } from '../errors/bug.ts';
import { withoutIdentity } from '../errors/table.ts';
import {
  alterTable,
  displayName,
  isAppendOnly,
  type KeylessTables,
  type TableShape,
} from './table.ts';

/** The name, or the name with `#2` and so on where it was used before. Adds the id to `used`. */
export function assignRelationId(name: string, used: Set<string>): RelationId {
  return assignId(name, used);
}

/** Ids for columns that have none yet, by attnum. Adds them to `used`. */
export function assignColumnIds(
  columns: readonly { readonly attnum: number; readonly name: string }[],
  used: Set<string>,
): Map<number, ColumnId> {
  return new Map(columns.map(({ attnum, name }) => [attnum, assignId(name, used)]));
}

function assignId(name: string, used: Set<string>): string {
  let id = name;
  for (let number = 2; used.has(id); number += 1) id = `${name}#${number}`;
  used.add(id);
  return id;
}

interface ShapeIds {
  readonly relation: RelationId;
  /** By attnum. */
  readonly columns: ReadonlyMap<number, ColumnId>;
}

/** The shape of the table in the stream. Each node computes generated columns itself. */
export function shapeOf(
  table: TableShape,
  ids: ShapeIds,
  keyless: KeylessTables = 'refuse',
): RelationShape {
  const idOf = (attnum: number): ColumnId => {
    const id = ids.columns.get(attnum);
    if (id !== undefined) return id;
    throw bug(`column ${attnum} of ${displayName(table)} has no id`);
  };
  if (table.identityAttnums === null && !isAppendOnly(table, keyless)) {
    throw withoutIdentity(displayName(table));
  }
  return {
    id: ids.relation,
    schema: table.schema,
    name: table.name,
    columns: table.columns
      .filter((column) => column.generated === 'no')
      .map((column) => ({
        id: idOf(column.attnum),
        name: column.name,
        type: column.type,
        nullable: !column.notNull,
        missing: null,
      })),
    identity: (table.identityAttnums ?? []).map(idOf),
    dropped: false,
  };
}

/** The shape of a table that enters the stream, with new ids. Adds the relation id to `used`. */
export function newShape(
  table: TableShape,
  used: Set<RelationId>,
  keyless: KeylessTables,
): RelationShape {
  const relation = assignRelationId(displayName(table), used);
  return shapeOf(table, { relation, columns: assignColumnIds(table.columns, new Set()) }, keyless);
}

/**
 * In one line why rows of the shape do not fit the table, or null. Columns are compared by name and
 * type, and the identity by its columns. Not compared are the order of columns, which may differ
 * between nodes, and the table's generated columns.
 */
export function compareWithTable(shape: RelationShape, table: TableShape): string | null {
  const columns = new Map(
    table.columns
      .filter((column) => column.generated === 'no')
      .map((column) => [column.name, column]),
  );
  const differences: string[] = [];
  for (const column of shape.columns) {
    const own = columns.get(column.name);
    columns.delete(column.name);
    if (own === undefined) {
      differences.push(`column ${column.name} is missing`);
    } else if (own.type !== column.type) {
      differences.push(`column ${column.name} is ${own.type} instead of ${column.type}`);
    }
  }
  for (const name of columns.keys()) differences.push(`column ${name} is not in the stream`);
  const streamed = identityNames(shape);
  const own = tableIdentityNames(table);
  if (streamed.sort().join('\0') !== own.sort().join('\0')) {
    const actual = own.length === 0 ? 'none' : `(${own.join(', ')})`;
    differences.push(`its identity is ${actual} instead of (${streamed.join(', ')})`);
  }
  return differences.length === 0 ? null : `${displayName(table)}: ${differences.join('; ')}`;
}

/** SQL that gives the table the columns of the shape; null where other things differ. */
export function alterationOf(shape: RelationShape, table: TableShape): string | null {
  const own = new Map(
    table.columns.flatMap((column) => (column.generated === 'no' ? [[column.name, column]] : [])),
  );
  const actions: string[] = [];
  for (const { name, type } of shape.columns) {
    const column = escapeIdentifier(name);
    const known = own.get(name);
    own.delete(name);
    if (known === undefined) actions.push(`ADD COLUMN ${column} ${type}`);
    else if (known.type !== type) {
      actions.push(`ALTER COLUMN ${column} TYPE ${type} USING ${column}::text::${type}`);
    }
  }
  for (const name of own.keys()) actions.push(`DROP COLUMN ${escapeIdentifier(name)}`);
  if (actions.length === 0) return null;
  return `${alterTable(table)} ${actions.join(', ')}`;
}

function identityNames(shape: RelationShape): string[] {
  const names = new Map(shape.columns.map((column) => [column.id, column.name]));
  return shape.identity.map((id) => names.get(id) ?? id);
}

function tableIdentityNames(table: TableShape): string[] {
  const names = new Map(table.columns.map((column) => [column.attnum, column.name]));
  return (table.identityAttnums ?? []).map((attnum) => names.get(attnum) ?? '');
}
