/**
 * Makes a follower of a database that never was one, while the stream is under way. Flows in: a
 * configured node, the control log and the topic; flows out: the `understudy` schema, the guard,
 * the publication and the relations, and the state that its reading begins with; where it has none
 * of the stream's tables, these too, as the topic's schema has them. Everything that can be refused
 * is refused before anything is made; a database that holds rows is none of ours.
 */
import type { Client } from 'pg';
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { saveRelation } from '../../catalog/known-relations.ts';
import { inTransaction, qualifiedName } from '../../catalog/postgres-session.ts';
import { createPublication, dropPublication } from '../../catalog/publication.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import { compareWithTable, newShape } from '../../catalog/relation-ids.ts';
import { displayName, type TableShape } from '../../catalog/table.ts';
import { installUnderstudySchema, type NodeIdentity } from '../../catalog/understudy-schema.ts';
import type { RelationShape } from '../../change/change.ts';
import { formatLsn } from '../../change/lsn.ts';
import type { EpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlState } from '../../control/control-state.ts';
import { notInitialised } from '../../errors/cluster.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { type BootstrapStart, surveyTopic } from '../../follower/bootstrap/topic-survey.ts';
import { buildFromSchema } from '../../follower/schema/schema-build.ts';
import { readBootstrap, saveBootstrap } from '../../follower/state/bootstrap-state.ts';
import { readPosition, saveEpoch } from '../../follower/state/follower-state.ts';
import { armGuard } from '../../follower/write-guard.ts';
import { describeTopic } from '../../topic/kafka/admin.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import { publicationName } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import { keptFromMs } from '../node/kept-records.ts';
import type { NodeDatabase } from '../node/node-access.ts';
import { byHand } from '../status/building-text.ts';
import { withRows } from './initial-tables.ts';
import { schemaBuildOptions } from './schema-finish.ts';

/** A relation of the stream, and the table of this node that is to hold its rows. */
interface MatchedTable {
  readonly shape: RelationShape;
  /** null for a relation that was dropped. */
  readonly table: TableShape | null;
}

interface NewNodeOptions {
  /** Whether its tables can only come from the topic. */
  readonly needsSchema?: boolean;
  /** Where it is to stand; null for the end of the log. */
  readonly until?: EpochLsn | null;
}

/** Does nothing where the node is prepared; repeats the preparation where that was interrupted. */
export async function prepareNewNode(
  { cluster, name, client, control, known, releasers }: NodeDatabase,
  { needsSchema = false, until = null }: NewNodeOptions,
): Promise<void> {
  if (!(await isUnprepared(client, known))) return;
  const { state } = control;
  const { stream, current } = state;
  if (stream === null || current === null) throw notInitialised(cluster.name);
  refuseOwner(name, ownerOf(state)?.node ?? null);
  const { streamId, partitions } = stream;
  const reader = cluster.openReader(releasers, partitions);
  const look = await surveyTopic({
    reader,
    decoder: new RecordDecoder(cluster.registry),
    streamId,
    deleteRetentionMs: () => deleteRetentionMs(cluster),
    nowMs: cluster.around.nowMs,
    until,
    keptFromMs: () => keptFromMs(control),
  });
  if (look.schema === null && needsSchema) throw withoutSchema(name);
  const isEmpty = await hasNone(client, look.relations);
  if (look.schema === null || !isEmpty) {
    await refuseNewNodeRows(client, name, await matchTables(client, cluster, look));
  }
  await installUnderstudySchema(client, {
    cluster: cluster.name,
    name,
    streamId,
    role: 'follower',
    epoch: look.state.checkpoint.at.epoch,
    // A node of this name may have been here before, with another database.
    startNumber: BigInt(state.startNumbers.get(name) ?? 0),
  });
  if (look.schema !== null && isEmpty) await makeTables(cluster, name, client, look.schema);
  const tables = await matchTables(client, cluster, look);
  await armGuard(client);
  // Somebody may have written until now.
  await refuseNewNodeRows(client, name, tables);
  await inTransaction(client, async () => {
    await makePublication(client, cluster, tables);
    await saveLabels(client, state);
    await saveLook(client, look, tables);
  });
  const { checkpoint } = look.state;
  cluster.around.log.info({ node: name, to: checkpoint.at }, 'building this node from the log');
}

