/**
 * In what a table is no longer what the stream knows it by. Takes the known relation, the table as
 * the catalog has it now, and the table as a relation message describes it at its position in the
 * WAL; gives one difference as a clause, or the columns in the order in which Postgres sends them.
 * Pure.
 */
import type { KnownRelation } from '../../catalog/known-relations.ts';
import { displayName, type TableShape } from '../../catalog/table.ts';
import type { RelationShape } from '../../change/change.ts';
import type { RelationMessage } from '../stream/pgoutput-decoder.ts';

/** Rows would still find their table by its id, but a follower keeps the name of init. */
export function renamed(shape: RelationShape, table: TableShape): string | null {
  if (shape.schema === table.schema && shape.name === table.name) return null;
  return `it was renamed to ${displayName(table)}`;
}

/**
 * A re-created column of the same name has other values in every row, and no row is sent for it.
 */
export function recreated({ shape, attnums }: KnownRelation, table: TableShape): string | null {
  for (const { id, name } of shape.columns) {
    const column = table.columns.find((one) => one.name === name);
    const attnum = attnums.get(id);
    if (column === undefined || attnum === undefined || column.attnum === attnum) continue;
    return `its column ${name} was dropped and re-created`;
  }
  return null;
}

/** Postgres sends values in the order of its own attnums, which may differ between nodes. */
export function inTableOrder(shape: RelationShape, table: TableShape): RelationShape {
  const order = new Map(table.columns.map(({ name }, index) => [name, index]));
  const columns = [...shape.columns].sort(
    (a, b) => (order.get(a.name) ?? 0) - (order.get(b.name) ?? 0),
  );
  return { ...shape, columns };
}

/** Two shapes of one known relation have the same columns, which are compared as objects. */
export function isSameOrder(a: RelationShape, b: RelationShape): boolean {
  return (
    a.columns.length === b.columns.length &&
    a.columns.every((column, index) => column === b.columns[index])
  );
}

/**
 * The message describes the table at its position in the WAL, the catalog as it is now, or shortly
 * before: a commit is decoded before it is visible. Where a type was widened by its modifier alone,
 * followers would cut off values. Under another identity an update of our key is no key change, and
 * comes without the old key. With FULL every column is marked, and the old row has the key.
 */
export function messageDifference(message: RelationMessage, table: TableShape): string | null {
  const columns = table.columns.filter(({ generated }) => generated === 'no');
  const alike =
    columns.length === message.columns.length &&
    columns.every(({ name, typeOid, typeModifier }, i) => {
      const sent = message.columns[i];
      // rule: type-includes-modifier
      const isSameType = sent?.typeOid === typeOid && sent.typeModifier === typeModifier;
      return isSameType && sent.name === name;
    });
  if (!alike) return 'its columns were changed';
  if (message.replicaIdentity === 'f') return null;
  const identity = new Set(table.identityAttnums);
  const isSame = columns.every(({ attnum }, i) => {
    return message.columns[i]?.partOfKey === identity.has(attnum);
  });
  // rule: identity-as-sent
  return isSame ? null : 'it had another identity for a while';
}
