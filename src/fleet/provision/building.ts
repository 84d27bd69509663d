/**
 * Builds a node from the log alone, until it can follow. It takes a node with the state of its
 * bootstrap, and leaves filled tables, a position and a horizon. A build that has to start over
 * empties the tables and saves a new beginning in one transaction, so that a kill leaves the state
 * before or after it.
 */

import type { Client } from 'pg';
import { loadKnownRelations } from '../../catalog/known-relations.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { readEpochBases } from '../../catalog/understudy-schema.ts';
import { Applier } from '../../follower/apply/applier.ts';
import { ApplyTargets } from '../../follower/apply/apply-targets.ts';
import { Bootstrap, findHorizon } from '../../follower/bootstrap/bootstrap.ts';
import { BootstrapRestart } from '../../follower/bootstrap/bootstrap-restart.ts';
import { isKept } from '../../follower/bootstrap/checkpoint-search.ts';
import {
  type BootstrapState,
  endBootstrap,
  readBootstrap,
  shareRead,
} from '../../follower/state/bootstrap-state.ts';
import { deleteDoubts } from '../../follower/state/doubts.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { progressLogEveryMs } from '../../waiting.ts';
import type { NodeAccess } from '../node/node-access.ts';
import {
  deleteRetentionMs,
  keptFromMs,
  matchTables,
  refuseNewNodeRows,
  replacePublication,
  saveBootstrapStart,
  saveLabels,
  surveyLog,
} from './build-start.ts';

/** The session is the applier's. */
interface BuildParts {
  readonly node: NodeAccess;
  readonly client: Client;
  readonly reader: CommittedReader;
}

/**
 * Resolves when the node can follow, or at an abort. A node that is not being built can at once.
 */
export async function buildNode(parts: BuildParts, signal: AbortSignal): Promise<void> {
  const { node, client, reader } = parts;
  const { nowMs, log } = node.cluster.around;
  for (let state = await readBootstrap(client); state !== null && !signal.aborted; ) {
    const position = await readPosition(client);
    if (position !== null && state.horizon !== null) return;
    if (position === null) {
      state = await readRows(parts, state, signal);
      continue;
    }
    const { decoder } = node;
    if (node.until !== null && state.checkpointAppendMs !== null) {
      await arriveAtStop(node, client, state.checkpointAppendMs);
    } else await findHorizon({ client, reader, decoder, nowMs }, state);
    log.info({ node: node.name, at: position.at, rows: state.rows }, 'the log is read');
    state = await readBootstrap(client);
  }
}

/** The rows are whole where compaction has removed no row below the checkpoint meanwhile. */
async function arriveAtStop(
  node: NodeAccess,
  client: Client,
  checkpointAppendMs: number,
): Promise<void> {
  if (isKept(checkpointAppendMs, await keptFromMs(node.cluster, node.control))) {
    await inTransaction(client, () => endBootstrap(client));
    return;
  }
  // Another checkpoint below the LSN may do, or the LSN is refused.
  const what = 'reading took longer than the topic keeps replaced records';
  await startOver(node, client, new BootstrapRestart(what));
}

/** Reads the log once, to its end or to where the build has to start over. */
async function readRows(
  parts: BuildParts,
  state: BootstrapState,
  signal: AbortSignal,
): Promise<BootstrapState | null> {
  const { node, client, reader } = parts;
  const { cluster, decoder } = node;
  const bootstrap = await Bootstrap.open(
    {
      client,
      reader,
      decoder,
      epochs: await readEpochBases(client),
      deleteRetentionMs: () => deleteRetentionMs(cluster),
      nowMs: cluster.around.nowMs,
      onProgress: progressLog(node, state),
    },
    state,
  );
  const stop = (): void => bootstrap.stop();
  signal.addEventListener('abort', stop);
  try {
    if (!signal.aborted) await bootstrap.run();
  } catch (error) {
    if (!(error instanceof BootstrapRestart)) throw error;
    await startOver(node, client, error);
  } finally {
    signal.removeEventListener('abort', stop);
  }
  return await readBootstrap(client);
}

/** Drops what was built so far. */
export async function startOver(
  node: NodeAccess,
  client: Client,
  { message, isConflict }: BootstrapRestart,
): Promise<void> {
  const { log } = node.cluster.around;
  log.warn({ node: node.name, reason: message }, 'building this node starts over');
  const before = await readBootstrap(client);
  const conflicts = isConflict ? (before?.conflicts ?? 0) + 1 : 0;
  await restartBuild(node, client, { conflicts, isRebuild: before?.isRebuild ?? false });
}

/**
 * Empties the tables, and begins at what the log holds now. Indexes, constraints and triggers stay
 * as they are, and so does the record of which parts of the schema are not built yet.
 */
export async function restartBuild(
  node: NodeAccess,
  client: Client,
  state: Pick<BootstrapState, 'conflicts' | 'isRebuild'>,
): Promise<void> {
  const { cluster, control, reader, decoder, identity, name } = node;
  const { until } = node;
  const { streamId } = identity;
  const start = await surveyLog(cluster, control, { reader, decoder, streamId, until });
  const tables = await matchTables(client, cluster, start);
  const targets = await ApplyTargets.open(client);
  const relationIds = (await loadKnownRelations(client)).flatMap(({ shape, tableOid }) => {
    return tableOid === null || shape.dropped || targets.get(shape.id).partitioned
      ? []
      : [shape.id];
  });
  // rule: rebuild-empties-tables
  const empty = relationIds.length === 0 ? [] : [{ kind: 'truncate', relationIds } as const];
  await new Applier(client, targets, decoder).applyAnd(
    () => empty,
    async () => {
      await client.query('DELETE FROM understudy.position');
      await targets.resnapshots.abandon();
      await client.query('DELETE FROM understudy.epochs');
      await client.query('DELETE FROM understudy.rebuild');
      await deleteDoubts(client);
      await saveLabels(client, control.state);
      // A table that was added to the stream later may hold rows of its own.
      // rule: new-tables-are-empty
      await refuseNewNodeRows(client, name, tables);
      // A table may have been added since the first build began: its record is below the
      // checkpoint now.
      await replacePublication(client, cluster, tables);
      await saveBootstrapStart(client, { ...start, state: { ...start.state, ...state } }, tables);
    },
    () => false,
  );
}

/** Logs at intervals how far the reading is. */
function progressLog(
  { cluster, name }: NodeAccess,
  first: BootstrapState,
): (state: BootstrapState) => void {
  const { log, nowMs } = cluster.around;
  const sinceMs = nowMs();
  const before = shareRead(first);
  let loggedMs = sinceMs;
  return (state) => {
    const now = nowMs();
    if (now - loggedMs < progressLogEveryMs) return;
    loggedMs = now;
    const seconds = (now - sinceMs) / 1_000;
    const share = shareRead(state);
    const done = share - before;
    log.info(
      {
        node: name,
        percent: Math.floor(share * 100),
        rowsPerSecond: Math.round((state.rows - first.rows) / seconds),
        secondsLeft: done > 0 ? Math.ceil((seconds * (1 - share)) / done) : null,
      },
      'reading the log',
    );
  };
}
