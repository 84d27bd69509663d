/**
 * What a follower's database says of its being built anew. Flows in: why and how, and how far
 * another database beside it is; flows out: the same for the next start of the agent, for `status`
 * and for whoever would take the node for an exact one. The database that takes the place of
 * another says which one that was, until it is dropped.
 */
import type { Client } from 'pg';
import { readBootstrap } from './bootstrap-state.ts';

/** In a database beside this one, which then takes its name; or in its own tables. */
export type RebuildWay = 'swap' | 'in-place';

/** How far the database beside is, as it last was. */
export interface RebuildProgress {
  readonly phase: 'reading' | 'following' | 'schema' | 'swap';
  readonly percent: number;
  readonly rows: number;
}

export interface PendingRebuild {
  readonly way: RebuildWay;
  readonly reason: string;
  /** The OID of the database beside this one, once it is made. */
  readonly beside: string | null;
  readonly progress: RebuildProgress | null;
}

type MaybeTexts = Record<'beside' | 'progress', string | null>;

/** Null where nothing is to be built anew. */
export async function readPendingRebuild(client: Client): Promise<PendingRebuild | null> {
  const { rows } = await client.query<Record<'way' | 'reason', string> & MaybeTexts>(
    `SELECT way, reason, beside, progress::text AS progress
     FROM understudy.rebuild WHERE replaces IS NULL`,
  );
  const [row] = rows;
  if (row === undefined) return null;
  const { reason, beside } = row;
  const progress = row.progress === null ? null : (JSON.parse(row.progress) as RebuildProgress);
  return { way: row.way === 'swap' ? 'swap' : 'in-place', reason, beside, progress };
}

/** Whether the node is not to be taken for one at its place: anew, or for the first time. */
export async function isBeingBuilt(client: Client): Promise<boolean> {
  return (await readPendingRebuild(client)) !== null || (await readBootstrap(client)) !== null;
}

/** From then on the node is not followed with: another way takes the place of the first. */
export async function savePendingRebuild(
  client: Client,
  way: RebuildWay,
  reason: string,
): Promise<void> {
  await client.query(
    `INSERT INTO understudy.rebuild (way, reason) VALUES ($1, $2)
     ON CONFLICT (only_row) DO UPDATE SET way = excluded.way, reason = excluded.reason,
       progress = NULL, replaces = NULL`,
    [way, reason],
  );
}

/** Before it is used: what is to be dropped one day is known by its OID. */
export async function saveBesideDatabase(client: Client, oid: string): Promise<void> {
  await client.query('UPDATE understudy.rebuild SET beside = $1', [oid]);
}

export async function saveRebuildProgress(
  client: Client,
  progress: RebuildProgress,
): Promise<void> {
  await client.query('UPDATE understudy.rebuild SET progress = $1', [JSON.stringify(progress)]);
}

/** In a database that is about to take the place of another; inside the caller's transaction. */
export async function saveReplacement(client: Client, replacedOid: string): Promise<void> {
  await client.query(
    `INSERT INTO understudy.rebuild (way, reason, replaces) VALUES ('swap', 'it is built', $1)
     ON CONFLICT (only_row) DO UPDATE SET replaces = excluded.replaces`,
    [replacedOid],
  );
}

/** The OID of the database whose place this one has taken; null once it is dropped. */
export async function readReplacedDatabase(client: Client): Promise<string | null> {
  const { rows } = await client.query<{ oid: string }>(
    'SELECT replaces AS oid FROM understudy.rebuild WHERE replaces IS NOT NULL',
  );
  return rows[0]?.oid ?? null;
}

/** The names of databases that this one knows of because of a rebuild, and that are still there. */
export async function readLeftoverDatabases(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT d.datname AS name FROM understudy.rebuild r
     JOIN pg_catalog.pg_database d ON d.oid IN (r.beside, r.replaces) ORDER BY name`,
  );
  return rows.map(({ name }) => name);
}

export async function deleteReplacement(client: Client): Promise<void> {
  await client.query('DELETE FROM understudy.rebuild WHERE replaces IS NOT NULL');
}
