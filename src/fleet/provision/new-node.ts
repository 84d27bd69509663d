/**
 * Makes a follower of a database that was not a node, while the stream is under way. It takes a
 * configured node, the control log and the topic; it installs the `understudy` schema and the write
 * guard, creates the publication and, where there are none, the tables of the topic's schema, and
 * saves the state with which the node's build begins. Everything that can be refused is refused
 * before anything is created; a database that holds rows is refused too.
 */
import type { Client } from 'pg';
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { inTransaction, qualifiedName } from '../../catalog/postgres-session.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import { installUnderstudySchema, type NodeIdentity } from '../../catalog/understudy-schema.ts';
import type { RelationShape } from '../../change/change.ts';
import type { EpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import { leaderLostDatabase, notInitialised } from '../../errors/cluster.ts';
import { noSchemaForRebuild } from '../../errors/prerequisite.ts';
import { schemaNotRenewed } from '../../errors/row.ts';
import { buildFromSchema } from '../../follower/schema/schema-build.ts';
import { readBootstrap } from '../../follower/state/bootstrap-state.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import { armGuard } from '../../follower/write-guard.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import type { Cluster } from '../cluster.ts';
import { placeOf } from '../node/judge-database.ts';
import type { NodeDatabase } from '../node/node-access.ts';
import {
  matchTables,
  refuseNewNodeRows,
  replacePublication,
  saveBootstrapStart,
  saveLabels,
  surveyLog,
} from './build-start.ts';
import { requireOwnFile } from './own-file.ts';
import { schemaBuildOptions } from './schema-finish.ts';

interface NewNodeOptions {
  /** Whether the topic's schema is the only way to its tables. */
  readonly needsSchema?: boolean;
  /** Where it is to stop; null for the end of the log. */
  readonly until?: EpochLsn | null;
  /** Whether it is built although no other node of the file is of the stream. */
  readonly mayReplace?: boolean;
}

/** Does nothing where the node is prepared; repeats the preparation where that was interrupted. */
export async function prepareNewNode(
  { cluster, name, client, control, known, releasers }: NodeDatabase,
  { needsSchema = false, until = null, mayReplace = false }: NewNodeOptions,
): Promise<void> {
  if (!(await isUnprepared(client, known))) return;
  const { state } = control;
  const { stream, current } = state;
  if (stream === null || current === null) throw notInitialised(cluster.name);
  // Where the leader has lost its database, no node can be built from what it had.
  if (ownerOf(state)?.node === name) {
    throw leaderLostDatabase(name, placeOf(state.starts.get(name) ?? null));
  }
  if (!mayReplace) await requireOwnFile(cluster, name, state);
  const { streamId, partitions } = stream;
  const reader = cluster.openReader(releasers, partitions);
  const decoder = new RecordDecoder(cluster.registry);
  const start = await surveyLog(cluster, control, { reader, decoder, streamId, until });
  if (start.schema === null && needsSchema) throw noSchemaForRebuild(name);
  const isEmpty = await hasNone(client, start.relations);
  if (start.schema !== null && isEmpty) requireRenewed(start.relations, start.schema);
  if (start.schema === null || !isEmpty) {
    await refuseNewNodeRows(client, name, await matchTables(client, cluster, start));
  }
  await installUnderstudySchema(client, {
    cluster: cluster.name,
    name,
    streamId,
    role: 'follower',
    epoch: start.state.checkpoint.at.epoch,
    // A node of this name may have been here before, with another database.
    startNumber: BigInt(state.startNumbers.get(name) ?? 0),
  });
  if (start.schema !== null && isEmpty) await createTables(cluster, name, client, start.schema);
  const tables = await matchTables(client, cluster, start);
  await armGuard(client);
  // Until now clients could write to them.
  await refuseNewNodeRows(client, name, tables);
  await inTransaction(client, async () => {
    await replacePublication(client, cluster, tables);
    await saveLabels(client, state);
    await saveBootstrapStart(client, start, tables);
  });
  const { checkpoint } = start.state;
  cluster.around.log.info({ node: name, to: checkpoint.at }, 'building this node from the log');
}

/** It was never a node, or its preparation was interrupted: it has no position and no build. */
async function isUnprepared(client: Client, known: NodeIdentity | null): Promise<boolean> {
  if (known === null) return true;
  if (known.role === 'leader' || (await readPosition(client)) !== null) return false;
  return (await readBootstrap(client)) === null;
}

/** Tables of a former shape could not hold the rows of the present one. */
function requireRenewed(relations: readonly RelationShape[], schema: SchemaPayload): void {
  const written = new Set(schema.relations.map(({ id }) => id));
  const missing = relations.find(({ id, dropped }) => !dropped && !written.has(id));
  if (missing !== undefined) throw schemaNotRenewed(missing.id);
}

async function hasNone(client: Client, relations: readonly RelationShape[]): Promise<boolean> {
  const wanted = new Set(relations.map(({ schema, name }) => qualifiedName(schema, name)));
  const own = await readTables(client, ['*.*']);
  return !own.some(({ schema, name }) => wanted.has(qualifiedName(schema, name)));
}

/** All of them or none; the post-data section is built once the rows are exact. */
async function createTables(
  cluster: Cluster,
  name: string,
  client: Client,
  schema: SchemaPayload,
): Promise<void> {
  const options = { ...schemaBuildOptions(cluster, name), inOpenTransaction: true };
  await inTransaction(client, () => buildFromSchema(client, schema, 'pre-data', options));
}
