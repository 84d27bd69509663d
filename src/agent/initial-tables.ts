/**
 * The tables of a new stream. Flows in: what the leader's catalog holds; flows out: their shapes
 * with fresh ids, which of them hold rows already, and the refusal of rows that nobody could read
 * or that only a follower has.
 */
import type { Client } from 'pg';
import { qualifiedName } from '../catalog/postgres-session.ts';
import { newShape } from '../catalog/relation-ids.ts';
import { displayName, type KeylessTables, type TableShape } from '../catalog/table.ts';
import type { RelationShape, UnfinishedTable } from '../change/change.ts';
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
      const name = qualifiedName(table.schema, table.name);
      return [name, newShape(table, used, keyless)];
    }),
  );
}

/** Those that hold a row, as the session's snapshot sees it. */
export async function withRows(
  client: Client,
  tables: readonly TableShape[],
): Promise<TableShape[]> {
  const holding: TableShape[] = [];
  for (const table of tables) {
    if (table.kind === 'partitioned') continue;
    const { rows } = await client.query<{ holds: string }>(
      `SELECT EXISTS (SELECT FROM ONLY ${qualifiedName(table.schema, table.name)}) AS holds`,
    );
    if (rows[0]?.holds === 't') holding.push(table);
  }
  return holding;
}

/** Tables of the leader whose rows are to be read: chunks are read in the order of keys. */
export async function unfinishedAtFirst(
  { name, client }: NodeSession,
  tables: readonly TableShape[],
  shapes: ReadonlyMap<string, RelationShape>,
): Promise<UnfinishedTable[]> {
  const holding = await withRows(client, tables);
  return holding.map((table) => {
    const shape = shapes.get(qualifiedName(table.schema, table.name));
    if (shape !== undefined && shape.identity.length > 0) {
      return { relation: shape.id, after: null, rows: 0, estimate: null, since: null };
    }
    throw new UnderstudyError(
      'TABLE_NOT_EMPTY',
      `${displayName(table)} on node ${name} holds rows and has no key to read them by`,
      `Give it a key: ALTER TABLE ${qualifiedName(table.schema, table.name)} ADD COLUMN id ` +
        'bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; on every node.',
    );
  });
}

/** A follower gets every row from the stream: one of its own would be nobody's. */
export async function refuseRows(node: NodeSession, tables: readonly TableShape[]): Promise<void> {
  const [table] = await withRows(node.client, tables);
  if (table === undefined) return;
  throw new UnderstudyError(
    'TABLE_NOT_EMPTY',
    `${displayName(table)} on node ${node.name} holds rows, and that node is to follow`,
    'Its rows come from the leader: empty the tables of the followers (TRUNCATE), then run init ' +
      'again.',
  );
}
