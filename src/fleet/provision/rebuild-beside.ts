/**
 * Rebuilds a follower in a second database of its server, from the topic alone, as any new node is
 * built. Once that one is exact and has its whole schema, it takes the name of the first. Until
 * then readers are served by the first, whose position does not move. After a kill at any step the
 * next start continues.
 */
import { databaseOfUrl, inTransaction } from '../../catalog/postgres-session.ts';
import { type NodeIdentity, readNode } from '../../catalog/understudy-schema.ts';
import { compareEpochLsn, type EpochLsn } from '../../change/position.ts';
import { foreignBeside } from '../../errors/prerequisite.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import { BootstrapRestart } from '../../follower/bootstrap/bootstrap-restart.ts';
import { openBuild } from '../../follower/schema/schema-build.ts';
import { readBootstrap, shareRead } from '../../follower/state/bootstrap-state.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import {
  type RebuildProgress,
  saveBesideDatabase,
  saveRebuildProgress,
  saveReplacement,
} from '../../follower/state/rebuild-state.ts';
import { closeTimeoutMs, Releasers } from '../../lifecycle.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import { sleepOrAbort } from '../../waiting.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { takeLock } from '../node/node-lock.ts';
import type { RequestDesk } from '../node/request-desk.ts';
import { besideName, copyProperties, createBeside, openMaintenance } from './beside-database.ts';
import { startOver } from './building.ts';
import type { FollowerAtWork } from './following.ts';
import { type FollowerEvents, whileFollowing } from './following.ts';
import { prepareNewNode } from './new-node.ts';
import { swapDatabases } from './swap-databases.ts';

export interface RebuildWork {
  readonly releasers: Releasers;
  readonly events: FollowerEvents;
  readonly desk: RequestDesk;
}

const lookMs = 500;
const noteEveryMs = 1_000;

/** Resolves once the databases are swapped, at an abort, or where the build starts over. */
export async function rebuildBeside(
  node: NodeAccess,
  { releasers, events }: RebuildWork,
  signal: AbortSignal,
): Promise<void> {
  const { cluster, name } = node;
  const own = new Releasers(closeTimeoutMs);
  releasers.push('the database beside', async () => {
    await own.close();
  });
  const maintenance = await openMaintenance(cluster, releasers, name);
  const beside = await openBeside(node, maintenance, own);
  const noting = new AbortController();
  const noted = keepNoting(node, beside, noting.signal);
  noted.catch(() => noting.abort());
  let isBuilt: boolean | null;
  try {
    isBuilt = await whileFollowing(beside, own, events, signal, (following) => {
      return becomesWhole(node, beside, following, AbortSignal.any([signal, noting.signal]));
    });
  } catch (error) {
    const reason = startOverBeside(error);
    if (reason === null) throw error;
    await startOver(beside, beside.client, reason);
    return;
  } finally {
    noting.abort();
    await Promise.allSettled([noted]);
  }
  await noted;
  if (isBuilt !== true || signal.aborted) return;
  await saveRebuildProgress(node.client, { phase: 'swap', percent: 100, rows: 0 });
  await swapIn(node, beside, maintenance, releasers, own);
}

type Maintenance = Awaited<ReturnType<typeof openMaintenance>>;

/** Created and prepared, or as an earlier start has left it. */
async function openBeside(
  node: NodeAccess,
  maintenance: Maintenance,
  own: Releasers,
): Promise<NodeAccess> {
  const { cluster, name, control, client } = node;
  const besideOf = besideName(databaseOfUrl(node.url), 'rebuild');
  const { log } = cluster.around;
  log.info({ node: name, database: besideOf }, 'building a second database beside the old one');
  const oid = await createBeside(maintenance, databaseOfUrl(node.url), besideOf);
  await hit('rebuild.after-create');
  await saveBesideDatabase(client, oid);
  await copyProperties(maintenance, databaseOfUrl(node.url), besideOf);
  const other = cluster.withDatabase(name, besideOf);
  const session = await other.openSession(own, name, 'rebuild');
  const known = await readNode(session);
  if (known !== null && known.streamId !== node.identity.streamId)
    throw foreignBeside(name, besideOf);
  const database = { cluster: other, name, client: session, control, known, releasers: own };
  await prepareNewNode(database, { needsSchema: true });
  await hit('rebuild.after-prepare');
  const identity: NodeIdentity = { ...node.identity, ...(await readNode(session)) };
  const url = other.settings.nodeUrl(name);
  return { ...node, cluster: other, client: session, url, identity };
}

