/**
 * Builds a node from the log alone, until it goes on as every follower does. Flows in: a node with
 * the state of its bootstrap; flows out: filled tables, a position and a horizon. What has to begin
 * again begins again here: the tables are emptied and a new look is taken, in one transaction, so
 * that a kill leaves one or the other.
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
import { surveyTopic } from '../../follower/bootstrap/topic-survey.ts';
import {
  type BootstrapState,
  endBootstrap,
  readBootstrap,
  shareRead,
} from '../../follower/state/bootstrap-state.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { keptFromMs } from '../node/kept-records.ts';
import type { NodeAccess } from '../node/node-access.ts';
import {
  deleteRetentionMs,
  makePublication,
  matchTables,
  refuseNewNodeRows,
  saveLabels,
  saveLook,
} from './new-node.ts';

/** What an agent builds with; the session is the applier's. */
interface Workshop {
  readonly node: NodeAccess;
  readonly client: Client;
  readonly reader: CommittedReader;
}

const progressEveryMs = 10_000;

/** Resolves when the node can follow, which most can at once, or at an abort. */
export async function buildNode(workshop: Workshop, signal: AbortSignal): Promise<void> {
  const { node, client, reader } = workshop;
  const { nowMs, log } = node.cluster.around;
  for (let state = await readBootstrap(client); state !== null && !signal.aborted; ) {
    const position = await readPosition(client);
    if (position !== null && state.horizon !== null) return;
    if (position === null) {
      state = await readRows(workshop, state, signal);
      continue;
    }
    const { decoder } = node;
    if (node.until !== null && state.checkpointAppendMs !== null) {
      await arriveAtPlace(node, client, state.checkpointAppendMs);
    } else await findHorizon({ client, reader, decoder, nowMs }, state);
    log.info({ node: node.name, at: position.at, rows: state.rows }, 'the log is read');
    state = await readBootstrap(client);
  }
}

/**
 * Nothing that was written behind the checkpoint has replaced a row below it: they are all there.
 */
async function arriveAtPlace(
  node: NodeAccess,
  client: Client,
  checkpointAppendMs: number,
): Promise<void> {
  if (isKept(checkpointAppendMs, await keptFromMs(node.control))) {
    await inTransaction(client, () => endBootstrap(client));
    return;
  }
  // Another checkpoint below the place may do, or the place is refused.
  const what = 'reading took longer than the topic keeps what is replaced';
  await startOver(node, client, new BootstrapRestart(what));
}

/** One reading, to its end or to where it has to begin again. */
async function readRows(
  workshop: Workshop,
  state: BootstrapState,
  signal: AbortSignal,
): Promise<BootstrapState | null> {
  const { node, client, reader } = workshop;
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

/** What was built so far is worth nothing. */
export async function startOver(
  node: NodeAccess,
  client: Client,
  { message, isConflict }: BootstrapRestart,
): Promise<void> {
  const { log } = node.cluster.around;
  log.warn({ node: node.name, reason: message }, 'building this node starts over');
  const before = await readBootstrap(client);
  const conflicts = isConflict ? (before?.conflicts ?? 0) + 1 : 0;
  await beginAnew(node, client, { conflicts, isRebuild: before?.isRebuild ?? false });
}

/**
 * Empties the tables, and begins with a new look at the log. Indexes, constraints and triggers stay
 * as they are, and so does what of the schema is still to be built.
 */
export async function beginAnew(
  node: NodeAccess,
  client: Client,
  state: Pick<BootstrapState, 'conflicts' | 'isRebuild'>,
): Promise<void> {
  const { cluster, control, reader, decoder, identity, name } = node;
  const look = await surveyTopic({
    reader,
    decoder,
    streamId: identity.streamId,
    deleteRetentionMs: () => deleteRetentionMs(cluster),
    nowMs: cluster.around.nowMs,
    until: node.until,
    keptFromMs: () => keptFromMs(control),
  });
  const tables = await matchTables(client, cluster, look);
  const targets = await ApplyTargets.open(client);
  const relationIds = (await loadKnownRelations(client)).flatMap(({ shape, tableOid }) => {
    return tableOid === null || shape.dropped || targets.get(shape.id).partitioned
      ? []
      : [shape.id];
  });
  const empty = relationIds.length === 0 ? [] : [{ kind: 'truncate', relationIds } as const];
  await new Applier(client, targets, decoder).applyAnd(
    () => empty,
    async () => {
      await client.query('DELETE FROM understudy.position');
      await targets.resnapshots.abandon();
      await client.query('DELETE FROM understudy.epochs');
      await client.query('DELETE FROM understudy.rebuild');
      await saveLabels(client, control.state);
      // One that came to the stream later may hold rows of its own.
      await refuseNewNodeRows(client, name, tables);
      // A table may have come since the first look, whose record lies below the checkpoint now.
      await makePublication(client, cluster, tables);
      await saveLook(client, { ...look, state: { ...look.state, ...state } }, tables);
    },
    () => false,
  );
}

/** Says now and then how far the reading is. */
function progressLog(
  { cluster, name }: NodeAccess,
  first: BootstrapState,
): (state: BootstrapState) => void {
  const { log, nowMs } = cluster.around;
  const sinceMs = nowMs();
  const before = shareRead(first);
  let saidMs = sinceMs;
  return (state) => {
    const now = nowMs();
    if (now - saidMs < progressEveryMs) return;
    saidMs = now;
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
