/**
 * The tables of a new stream. Flows in: what the leader's catalog holds; flows out: their shapes
 * with fresh ids, and the refusal of tables that hold rows already: nobody would ever read those.
 */
import type { Client } from 'pg';
import { qualifiedName } from '../catalog/postgres-session.ts';
import { giveColumnIds, giveRelationId, shapeOf } from '../catalog/relation-ids.ts';
import { displayName, type KeylessTables, type TableShape } from '../catalog/table.ts';
import type { RelationShape } from '../change/change.ts';
import { UnderstudyError } from '../errors.ts';

export interface NodeSession {
  readonly name: string;
  readonly client: Client;
}

/** Shapes by qualified name, with the ids that a new stream gives. */
export function shapesOf(
  tables: readonly TableShape[],
  keyless: KeylessTables,
): Map<string, RelationShape> {
  const used = new Set<string>();
  return new Map(
    tables.map((table) => {
      const relation = giveRelationId(displayName(table), used);
      const columns = giveColumnIds(table.columns, new Set());
      const name = qualifiedName(table.schema, table.name);
      return [name, shapeOf(table, { relation, columns }, keyless)];
    }),
  );
}

/** Refuses a node that holds a row of a published table, as the session's snapshot sees it. */
export async function refuseRows(node: NodeSession, tables: readonly TableShape[]): Promise<void> {
  for (const table of tables) {
    if (table.kind === 'partitioned') continue;
    const { rows } = await node.client.query<{ holds: string }>(
      `SELECT EXISTS (SELECT FROM ONLY ${qualifiedName(table.schema, table.name)}) AS holds`,
    );
    if (rows[0]?.holds !== 't') continue;
    throw new UnderstudyError(
      'TABLE_NOT_EMPTY',
      `${displayName(table)} on node ${node.name} holds rows already`,
      'Reading rows that exist is not part of this version: empty the table on every node, run ' +
        'init, then load the rows on the leader.',
    );
  }
}
