/**
 * Builds a follower anew that is too late for the log, or is not trusted. Flows in: a node that
 * follows, and the way: in its own tables, or in a database beside, which takes its name once it is
 * exact and has its whole schema, and until then leaves the old one to its readers. Flows out: the
 * mark by which every later start goes on with it, and in the end a node like any other.
 */
import { databaseOfUrl } from '../../catalog/postgres-session.ts';
import { formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlState } from '../../control/control-state.ts';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
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
import { notBuilt, notExact } from '../status/building-text.ts';
import { besideName, dropDatabaseOf, requireRoomBeside } from './beside-database.ts';
import { beginAnew } from './building.ts';
import { type RebuildWork, rebuildBeside } from './rebuild-beside.ts';

/** The JSON of `rebuild`. */
export interface RebuildResult {
  readonly node: string;
  readonly way: RebuildWay;
  /** Where its rows stand until then; null where they are of no place. */
  readonly lsn: string | null;
  /** The database that is built beside the node's, and takes its name; null in place. */
  readonly database: string | null;
}

/** Whether what ended a follower is answered by building it anew. */
export function mayRebuild({ control, cluster, name }: NodeAccess, error: unknown): boolean {
  if (!hasCode(error, 'STALE')) return false;
  // Who has claimed the lead meanwhile goes on with that, or fails.
  if (ownerOf(control.state)?.node === name) return false;
  return cluster.settings.rebuild !== 'manual';
}

/** Of a follower that stopped as stale. */
export async function rebuildStale(node: NodeAccess, error: unknown): Promise<void> {
  const { rebuild } = node.cluster.settings;
  const reason = error instanceof Error ? error.message : String(error);
  node.cluster.around.log.warn({ node: node.name, reason }, 'this node came back too late');
  if (rebuild !== 'manual') await beginRebuild(node, rebuild, reason);
}

/** A refusal changes nothing. Asked again for the same it answers the same. */
export async function beginRebuild(
  node: NodeAccess,
  way: RebuildWay,
  reason: string,
): Promise<RebuildResult> {
  const { client, name, control, cluster } = node;
  const known = await readPendingRebuild(client);
  if (known?.way !== way) {
    requireSound(name, control.state);
    if (way === 'swap') {
      // Whose tables are emptied already has no rows to show meanwhile.
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

/** What is missing in the topic would be missing in what is built from it. */
function requireSound(node: string, { openDamage }: ControlState): void {
  const [damage] = openDamage.values();
  if (damage === undefined) return;
  throw new UnderstudyError(
    'PREREQUISITE',
    `node ${node} cannot be rebuilt from a topic that is damaged: ${damage.reason}`,
    'Keep the topic for analysis; destroy the cluster and init it again.',
  );
}

/** At every start until it is done. */
export async function goOnRebuilding(
  node: NodeAccess,
  mark: PendingRebuild,
  work: RebuildWork,
  signal: AbortSignal,
): Promise<void> {
  if (mark.way === 'in-place') {
    // Another way was begun before.
    if (mark.beside !== null) await dropDatabaseOf(node.cluster, node.name, mark.beside);
    await beginAnew(node, node.client, { conflicts: 0, isRebuild: true });
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
  // An answer that cannot be given ends the attempt, as everywhere.
  const failed = serving.catch((error: unknown) => {
    over.abort();
    throw error;
  });
  failed.catch(() => undefined);
  try {
    await rebuildBeside(node, work, all);
  } finally {
    over.abort();
    await Promise.allSettled([failed]);
  }
  await failed;
}

/** The database whose place this one has taken; what uses it still does not hold up the node. */
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
    const what = 'the old database is still there: the next start of this agent drops it';
    log.warn({ node: name, error }, what);
  }
}
