/**
 * Rebuilds a follower that is too late for the log, or that an operator no longer trusts: in its
 * own tables, or in a second database that takes its name once it is exact and has its whole
 * schema, and leaves the old one to its readers until then. It writes a mark by which every later
 * start continues, and ends with a node like any other.
 */
import { databaseOfUrl } from '../../catalog/postgres-session.ts';
import { formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import { notExact } from '../../errors/follower.ts';
import { notBuilt } from '../../errors/ownership.ts';
import { rebuildFromDamage } from '../../errors/prerequisite.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import { readBootstrap } from '../../follower/state/bootstrap-state.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import {
  deleteReplacement,
  type PendingRebuild,
  type RebuildWay,
  readPendingRebuild,
  readReplacedDatabase,
  savePendingRebuild,
} from '../../follower/state/rebuild-state.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { type AgentRequest, wayOf } from '../node/requests.ts';
import { besideName, dropDatabaseOf, requireRoomBeside } from './beside-database.ts';
import { restartBuild } from './building.ts';
import { type RebuildWork, rebuildBeside } from './rebuild-beside.ts';

/** The JSON of `rebuild`. */
export interface RebuildResult {
  readonly node: string;
  readonly way: RebuildWay;
  /** The position of its rows until then; null where they have none. */
  readonly lsn: string | null;
  /** The second database, which takes the name of the node's; null in place. */
  readonly database: string | null;
}

/** Whether the error that ended a follower is cured by a rebuild. */
export function mayRebuild({ control, cluster, name }: NodeAccess, error: unknown): boolean {
  if (!hasCode(error, 'STALE')) return false;
  // A node that has claimed the lead meanwhile continues with that, or fails.
  if (ownerOf(control.state)?.node === name) return false;
  return cluster.settings.rebuild !== 'manual';
}

/** Begins the rebuild of a follower that stopped as stale. */
export async function rebuildStale(node: NodeAccess, error: unknown): Promise<void> {
  const { rebuild } = node.cluster.settings;
  const reason = error instanceof Error ? error.message : String(error);
  node.cluster.around.log.warn({ node: node.name, reason }, 'this node is stale');
  if (rebuild !== 'manual') await beginRebuild(node, rebuild, reason);
}

/** A refusal changes nothing. A repeated request gets the same answer. */
export async function beginRebuild(
  node: NodeAccess,
  way: RebuildWay,
  reason: string,
): Promise<RebuildResult> {
  const { client, name, control, cluster } = node;
  const known = await readPendingRebuild(client);
  if (known?.way !== way) {
    const [damage] = control.state.openDamage.values();
    if (damage !== undefined) throw rebuildFromDamage(name, damage.reason);
    if (way === 'swap') {
      // A node whose tables are emptied already has no rows for readers.
      if (known !== null || (await readBootstrap(client)) !== null) throw notBuilt(name);
      await requireRoomBeside(node);
    }
    await savePendingRebuild(client, way, reason);
    cluster.around.log.warn({ node: name, way, reason }, 'rebuilding this node from the log');
    await hit('rebuild.after-mark');
  }
  const position = await readPosition(client);
  return {
    node: name,
    way,
    lsn: position === null ? null : formatEpochLsn(position.at),
    database: way === 'swap' ? besideName(databaseOfUrl(node.url), 'rebuild') : null,
  };
}

/** Called at every start until the rebuild is done. */
export async function continueRebuild(
  node: NodeAccess,
  mark: PendingRebuild,
  work: RebuildWork,
  signal: AbortSignal,
): Promise<void> {
  if (mark.way === 'in-place') {
    // The rebuild was begun the other way before.
    if (mark.beside !== null) await dropDatabaseOf(node.cluster, node.name, mark.beside);
    await restartBuild(node, node.client, { conflicts: 0, isRebuild: true });
    return;
  }
  const over = new AbortController();
  const all = AbortSignal.any([signal, over.signal]);
  const reply = async (request: AgentRequest): Promise<Record<string, unknown>> => {
    if (request.verb === 'failover') throw notBuilt(node.name);
    if (request.verb !== 'rebuild') throw notExact(node.name);
    const result = await beginRebuild(node, wayOf(request), 'it was asked for');
    if (result.way !== mark.way) over.abort();
    return { ...result };
  };
  const serving = work.desk.serveBusy(reply, all);
  // An answer that cannot be written ends the attempt, as everywhere.
  const failed = serving.catch((error: unknown) => {
    over.abort();
    throw error;
  });
  // Awaited below; until then `over` ends the rebuild.
  failed.catch(() => undefined);
  try {
    await rebuildBeside(node, work, all);
  } finally {
    over.abort();
    await Promise.allSettled([failed]);
  }
  await failed;
}

/** Drops the database that this one has replaced. Sessions in it do not delay the node. */
export async function dropReplaced({ client, cluster, name }: NodeAccess): Promise<void> {
  const oid = await readReplacedDatabase(client);
  if (oid === null) return;
  const { log } = cluster.around;
  try {
    const dropped = await dropDatabaseOf(cluster, name, oid);
    await hit('rebuild.after-drop');
    await deleteReplacement(client);
    if (dropped !== null) log.info({ node: name, database: dropped }, 'dropped the old database');
  } catch (error) {
    log.warn({ node: name, error }, 'the old database is dropped at the next start');
  }
}
