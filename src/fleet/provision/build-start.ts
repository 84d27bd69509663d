/**
 * What a build from the log begins with: that of a new node, and one that starts over. It reads the
 * end of the log and what its compaction still guarantees, matches the relations of the stream with
 * the node's tables, refuses rows of its own, and saves the state from which the build continues.
 */
import type { Client } from 'pg';
import { saveRelations } from '../../catalog/known-relations.ts';
import { createPublication, dropPublication } from '../../catalog/publication.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import { compareWithTable, newShape } from '../../catalog/relation-ids.ts';
import { displayName, type TableShape } from '../../catalog/table.ts';
import type { RelationShape } from '../../change/change.ts';
import { formatLsn } from '../../change/lsn.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { ControlState } from '../../control/control-state.ts';
import { tableDiffers } from '../../errors/row.ts';
import { newNodeHoldsRows } from '../../errors/table.ts';
import { keptForMs } from '../../follower/apply/log-fit.ts';
import { type BootstrapStart, surveyTopic } from '../../follower/bootstrap/topic-survey.ts';
import { saveBootstrap } from '../../follower/state/bootstrap-state.ts';
import { saveEpoch } from '../../follower/state/follower-state.ts';
import { saveSequences } from '../../follower/state/sequence-positions.ts';
import { describeTopic } from '../../topic/kafka/admin.ts';
import { publicationName } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import { smallestCompactionLagMs } from '../node/compaction-lag.ts';
import { withRows } from './initial-stream.ts';

/** A relation of the stream, and the table of this node that is to hold its rows. */
interface MatchedTable {
  readonly shape: RelationShape;
  /** null for a relation that was dropped. */
  readonly table: TableShape | null;
}

type SurveyOptions = Pick<
  Parameters<typeof surveyTopic>[0],
  'reader' | 'decoder' | 'streamId' | 'until'
>;

export async function surveyLog(
  cluster: Cluster,
  control: ControlLog,
  options: SurveyOptions,
): Promise<BootstrapStart> {
  return surveyTopic({
    ...options,
    deleteRetentionMs: () => deleteRetentionMs(cluster),
    nowMs: cluster.around.nowMs,
    keptFromMs: () => keptFromMs(cluster, control),
  });
}

/** The smallest that the topic has now; 0 where the brokers do not report one. */
export async function deleteRetentionMs({ kafka, topic }: Cluster): Promise<number> {
  const described = await describeTopic(kafka, topic);
  return Number(described?.settings['delete.retention.ms'] ?? 0);
}

/** By the brokers' clocks, which give the times that compaction goes by. */
export async function brokerNowMs(control: ControlLog): Promise<number> {
  // A broker has just given a time to a record of ours.
  await control.verify();
  // rule: age-by-clock-of-brokers
  return control.newestAppendMs;
}

/**
 * The time from which on compaction has removed no record of the stream. Where it is not known how
 * long the topic keeps every change, there is no such time.
 */
export async function keptFromMs(cluster: Cluster, control: ControlLog): Promise<number> {
  const lagMs = await smallestCompactionLagMs(cluster, control);
  if (lagMs === null) return Number.POSITIVE_INFINITY;
  return (await brokerNowMs(control)) - keptForMs(lagMs);
}

/**
 * The relations of the stream with the node's tables of the same names. A table that the
 * configuration names and that no record of the topic names has never had a row: unless it was
 * created after init, it is in the stream.
 */
export async function matchTables(
  client: Client,
  { settings }: Cluster,
  { relations, schema, uncovered }: BootstrapStart,
): Promise<MatchedTable[]> {
  const own = await readTables(client, ['*.*']);
  const matched = relations.map((shape): MatchedTable => {
    const table = own.find((one) => one.schema === shape.schema && one.name === shape.name);
    return { shape, table: shape.dropped ? null : requireEqual(shape, table) };
  });
  // A schema names every table of the stream, also one that never had a row.
  if (schema !== null) return matched;
  const used = new Set(relations.map(({ id }) => id));
  const taken = new Set(matched.map(({ table }) => table?.oid));
  for (const table of await readTables(client, settings.tables)) {
    const isLeft = taken.has(table.oid) || uncovered.includes(displayName(table));
    if (isLeft || table.persistence !== 'permanent') continue;
    matched.push({ shape: newShape(table, used, settings.keyless), table });
  }
  return matched;
}

function requireEqual(shape: RelationShape, table: TableShape | undefined): TableShape {
  const difference =
    table === undefined
      ? 'it does not exist'
      : table.persistence === 'permanent'
        ? compareWithTable(shape, table)
        : `it is ${table.persistence}`;
  if (table !== undefined && difference === null) return table;
  throw tableDiffers(`${shape.schema}.${shape.name}`, difference ?? '');
}

/** A node that is built gets every row from the log: rows of its own would stay for ever. */
export async function refuseNewNodeRows(
  client: Client,
  node: string,
  tables: readonly MatchedTable[],
): Promise<void> {
  const [table] = await withRows(client, present(tables));
  if (table !== undefined) throw newNodeHoldsRows(node, displayName(table));
}

function present(tables: readonly MatchedTable[]): TableShape[] {
  return tables.flatMap(({ table }) => (table === null ? [] : [table]));
}

/** In place of an earlier one, with every table that exists by now. */
export async function replacePublication(
  client: Client,
  cluster: Cluster,
  tables: readonly MatchedTable[],
): Promise<void> {
  const publication = publicationName(cluster.name);
  await dropPublication(client, publication);
  await createPublication(client, publication, present(tables));
}

/** Named points that the node does not read in the log; inside the caller's transaction. */
export async function saveLabels(client: Client, { labels }: ControlState): Promise<void> {
  for (const { label, at, commitTimeMicros } of labels.values()) {
    await client.query(
      `INSERT INTO understudy.points (label, epoch, upto, commit_time_us)
       VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
      [label, at.epoch, formatLsn(at.lsn), String(commitTimeMicros)],
    );
  }
}

/** The state from which the build continues; inside the caller's transaction. */
export async function saveBootstrapStart(
  client: Client,
  { epochs, state, sequences }: BootstrapStart,
  tables: readonly MatchedTable[],
): Promise<void> {
  for (const begin of epochs) await saveEpoch(client, begin);
  // A relation that has ended gives up its table before another takes it.
  const ordered = [...tables].sort((a, b) => Number(b.shape.dropped) - Number(a.shape.dropped));
  await saveRelations(client, ordered);
  await saveSequences(client, sequences);
  await client.query('UPDATE understudy.node SET epoch = $1', [state.checkpoint.at.epoch]);
  await saveBootstrap(client, state);
}
