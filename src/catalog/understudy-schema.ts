/**
 * The `understudy` schema in a node's database: installs it as schemas/sql defines it, with the row
 * that says which node the database is, upgrades one that an older version left, and reads that
 * row and the history of epochs. A second installation repairs the schema. A database that a newer
 * version wrote, or that belongs to another cluster, is refused and not changed.
 */
import { readFile } from 'node:fs/promises';
import type { Client } from 'pg';
import { parseLsn } from '../change/lsn.ts';
import type { EpochBase } from '../change/position.ts';
import { belongsToOtherNode } from '../errors/cluster.ts';
import { foreignUnderstudySchema } from '../errors/prerequisite.ts';
import { newerFormat } from '../errors/topic.ts';
import { packageFile } from '../package-files.ts';
import { inTransaction } from './postgres-session.ts';
import type { ServerFacts } from './read-catalog.ts';

/** Raised whenever a table or the result of a function changes; upgrade-N.sql leads to it. */
export const understudySchemaFormat = 2;

const schemaFile = packageFile('schemas/sql/001-understudy.sql');

export interface NodeIdentity {
  readonly cluster: string;
  readonly name: string;
  readonly streamId: string;
  readonly role: 'leader' | 'follower';
  readonly epoch: number;
  /** The number of starts of the node's agent. A restored copy has a lower one. */
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
  // The format first: of a newer one nothing else is known, not even the columns.
  if ((await readSchemaFormat(client)) === null) return null;
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

/** Of a database with the schema; null where it has no row. A newer one is refused. */
export async function readSchemaFormat(client: Client): Promise<number | null> {
  const { rows } = await client.query<{ format: string }>('SELECT format FROM understudy.node');
  if (rows[0] === undefined) return null;
  const format = Number(rows[0].format);
  if (format <= understudySchemaFormat) return format;
  throw newerFormat('the understudy schema', format, understudySchemaFormat);
}

/** Readers of a follower hold locks for as long as they wait for a token. */
const upgradeLockMaxMs = 30_000;

/**
 * Brings the schema of a node to the present format, step by step, in one transaction. The caller
 * holds the lock of the node. Gives the format that it had, or null where nothing was to do. The
 * session's role is replica, so neither the write guard nor the event triggers see it.
 */
export async function upgradeUnderstudySchema(client: Client): Promise<number | null> {
  const format = await readSchemaFormat(client);
  if (format === null || format === understudySchemaFormat) return null;
  const files = [schemaFile];
  for (let step = understudySchemaFormat; step > format; step -= 1) {
    files.unshift(packageFile(`schemas/sql/upgrade-${step}.sql`));
  }
  const steps = await Promise.all(files.map((file) => readFile(file, 'utf8')));
  await inTransaction(client, async () => {
    await client.query(`SET LOCAL lock_timeout = ${upgradeLockMaxMs}`);
    for (const sql of steps) await client.query(sql);
    await client.query('UPDATE understudy.node SET format = $1', [understudySchemaFormat]);
  });
  await noteWatchedSince(client);
  return format;
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
  // After the commit: older transactions may not see the event trigger yet.
  await noteWatchedSince(client);
}

/** Records since when every new transaction sees the event trigger understudy_watch. */
export async function noteWatchedSince(client: Client): Promise<void> {
  await client.query(
    'UPDATE understudy.node SET watched_since = clock_timestamp() WHERE watched_since IS NULL',
  );
}

/** Creates or replaces the node's row. */
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

/** Drops the schema with all its objects; the write guard has to be removed before. */
export async function dropUnderstudySchema(client: Client): Promise<void> {
  await client.query('DROP SCHEMA IF EXISTS understudy_rows CASCADE');
  await client.query('DROP SCHEMA IF EXISTS understudy CASCADE');
}

type ServerIdentity = Pick<ServerFacts, 'systemId' | 'timeline'>;

/** The valid epochs, each with the base that it continues: void records are recognised by them. */
export async function readEpochBases(client: Client): Promise<EpochBase[]> {
  const { rows } = await client.query<{
    epoch: string;
    base_epoch: string | null;
    base_upto: string | null;
  }>('SELECT epoch, base_epoch, base_upto FROM understudy.epochs');
  return rows.map(({ epoch, base_epoch, base_upto }) => ({
    epoch: Number(epoch),
    base:
      base_epoch === null || base_upto === null
        ? null
        : { epoch: Number(base_epoch), lsn: parseLsn(base_upto) },
  }));
}

/**
 * The server on which the node last led, if it is not this one or has another timeline: LSNs of
 * that epoch are comparable only there. Null too for a node that never led.
 */
export async function ledElsewhere(
  client: Client,
  node: string,
  server: ServerIdentity,
): Promise<ServerIdentity | null> {
  const { rows } = await client.query<{ system_id: string; timeline: string }>(
    'SELECT system_id, timeline FROM understudy.epochs WHERE leader = $1 ORDER BY epoch DESC ' +
      'LIMIT 1',
    [node],
  );
  const [row] = rows;
  if (row === undefined) return null;
  const led = { systemId: row.system_id, timeline: Number(row.timeline) };
  return led.systemId === server.systemId && led.timeline === server.timeline ? null : led;
}
