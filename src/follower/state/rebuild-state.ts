/**
 * The pending rebuild of a follower, kept in its database: why and how, and the progress of the
 * database beside it. The next start of the agent continues by it, `status` shows it, and a
 * promotion refuses the node. The database that replaces another records which one, until that one
 * is dropped.
 */
import type { Client } from 'pg';
import { readBootstrap } from './bootstrap-state.ts';

/** In a database beside this one, which then gets its name; or in its own tables. */
export type RebuildWay = 'swap' | 'in-place';

/** The last known progress of the database beside this one. */
export interface RebuildProgress {
  readonly phase: 'reading' | 'following' | 'schema' | 'swap';
  readonly percent: number;
  readonly rows: number;
}

export interface PendingRebuild {
  readonly way: RebuildWay;
  readonly reason: string;
  /** The OID of the database beside this one, once it is created. */
  readonly beside: string | null;
  readonly progress: RebuildProgress | null;
}

type MaybeTexts = Record<'beside' | 'progress', string | null>;

/** Null where no rebuild is pending. */
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

/** Whether the node is not exact: it is being built, for the first time or again. */
export async function isBeingBuilt(client: Client): Promise<boolean> {
  return (await readPendingRebuild(client)) !== null || (await readBootstrap(client)) !== null;
}

/** From then on the node does not follow; a second call replaces the way of the first. */
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

/** Before it is used: it is dropped by its OID. */
export async function saveBesideDatabase(client: Client, oid: string): Promise<void> {
  await client.query('UPDATE understudy.rebuild SET beside = $1', [oid]);
}

export async function saveRebuildProgress(
  client: Client,
  progress: RebuildProgress,
): Promise<void> {
  await client.query('UPDATE understudy.rebuild SET progress = $1', [JSON.stringify(progress)]);
}

/** In a database that is about to replace another; in the caller's transaction. */
export async function saveReplacement(client: Client, replacedOid: string): Promise<void> {
  await client.query(
    `INSERT INTO understudy.rebuild (way, reason, replaces) VALUES ('swap', 'it is built', $1)
     ON CONFLICT (only_row) DO UPDATE SET replaces = excluded.replaces`,
    [replacedOid],
  );
}

/** The OID of the database that this one has replaced; null once that is dropped. */
export async function readReplacedDatabase(client: Client): Promise<string | null> {
  const { rows } = await client.query<{ oid: string }>(
    'SELECT replaces AS oid FROM understudy.rebuild WHERE replaces IS NOT NULL',
  );
  return rows[0]?.oid ?? null;
}

/** The names of databases that a rebuild has left, and that still exist. */
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
