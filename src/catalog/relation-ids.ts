/**
 * Names that outlive names. A relation id is given when a table enters the stream, a column id when
 * a column enters its relation; both are kept over renames and never given again, so that a record
 * of a dropped or renamed table can never be taken for one of its successor. Flows in: the catalog
 * and the ids in use; flows out: ids, and the shape the stream knows. Pure.
 */

import type { ColumnId, RelationId, RelationShape } from '../change/change.ts';
import { bug } from '../errors/bug.ts';
import { withoutIdentity } from '../errors/table.ts';
import { displayName, isAppendOnly, type KeylessTables, type TableShape } from './table.ts';

/** The name itself, or with `#2` and so on when that was ever used. The id joins `used`. */
export function giveRelationId(name: string, used: Set<string>): RelationId {
  return giveId(name, used);
}

/** Ids for columns that have none yet, by attnum. They join `used`. */
export function giveColumnIds(
  columns: readonly { readonly attnum: number; readonly name: string }[],
  used: Set<string>,
): Map<number, ColumnId> {
  return new Map(columns.map(({ attnum, name }) => [attnum, giveId(name, used)]));
}

function giveId(name: string, used: Set<string>): string {
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

/** The table as the stream knows it. Generated columns are computed by each node for itself. */
export function shapeOf(
  table: TableShape,
  ids: ShapeIds,
  keyless: KeylessTables = 'refuse',
): RelationShape {
  const idOf = (attnum: number): ColumnId => {
    const id = ids.columns.get(attnum);
    if (id !== undefined) return id;
    const message = `column ${attnum} of ${displayName(table)} has no id`;
    throw bug(message);
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

/** The shape of a table that enters the stream, with ids of its own. Its id joins `used`. */
export function newShape(
  table: TableShape,
  used: Set<RelationId>,
  keyless: KeylessTables,
): RelationShape {
  const relation = giveRelationId(displayName(table), used);
  return shapeOf(table, { relation, columns: giveColumnIds(table.columns, new Set()) }, keyless);
}

/**
 * In one line what keeps rows of the shape from fitting the table, or null. Compared are the
 * columns by name and type and which of them are the identity; neither their order, which may
 * differ between nodes, nor the table's generated columns.
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

function identityNames(shape: RelationShape): string[] {
  const names = new Map(shape.columns.map((column) => [column.id, column.name]));
  return shape.identity.map((id) => names.get(id) ?? id);
}

function tableIdentityNames(table: TableShape): string[] {
  const names = new Map(table.columns.map((column) => [column.attnum, column.name]));
  return (table.identityAttnums ?? []).map((attnum) => names.get(attnum) ?? '');
}
