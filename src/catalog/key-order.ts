/**
 * SQL that reads the rows of a table in the order of their keys, in pages. It takes the texts of
 * the last key of the page before, and compares as the identity's index does, so that the index
 * provides the order. Pure: names are quoted, values are parameters.
 */

import { identityColumns, type KeyedTable, operatorsAt, quotedTable } from './key-lookup.ts';
import { quoteIdentifier } from './postgres-session.ts';

/** At most `rowsMax` rows after the given key, or from the first row; all columns as text. */
export function rowsInOrderSql(table: KeyedTable, hasAfter: boolean, rowsMax: number): string {
  const columns = table.columns.map(({ name }) => `t.${quoteIdentifier(name)}`);
  const order = keys(table).map(({ column, less }) => `${column} USING ${less}`);
  return (
    `SELECT ${columns.join(', ')} FROM ONLY ${quotedTable(table)} AS t` +
    `${hasAfter ? ` WHERE ${isAfter(table)}` : ''} ORDER BY ${order.join(', ')} LIMIT ${rowsMax}`
  );
}

interface Key {
  readonly column: string;
  readonly value: string;
  readonly equal: string;
  readonly less: string;
  readonly greater: string;
}

function keys(table: KeyedTable): Key[] {
  return identityColumns(table).map(({ name, type, input }, i) => {
    const { collation, ...operators } = operatorsAt(table, i);
    const collate = collation === null ? '' : ` COLLATE ${collation}`;
    const value = input === 'cast' ? `$${i + 1}::pg_catalog.text::${type}` : `$${i + 1}::${type}`;
    return { column: `t.${quoteIdentifier(name)}${collate}`, value, ...operators };
  });
}

/**
 * A comparison of row values is one range of the index, however many rows share the first column.
 * It uses one operator for all columns; where the columns have different operators, they are
 * compared one by one.
 */
function isAfter(table: KeyedTable): string {
  const all = keys(table);
  const [first, ...rest] = all;
  if (first === undefined) throw new RangeError(`${table.relationId} has no key`);
  if (rest.every(({ greater }) => greater === first.greater)) {
    const columns = all.map(({ column }) => column).join(', ');
    const values = all.map(({ value }) => value).join(', ');
    return rest.length === 0
      ? `${columns} ${first.greater} ${values}`
      : `ROW(${columns}) ${first.greater} ROW(${values})`;
  }
  const greater = all.map(({ column, value, greater: is }, i) => {
    const same = all.slice(0, i).map((key) => `${key.column} ${key.equal} ${key.value}`);
    return `(${[...same, `${column} ${is} ${value}`].join(' AND ')})`;
  });
  return `(${greater.join(' OR ')})`;
}
