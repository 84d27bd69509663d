/**
 * The tables of a new stream. Flows in: what the leader's catalog holds; flows out: their shapes
 * with fresh ids, which of them hold rows already, and the refusal of rows that nobody could read
 * or that only a follower has.
 */
import type { Client } from 'pg';
import { inTransaction, qualifiedName } from '../../catalog/postgres-session.ts';
import { newShape } from '../../catalog/relation-ids.ts';
import { displayName, type KeylessTables, type TableShape } from '../../catalog/table.ts';
import type { RelationShape, UnfinishedTable } from '../../change/change.ts';
import { unreadTable } from '../../change/change.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { ApplyTargets } from '../../follower/apply/apply-targets.ts';
import type { NodeSession } from '../node/member-session.ts';

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

/**
 * Tables of the leader whose rows are to be read: chunks are read in the order of keys. Where
 * followers hold rows that are to be replaced, also tables that are empty here.
 */
export async function unfinishedAtFirst(
  { name, client }: NodeSession,
  tables: readonly TableShape[],
  shapes: ReadonlyMap<string, RelationShape>,
  replaceRows: boolean,
): Promise<UnfinishedTable[]> {
  const keyed = keyedTables(tables, shapes);
  const keyless = tables.filter((table) => !keyed.includes(table));
  const holding = await withRows(client, replaceRows ? keyless : tables);
  return [...(replaceRows ? keyed : []), ...holding].map((table) => {
    const shape = shapes.get(qualifiedName(table.schema, table.name));
    if (shape !== undefined && shape.identity.length > 0) return unreadTable(shape.id);
    throw new UnderstudyError(
      'TABLE_NOT_EMPTY',
      `${displayName(table)} on node ${name} holds rows and has no key to read them by`,
      `Give it a key: ALTER TABLE ${qualifiedName(table.schema, table.name)} ADD COLUMN id ` +
        'bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; on every node.',
    );
  });
}

function keyedTables(
  tables: readonly TableShape[],
  shapes: ReadonlyMap<string, RelationShape>,
): TableShape[] {
  return tables.filter(({ kind, schema, name }) => {
    const identity = shapes.get(qualifiedName(schema, name))?.identity ?? [];
    return kind !== 'partitioned' && identity.length > 0;
  });
}

/**
 * A follower's rows stay for its readers until all of the leader's have come; then those go that
 * did not come. Rows without a key cannot be told apart, and are refused.
 */
export async function replaceRows(
  node: NodeSession,
  tables: readonly TableShape[],
  shapes: ReadonlyMap<string, RelationShape>,
): Promise<void> {
  const keyed = keyedTables(tables, shapes);
  await refuseFollowerRows(
    node,
    tables.filter((table) => !keyed.includes(table)),
  );
  const targets = await ApplyTargets.open(node.client);
  await inTransaction(node.client, async () => {
    for (const { schema, name } of keyed) {
      const { id } = shapes.get(qualifiedName(schema, name)) ?? {};
      if (id !== undefined) await targets.resnapshots.begin(targets.getOfRows(id));
    }
  });
}

/** A follower gets every row from the stream: one of its own would be nobody's. */
export async function refuseFollowerRows(
  node: NodeSession,
  tables: readonly TableShape[],
): Promise<void> {
  const [table] = await withRows(node.client, tables);
  if (table === undefined) return;
  throw new UnderstudyError(
    'TABLE_NOT_EMPTY',
    `${displayName(table)} on node ${node.name} holds rows, and that node is to follow`,
    'Its rows come from the leader. Where they may replace what followers hold: understudy init ' +
      '--replace-rows; else empty the tables (TRUNCATE), then run init again.',
  );
}