/** A second database that became stale itself has no readers: it can start over. */
function startOverBeside(error: unknown): BootstrapRestart | null {
  if (error instanceof BootstrapRestart) return error;
  const isStale = hasCode(error, 'STALE');
  return isStale ? new BootstrapRestart(error.message) : null;
}

/** Whether the database is exact, has its whole schema, and is no older than the one before. */
async function becomesWhole(
  node: NodeAccess,
  beside: NodeAccess,
  { follower, ended }: FollowerAtWork,
  signal: AbortSignal,
): Promise<boolean> {
  const over = ended.then(() => 'over' as const);
  // It is awaited only while this waits.
  over.catch(() => undefined);
  const until = async (reached: () => Promise<boolean>): Promise<boolean> => {
    while (!signal.aborted) {
      if (await reached()) return true;
      const waited = await Promise.race([over, sleepOrAbort(lookMs, signal)]);
      if (waited === 'over') return false;
    }
    return false;
  };
  const isWhole = async (): Promise<boolean> => {
    if (!follower.exact || follower.position.unfinished.length > 0) return false;
    return (await openBuild(beside.client)) === null;
  };
  if (!(await until(isWhole))) return false;
  // Without statistics the first queries of readers would get bad plans.
  await beside.client.query('ANALYZE');
  const target = await targetOf(node);
  return until(async () => compareEpochLsn(follower.position.at, target) >= 0);
}

/** The end of the log now; a delayed node need not get further than it was. */
async function targetOf({ cluster, name, client, reader, decoder }: NodeAccess) {
  const reached = (await readPosition(client))?.at ?? { epoch: 0, lsn: 0n as EpochLsn['lsn'] };
  const { checkpoint } = await readLogEnd(reader, decoder, await reader.watermarks());
  const isDelayed = cluster.settings.delayMs(name) > 0;
  if (checkpoint === null) return reached;
  return isDelayed && compareEpochLsn(reached, checkpoint.at) < 0 ? reached : checkpoint.at;
}

/** For `status`, which reads the node's own database. */
async function keepNoting(
  node: NodeAccess,
  beside: NodeAccess,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await saveRebuildProgress(node.client, await progressOf(beside));
    await sleepOrAbort(noteEveryMs, signal);
  }
}

async function progressOf({ client }: NodeAccess): Promise<RebuildProgress> {
  const state = await readBootstrap(client);
  if (state !== null) {
    const percent = Math.floor(shareRead(state) * 100);
    return { phase: state.horizon === null ? 'reading' : 'following', percent, rows: state.rows };
  }
  const open = await openBuild(client);
  if (open === null) return { phase: 'following', percent: 100, rows: 0 };
  return { phase: 'schema', percent: Math.floor((100 * open.done) / open.total), rows: 0 };
}

/**
 * The new database records which one it replaces before it does, and takes over the start number:
 * without it, it would be refused as an older copy. No session of ours is left in either.
 */
async function swapIn(
  node: NodeAccess,
  beside: NodeAccess,
  maintenance: Maintenance,
  releasers: Releasers,
  own: Releasers,
): Promise<void> {
  const { cluster, name, client, identity } = node;
  const database = databaseOfUrl(node.url);
  const built = databaseOfUrl(beside.url);
  const { rows } = await client.query<{ oid: string }>(
    'SELECT oid FROM pg_database WHERE datname = current_database()',
  );
  const replaced = rows[0]?.oid ?? '';
  await inTransaction(beside.client, async () => {
    // rule: start-number-moves-along
    await beside.client.query('UPDATE understudy.node SET start_number = $1', [
      identity.startNumber,
    ]);
    await saveReplacement(beside.client, replaced);
  });
  await own.close();
  await client.end();
  await copyProperties(maintenance, database, built);
  await hit('rebuild.before-swap');
  // The lock names the database: an agent that starts right after the swap has to wait for it.
  await takeLock(maintenance, built, name);
  const ending = await openMaintenance(cluster, releasers, name);
  const old = besideName(database, 'old');
  const swap = { node: name, database, built, old };
  await swapDatabases({ renaming: maintenance, ending }, swap, cluster.around.nowMs);
  cluster.around.log.info({ node: name, database }, 'swapped in the rebuilt database');
  await hit('rebuild.after-swap');
}
