/**
 * Keeps the schema record of the topic current: its leader writes it in each epoch, and after
 * tables have entered the stream, so that a node that is built from the topic gets them. The schema
 * is read in a snapshot, covers an LSN before that, and goes out with the next batch. A failure is
 * logged and retried; until then the older record stays, and the stream continues.
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

const checkEveryMs = 2_000;
/** Between two dumps: each locks every table briefly and reads the whole catalog. */
const pauseMs = 2 * 60_000;

/** Until `signal` aborts. */
export async function keepSchemaCurrent(
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
    let isCurrent = true;
    try {
      const before = await readRemembered(client);
      isCurrent = before?.epoch === epoch && !(await hasOthers(client, before.relations));
      const at = isCurrent
        ? null
        : await renew({ ...node, pgDump, epoch, before }, leading, signal);
      if (at !== null) {
        log.info({ node: name, at: formatEpochLsn(at) }, 'published the schema');
      }
    } catch (error) {
      if (signal.aborted) return;
      isCurrent = false;
      log.warn(
        { node: name, error },
        'publishing the schema failed: the topic keeps the older one',
      );
    }
    await sleepOrAbort(isCurrent ? checkEveryMs : pauseMs, signal);
  }
}

interface Renewal extends NodeAccess {
  readonly pgDump: string;
  readonly epoch: number;
  readonly before: Remembered | null;
}

/** Gives the LSN that the new record covers; null after an abort. */
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
    // Records of ours move the WAL too: a point follows also on a leader without clients.
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

/** The schema in a snapshot. */
async function readSchema(
  { cluster, name, pgDump, epoch }: Renewal,
  client: Client,
): Promise<{ readonly schema: SchemaPayload; readonly at: EpochLsn }> {
  const { version: serverVersion } = await readServer(client);
  // Before the snapshot: an LSN that it covers.
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
  /** Without their content: only their keys are needed, for the tombstones. */
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

/** Saves which record the topic has now, for the next to replace it; in a transaction. */
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
