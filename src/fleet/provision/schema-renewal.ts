/**
 * Keeps the schema in the topic what the leader's is: written anew in each epoch by who leads it,
 * and when tables have entered the stream, so that a node that is built from the topic gets them.
 * Flows in: a leader at work and its database; flows out: a record in the next batch. It is read
 * from a snapshot and covers the place of the WAL before it. What fails is told and tried again;
 * the record of before stays, and the stream goes on.
 */
import type { Client } from 'pg';
import { dumpSchema } from '../../catalog/dump/schema-dump.ts';
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { loadKnownRelations } from '../../catalog/known-relations.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { readServer } from '../../catalog/read-catalog.ts';
import type { RelationId } from '../../change/change.ts';
import { parseLsn } from '../../change/lsn.ts';
import { type EpochLsn, formatEpochLsn, parseEpochLsn } from '../../change/position.ts';
import type { Leading } from '../../leader/leader.ts';
import { closeTimeoutMs, Releasers } from '../../lifecycle.ts';
import { type SchemaPart, schemaParts } from '../../topic/records/schema-record.ts';
import { sleepOrAbort, unlessAborted } from '../../waiting.ts';
import type { NodeAccess } from '../node/node-access.ts';

const lookEveryMs = 2_000;
/** A dump locks every table for moments and reads the whole catalog. */
const pauseMs = 2 * 60_000;

/** Until `signal` aborts. */
export async function keepSchemaNew(
  node: NodeAccess,
  leading: Pick<Leading, 'publishBeside'>,
  epoch: number,
  signal: AbortSignal,
): Promise<void> {
  const { cluster, name, client } = node;
  const { log } = cluster.around;
  const pgDump = cluster.settings.pgDump();
  if (pgDump === null) return;
  while (!signal.aborted) {
    let isNew = true;
    try {
      const before = await readRemembered(client);
      isNew = before?.epoch === epoch && !(await hasOthers(client, before.relations));
      const at = isNew ? null : await renew({ ...node, pgDump, epoch, before }, leading, signal);
      if (at !== null) {
        log.info({ node: name, at: formatEpochLsn(at) }, 'the schema in the topic is new');
      }
    } catch (error) {
      if (signal.aborted) return;
      log.warn({ node: name, error }, 'the schema in the topic stays as it was');
    }
    await sleepOrAbort(isNew ? lookEveryMs : pauseMs, signal);
  }
}

interface Renewal extends NodeAccess {
  readonly pgDump: string;
  readonly epoch: number;
  readonly before: Remembered | null;
}

/** What the new record covers; null after an abort. */
async function renew(
  renewal: Renewal,
  { publishBeside }: Pick<Leading, 'publishBeside'>,
  signal: AbortSignal,
): Promise<EpochLsn | null> {
  const { cluster, name, identity, encoder, before } = renewal;
  const releasers = new Releasers(closeTimeoutMs);
  try {
    const client = await cluster.openSession(releasers, name, 'schema');
    const { schema, at } = await readSchema(renewal, client);
    const parts = schemaParts({ streamId: identity.streamId, at, schema });
    const timeMicros = BigInt(cluster.around.nowMs()) * 1000n;
    const records = await encoder.encodeSchema(parts, before?.parts ?? [], timeMicros);
    if (signal.aborted) return null;
    const published = publishBeside(records);
    // A point follows whatever moves the WAL, also on a leader that nobody writes to.
    await inTransaction(client, () =>
      client.query(`SELECT pg_catalog.pg_logical_emit_message(true, 'understudy.schema', '')`),
    );
    await unlessAborted(published, signal);
    if (signal.aborted) return null;
    await inTransaction(client, () => rememberSchema(client, at, schema, parts));
    return at;
  } finally {
    await releasers.close();
  }
}

/** As of a snapshot. */
async function readSchema(
  { cluster, name, pgDump, epoch }: Renewal,
  client: Client,
): Promise<{ readonly schema: SchemaPayload; readonly at: EpochLsn }> {
  const { version: serverVersion } = await readServer(client);
  // Before the snapshot: a place that it covers.
  const { rows } = await client.query<{ lsn: string }>(
    'SELECT pg_catalog.pg_current_wal_insert_lsn() AS lsn',
  );
  const at = { epoch, lsn: parseLsn(rows[0]?.lsn ?? '') };
  const schema = await inTransaction(
    client,
    async () => {
      const exported = await client.query<{ snapshot: string }>(
        'SELECT pg_catalog.pg_export_snapshot() AS snapshot',
      );
      const snapshot = exported.rows[0]?.snapshot ?? '';
      const known = await loadKnownRelations(client);
      const relations = known.map(({ shape }) => shape).filter(({ dropped }) => !dropped);
      const url = cluster.settings.nodeUrl(name);
      const dump = await dumpSchema({ pgDump, url, node: name, snapshot, serverVersion });
      return { ...dump, relations };
    },
    'REPEATABLE READ',
  );
  return { schema, at };
}

interface Remembered {
  readonly epoch: number;
  readonly relations: readonly RelationId[];
  /** Without what they hold: their keys are to be buried. */
  readonly parts: readonly SchemaPart[];
}

type PartRow = Pick<SchemaPart, 'streamId' | 'part' | 'parts' | 'encoding'> & { at: string };

async function readRemembered(client: Client): Promise<Remembered | null> {
  const { rows } = await client.query<{ epoch: string; relations: string; parts: string }>(
    `SELECT epoch, pg_catalog.to_json(relations) AS relations, parts
     FROM understudy.schema_record`,
  );
  const [row] = rows;
  if (row === undefined) return null;
  const parts = (JSON.parse(row.parts) as PartRow[]).flatMap(({ at: text, ...part }) => {
    const at = parseEpochLsn(text);
    return at === null ? [] : [{ ...part, at, digest: '', bytes: Buffer.alloc(0) }];
  });
  return { epoch: Number(row.epoch), relations: JSON.parse(row.relations), parts };
}

/** The record that the topic has now, for the next to take its place; in a transaction. */
export async function rememberSchema(
  client: Client,
  at: EpochLsn,
  { relations }: SchemaPayload,
  parts: readonly SchemaPart[],
): Promise<void> {
  const kept = parts.map(({ streamId, part, parts: total, encoding }): PartRow => {
    return { streamId, at: formatEpochLsn(at), part, parts: total, encoding };
  });
  await client.query(
    `INSERT INTO understudy.schema_record (epoch, relations, parts) VALUES ($1, $2, $3)
     ON CONFLICT (only_row) DO UPDATE SET
       epoch = excluded.epoch, relations = excluded.relations, parts = excluded.parts`,
    [at.epoch, relations.map(({ id }) => id), JSON.stringify(kept)],
  );
}

async function hasOthers(client: Client, relations: readonly RelationId[]): Promise<boolean> {
  const { rows } = await client.query<{ others: string }>(
    `SELECT count(*) FILTER (WHERE relation_id <> ALL ($1)) > 0 OR count(*) <> cardinality($1)
       AS others
     FROM understudy.relations WHERE NOT dropped`,
    [relations],
  );
  return rows[0]?.others === 't';
}