/** Never a node, or one whose preparation was interrupted: it has no place to go on from. */
async function isUnprepared(client: Client, known: NodeIdentity | null): Promise<boolean> {
  if (known === null) return true;
  if (known.role === 'leader' || (await readPosition(client)) !== null) return false;
  return (await readBootstrap(client)) === null;
}

async function hasNone(client: Client, relations: readonly RelationShape[]): Promise<boolean> {
  const wanted = new Set(relations.map(({ schema, name }) => qualifiedName(schema, name)));
  const own = await readTables(client, ['*.*']);
  return !own.some(({ schema, name }) => wanted.has(qualifiedName(schema, name)));
}

/** All of them or none; what rows can do without is made once they are exact. */
async function makeTables(
  cluster: Cluster,
  name: string,
  client: Client,
  schema: SchemaPayload,
): Promise<void> {
  const options = { ...schemaBuildOptions(cluster, name), inOpenTransaction: true };
  await inTransaction(client, () => buildFromSchema(client, schema, 'pre-data', options));
}

/** Of points that the node does not meet in the log; inside the caller's transaction. */
export async function saveLabels(client: Client, { labels }: ControlState): Promise<void> {
  for (const { label, at, commitTimeMicros } of labels.values()) {
    await client.query(
      `INSERT INTO understudy.points (label, epoch, upto, commit_time_us)
       VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
      [label, at.epoch, formatLsn(at.lsn), String(commitTimeMicros)],
    );
  }
}

/** What a look has found; inside the caller's transaction. */
export async function saveLook(
  client: Client,
  { epochs, state }: BootstrapStart,
  tables: readonly MatchedTable[],
): Promise<void> {
  for (const begin of epochs) await saveEpoch(client, begin);
  for (const { shape, table } of tables) await saveRelation(client, shape, table);
  await client.query('UPDATE understudy.node SET epoch = $1', [state.checkpoint.at.epoch]);
  await saveBootstrap(client, state);
}

/** The smallest that the topic says now; an unknown one is none at all. */
export async function deleteRetentionMs({ kafka, topic }: Cluster): Promise<number> {
  const described = await describeTopic(kafka, topic);
  return Number(described?.settings['delete.retention.ms'] ?? 0);
}

function withoutSchema(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} cannot be rebuilt beside its database: the topic holds no schema`,
    byHand(node),
  );
}

/** Who owns the epoch and has lost its database has nothing to follow. */
function refuseOwner(name: string, owner: string | null): void {
  if (owner !== name) return;
  throw new UnderstudyError(
    'NOT_INITIALISED',
    `node ${name} leads, and its database belongs to no cluster`,
    'If its database is lost, let another node lead first (understudy failover), then run this ' +
      'again; else correct the URL of the node.',
  );
}

/**
 * Relations of the stream by name. A table that the configuration asks for and that no record of
 * the topic names has never had a row; unless it came after init, it is in the stream.
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
  const name = `${shape.schema}.${shape.name}`;
  const difference =
    table === undefined
      ? 'it is not there'
      : table.persistence === 'permanent'
        ? compareWithTable(shape, table)
        : `it is ${table.persistence}`;
  if (table !== undefined && difference === null) return table;
  throw new UnderstudyError(
    'SCHEMA_DIFFERS',
    `the table ${name} is not as in the stream: ${difference}`,
    'Make the tables of this node as they are on the leader (pg_dump --schema-only), empty, or ' +
      'give it a database without any; then run this again.',
  );
}

/** Rows of a node that is to be built are nobody's. */
export async function refuseNewNodeRows(
  client: Client,
  node: string,
  tables: readonly MatchedTable[],
): Promise<void> {
  const present = tables.flatMap(({ table }) => (table === null ? [] : [table]));
  const [table] = await withRows(client, present);
  if (table === undefined) return;
  throw new UnderstudyError(
    'TABLE_NOT_EMPTY',
    `${displayName(table)} on node ${node} holds rows, and that node is to be built from the log`,
    'A new node gets every row from the topic: give it a database with empty tables, or empty ' +
      'these (TRUNCATE), then run this again.',
  );
}

/** Anew, with every table that is there by now. */
export async function makePublication(
  client: Client,
  cluster: Cluster,
  tables: readonly MatchedTable[],
): Promise<void> {
  const publication = publicationName(cluster.name);
  const present = tables.flatMap(({ table }) => (table === null ? [] : [table]));
  await dropPublication(client, publication);
  await createPublication(client, publication, present);
}
