/**
 * Tables that enter the stream while it runs. Takes tables that are published and new to it; keeps
 * their ids in this database, and which of them hold rows that are not yet read. That is kept until
 * a point names them, so that a crash in between forgets none.
 */
import type { Client } from 'pg';
import { saveRelations } from '../../catalog/known-relations.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { displayName, type TableShape } from '../../catalog/table.ts';
import type { RelationId, RelationShape } from '../../change/change.ts';
import type { OutsideProblem } from './outside-tables.ts';

/** `isToRead`: it may hold rows that are not in the stream. */
export async function enterTable(
  client: Client,
  shape: RelationShape,
  table: TableShape,
  isToRead: boolean,
): Promise<void> {
  await inTransaction(client, async () => {
    await saveRelations(client, [{ shape, table }]);
    await client.query('DELETE FROM understudy.unread_partitions WHERE table_oid = $1', [
      table.oid,
    ]);
    if (!isToRead) return;
    await client.query('INSERT INTO understudy.to_read (relation_id) VALUES ($1)', [shape.id]);
    await client.query(
      `UPDATE understudy.relations SET entered_lsn = pg_catalog.pg_current_wal_insert_lsn()
       WHERE relation_id = $1`,
      [shape.id],
    );
  });
}

/** Partitions that are not in the stream: the resnapshot of their table was done without them. */
export async function unreadPartitions(client: Client): Promise<ReadonlySet<number>> {
  const { rows } = await client.query<{ oid: string }>(
    'SELECT table_oid::bigint AS oid FROM understudy.unread_partitions',
  );
  return new Set(rows.map(({ oid }) => Number(oid)));
}

/** Tables whose backfill has not begun, as far as this database knows. */
export async function tablesToRead(client: Client): Promise<RelationId[]> {
  const { rows } = await client.query<{ id: string }>(
    'SELECT relation_id AS id FROM understudy.to_read ORDER BY relation_id',
  );
  return rows.map(({ id }) => id);
}

/** Points name these tables now, so this database need not. */
export async function forgetToRead(client: Client, relations: ReadonlySet<string>): Promise<void> {
  if (relations.size === 0) return;
  await client.query('DELETE FROM understudy.to_read WHERE relation_id = ANY ($1)', [
    [...relations],
  ]);
}

/** A table with all partitions below it, as the publication has them. */
export function withPartitions(root: TableShape, tables: readonly TableShape[]): TableShape[] {
  const byParent = new Map<number | null, TableShape[]>();
  for (const table of tables) {
    if (!table.isPartition) continue;
    const siblings = byParent.get(table.parentOid);
    if (siblings === undefined) byParent.set(table.parentOid, [table]);
    else siblings.push(table);
  }
  const treeOf = (table: TableShape): TableShape[] => {
    return [table, ...(byParent.get(table.oid) ?? []).flatMap(treeOf)];
  };
  return treeOf(root);
}

/**
 * Before these versions a walsender may keep the publication as it was for a transaction that was
 * open at the ADD TABLE, and leave out later changes. Source: release notes of 15.13, 16.9, 17.5.
 */
function keepsOldPublication(serverVersion: number): boolean {
  const fixed: Readonly<Record<number, number>> = { 15: 150_013, 16: 160_009, 17: 170_005 };
  return serverVersion < (fixed[Math.floor(serverVersion / 10_000)] ?? 0);
}

/** Why the table cannot enter the stream of this server, as far as its version goes. */
export async function oldPublicationProblem(
  client: Client,
  table: TableShape,
): Promise<OutsideProblem | null> {
  const { rows } = await client.query<{ version: string }>(
    `SELECT pg_catalog.current_setting('server_version_num') AS version`,
  );
  if (!keepsOldPublication(Number(rows[0]?.version))) return null;
  return {
    message:
      `${displayName(table)} was added to the publication, and this version of Postgres may ` +
      'leave out changes of it',
    hint: 'Install 15.13, 16.9, 17.5 or a later release of Postgres, then start the agent again.',
  };
}
