/**
 * The `understudy` schema in a node's database. Flows in: who the node is; flows out: the schema as
 * schemas/sql defines it, and the node's row. Installing again repairs; a database that a newer
 * version wrote, or that belongs to another cluster, is refused untouched.
 */
import { readFile } from 'node:fs/promises';
import type { Client } from 'pg';
import { belongsToOtherNode } from '../errors/cluster.ts';
import { foreignUnderstudySchema } from '../errors/prerequisite.ts';
import { newerFormat } from '../errors/topic.ts';
import { inTransaction } from './postgres-session.ts';

/** Raised whenever the schema changes in a way that an older version would misread. */
const understudySchemaFormat = 1;

/** schemas/ stands beside src/ here and beside dist/ in the package: the same way up from both. */
const schemaFile = new URL('../../schemas/sql/001-understudy.sql', import.meta.url);

export interface NodeIdentity {
  readonly cluster: string;
  readonly name: string;
  readonly streamId: string;
  readonly role: 'leader' | 'follower';
  readonly epoch: number;
  /** Counts the starts of the node's agent; a restored copy is known by a lower one. */
  readonly startNumber: bigint;
}

/** The node this database is, or null where the schema is not installed. */
export async function readNode(client: Client): Promise<NodeIdentity | null> {
  const tables = await client.query<{ schema: string | null; node: string | null }>(
    `SELECT to_regnamespace('understudy') AS schema, to_regclass('understudy.node') AS node`,
  );
  const found = tables.rows[0];
  if (found === undefined || found.schema === null) return null;
  if (found.node === null) {
    throw foreignUnderstudySchema();
  }
  // The format first: of a newer one nothing else is known, its columns included.
  const { rows: formats } = await client.query<{ format: string }>(
    'SELECT format FROM understudy.node',
  );
  if (formats[0] === undefined) return null;
  const format = Number(formats[0].format);
  if (format > understudySchemaFormat) {
    throw newerFormat('the understudy schema', format, understudySchemaFormat);
  }
  const { rows } = await client.query<Record<string, string>>(
    'SELECT cluster, name, stream_id, role, epoch, start_number FROM understudy.node',
  );
  const row = rows[0] ?? {};
  return {
    cluster: row.cluster ?? '',
    name: row.name ?? '',
    streamId: row.stream_id ?? '',
    role: row.role === 'leader' ? 'leader' : 'follower',
    epoch: Number(row.epoch),
    startNumber: BigInt(row.start_number ?? 0),
  };
}

/** Installs or repairs the schema and writes the node's row, in one transaction. */
export async function installUnderstudySchema(client: Client, node: NodeIdentity): Promise<void> {
  const sql = await readFile(schemaFile, 'utf8');
  await inTransaction(client, async () => {
    const known = await readNode(client);
    if (known !== null && (known.cluster !== node.cluster || known.name !== node.name)) {
      throw belongsToOtherNode(known.name, known.cluster);
    }
    await client.query(sql);
    await writeNode(client, node);
  });
  // After the commit: transactions that began before it may not know the event trigger yet.
  await noteWatchedSince(client);
}

/** Notes since when every new transaction knows the event trigger understudy_watch. */
export async function noteWatchedSince(client: Client): Promise<void> {
  await client.query(
    'UPDATE understudy.node SET watched_since = clock_timestamp() WHERE watched_since IS NULL',
  );
}

/** Writes the node's row as it is to be. */
export async function writeNode(client: Client, node: NodeIdentity): Promise<void> {
  await client.query(
    `INSERT INTO understudy.node (cluster, name, stream_id, role, epoch, start_number, format)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     ON CONFLICT (only_row) DO UPDATE SET
       cluster = excluded.cluster, name = excluded.name, stream_id = excluded.stream_id,
       role = excluded.role, epoch = excluded.epoch, start_number = excluded.start_number,
       format = excluded.format`,
    [
      node.cluster,
      node.name,
      node.streamId,
      node.role,
      node.epoch,
      node.startNumber,
      understudySchemaFormat,
    ],
  );
}

/** Drops everything of ours in the database; the write guard has to be removed before. */
export async function dropUnderstudySchema(client: Client): Promise<void> {
  await client.query('DROP SCHEMA IF EXISTS understudy CASCADE');
}
