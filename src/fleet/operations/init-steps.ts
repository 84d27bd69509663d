/**
 * The steps of `init`, in the order in which it performs them. Each registers how it is undone
 * before it changes anything.
 */
import type { Client } from 'pg';
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { saveRelations } from '../../catalog/known-relations.ts';
import { connectWalsender, inTransaction, qualifiedName } from '../../catalog/postgres-session.ts';
import { createPublication, dropPublication } from '../../catalog/publication.ts';
import { readAllTables, readServer } from '../../catalog/read-catalog.ts';
import type { TableShape } from '../../catalog/table.ts';
import {
  dropUnderstudySchema,
  installUnderstudySchema,
  readNode,
} from '../../catalog/understudy-schema.ts';
import type { EpochBegin, RelationShape, UnfinishedTable } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import type { EpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import { bug } from '../../errors/bug.ts';
import { firstEpochClaimed } from '../../errors/cluster.ts';
import { type BuildOptions, buildPostData } from '../../follower/schema/schema-build.ts';
import { saveEpoch, writePosition } from '../../follower/state/follower-state.ts';
import { armGuard, removeGuard } from '../../follower/write-guard.ts';
import { createExportedSlot, dropSlot } from '../../leader/stream/slot.ts';
import type { Releasers } from '../../lifecycle.ts';
import { RecordEncoder } from '../../topic/records/encoder.ts';
import { formatVersion, publicationName, slotName } from '../../topic/records/layout.ts';
import { someAtATime } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';
import { smallestCompactionLagMs } from '../node/compaction-lag.ts';
import type { NodeSession } from '../node/member-session.ts';
import { lockNode } from '../node/node-lock.ts';
import { readReachedDatabase } from '../node/reached-database.ts';
import { raiseStartNumber } from '../node/start-number.ts';
import { EpochOwner, writeEpochBegin } from '../promotion/own-epoch.ts';
import { giveSchema, initialParts, readInitialSchema } from '../provision/initial-schema.ts';
import { refuseFollowerRows, replaceRows, unfinishedAtFirst } from '../provision/initial-stream.ts';
import { schemaBuildOptions } from '../provision/schema-finish.ts';
import { rememberSchema } from '../provision/schema-renewal.ts';

export interface NewStream {
  readonly cluster: Cluster;
  readonly streamId: string;
  /** The node that leads the first epoch. */
  readonly leader: string;
  readonly replaceRows: boolean;
  readonly releasers: Releasers;
  /** Called with a line for people. */
  readonly onStep: (line: string) => void;
  /** Of a person who wants to stop. */
  readonly signal: AbortSignal;
  /** Registers a step that is run, in reverse order, when a later one fails. */
  readonly undo: (step: () => Promise<unknown>) => void;
}

export interface InitTables {
  readonly published: readonly TableShape[];
  /** By qualified name, with the ids of the stream. */
  readonly shapes: ReadonlyMap<string, RelationShape>;
}

/** The beginning of the stream in the leader's WAL, and the leader's database at that LSN. */
interface StreamStart {
  readonly startLsn: Lsn;
  readonly unfinished: readonly UnfinishedTable[];
  /** Null where tables are created by hand. */
  readonly schema: SchemaPayload | null;
}

/** Creating a slot waits for the open transactions of the whole server. */
const firstSlotTimeoutMs = 60_000;
/** Building a schema is work for a server, and several nodes may be on one. */
const nodesAtATimeMax = 4;
/** A person who waits for a large schema sees that it goes on. */
const progressEveryMs = 3_000;

/** Locks every node, so that no agent runs meanwhile. */
export async function connectNodes(cluster: Cluster, releasers: Releasers): Promise<NodeSession[]> {
  const { settings } = cluster;
  const nodes: NodeSession[] = [];
  for (const name of settings.nodeNames) {
    const lock = await lockNode(settings.nodeUrl(name), settings.maintenanceDatabase, name);
    releasers.push(`the lock of ${name}`, () => lock.release());
    nodes.push({ name, client: await cluster.openSession(releasers, name, 'init') });
  }
  return nodes;
}

export async function installNode(
  { cluster, streamId, leader, undo }: NewStream,
  { name, client }: NodeSession,
): Promise<void> {
  undo(() => dropUnderstudySchema(client));
  undo(() => removeGuard(client));
  await installUnderstudySchema(client, {
    cluster: cluster.name,
    name,
    streamId,
    role: name === leader ? 'leader' : 'follower',
    epoch: 1,
    startNumber: 0n,
  });
}

export async function publishTables(
  { cluster, undo }: NewStream,
  { client }: NodeSession,
  { published, shapes }: InitTables,
): Promise<void> {
  const publication = publicationName(cluster.name);
  undo(() => dropPublication(client, publication));
  const own = new Map(
    (await readAllTables(client)).map((table) => [qualifiedName(table.schema, table.name), table]),
  );
  const relations = [...shapes].map(([name, shape]) => ({ shape, table: own.get(name) ?? null }));
  await inTransaction(client, async () => {
    await saveRelations(client, relations);
    await createPublication(client, publication, published);
  });
}

interface SlotWait {
  /** Ends the creation of the slot. */
  readonly signal: AbortSignal;
  readonly onStep: (line: string) => void;
}

/** The slot exports a snapshot of the leader as it is where the stream begins. */
export async function createFirstSlot(
  { cluster, replaceRows: replaces, undo }: NewStream,
  leader: NodeSession,
  { published, shapes }: InitTables,
  { signal, onStep }: SlotWait,
): Promise<StreamStart> {
  const url = cluster.settings.nodeUrl(leader.name);
  const applicationName = `understudy ${leader.name} init`;
  const walsender = await connectWalsender(url, applicationName, (error) => {
    cluster.around.log.warn({ error }, 'lost the walsender');
  });
  const slot = slotName(cluster.name, 1);
  try {
    undo(() => dropSlot(leader.client, slot));
    const created = await createExportedSlot(walsender, leader.client, slot, {
      timeoutMs: firstSlotTimeoutMs,
      signal,
      onWaiting: (blockers) => onStep(`the slot waits for open transactions: ${blockers}`),
    });
    const { snapshot, consistentPoint: startLsn } = created;
    const readAtStart = async (): Promise<Omit<StreamStart, 'startLsn'>> => {
      await leader.client.query(`SET TRANSACTION SNAPSHOT '${snapshot}'`);
      const unfinished = await unfinishedAtFirst(leader, published, shapes, replaces);
      const schema = await readInitialSchema(cluster, leader, snapshot, shapes);
      // rule: init-names-unfinished-tables
      return { unfinished, schema };
    };
    return { startLsn, ...(await inTransaction(leader.client, readAtStart, 'REPEATABLE READ')) };
  } finally {
    await walsender.end();
  }
}

/** Returns whether the node's tables were created from the leader's schema. */
async function buildFollower(
  stream: NewStream,
  node: NodeSession,
  tables: InitTables,
  { schema, unfinished }: StreamStart,
): Promise<boolean> {
  const { cluster, undo, signal } = stream;
  signal.throwIfAborted();
  await installNode(stream, node);
  if (schema === null) return false;
  const options = schemaBuildOptions(cluster, node.name);
  const onProgress = buildProgress(stream, node.name);
  const given = { ...tables, areEmpty: unfinished.length === 0 };
  const isBuilt = await giveSchema(node, schema, given, { ...options, onProgress });
  // The next init finds these tables on the node: then they have to be complete.
  if (isBuilt) undo(() => buildPostData(node.client, options));
  return isBuilt;
}

/** After each statement: all of them are one transaction, which a signal to stop rolls back. */
function buildProgress(
  { cluster, onStep, signal }: NewStream,
  node: string,
): BuildOptions['onProgress'] {
  const { nowMs } = cluster.around;
  let saidMs = nowMs();
  return ({ phase, done, total }) => {
    signal.throwIfAborted();
    if (nowMs() - saidMs < progressEveryMs) return;
    saidMs = nowMs();
    onStep(`building the schema of node ${node}: ${done} of ${total} statements of the ${phase}`);
  };
}

/**
 * Gives the followers whose tables were created from the leader's schema. All of them are prepared
 * at a time. The guard of a node waits for older transactions of its server: it is armed when no
 * other node there builds its schema in a transaction.
 */
export async function prepareFollowers(
  stream: NewStream,
  nodes: readonly NodeSession[],
  tables: InitTables,
  start: StreamStart,
): Promise<NodeSession[]> {
  const built = new Set<NodeSession>();
  await someAtATime(nodes, nodesAtATimeMax, async (node) => {
    if (await buildFollower(stream, node, tables, start)) built.add(node);
  });
  await someAtATime(nodes, nodesAtATimeMax, (node) => publishTables(stream, node, tables));
  await someAtATime(nodes, nodesAtATimeMax, async (node) => {
    await armGuard(node.client);
    const { published, shapes } = tables;
    const replaces = stream.replaceRows && !built.has(node);
    if (replaces) await replaceRows(node, published, shapes);
    else await refuseFollowerRows(node, published);
  });
  return nodes.filter((node) => built.has(node));
}

/** Returns the position at which all nodes begin. */
export async function beginFirstEpoch(
  { cluster, streamId, releasers }: NewStream,
  nodes: readonly NodeSession[],
  leader: NodeSession,
  { startLsn, unfinished, schema }: StreamStart,
): Promise<EpochLsn> {
  const { settings, around, topic, registry } = cluster;
  const { partitions } = settings;
  const control = await cluster.openControl(releasers, leader.name);
  await control.append({
    kind: 'stream',
    streamId,
    cluster: cluster.name,
    partitions,
    topic: { ...settings.topicOverrides },
    time: new Date(around.nowMs()).toISOString(),
  });
  await smallestCompactionLagMs(cluster, control);
  const reader = cluster.openReader(releasers, partitions);
  const encoder = await RecordEncoder.open({ topic, partitions, registry });
  const server = await readServer(leader.client);
  const begin: EpochBegin = {
    streamId,
    epoch: 1,
    leader: leader.name,
    systemId: server.systemId,
    timeline: server.timeline,
    base: null,
    startLsn,
    slot: slotName(cluster.name, 1),
    keySchemaId: encoder.keySchemaId,
    unfinished,
  };
  const parts = initialParts(begin, schema);
  const timeMicros = BigInt(around.nowMs()) * 1000n;
  const written = parts.length === 0 ? [] : await encoder.encodeSchema(parts, [], timeMicros);
  const nothing = { checkpoint: null, point: null, begin: null, pastCheckpoint: [] };
  const owner = new EpochOwner({
    control,
    node: leader.name,
    around,
    createProducer: () => cluster.createProducer(partitions),
    drain: async () => ({ ...nothing, unhealed: null, unfinished: [] }),
    begin: async (_epoch, _end, producer) => {
      const checkpoint = await writeEpochBegin(producer, reader, encoder, begin, around, written);
      return { checkpoint, unfinished };
    },
    onStep: (step) => around.log.debug({ step }, 'owning epoch 1'),
  });
  const owned = await owner.own(1);
  await owner.close();
  if (owned === null || owned.epoch !== 1) throw firstEpochClaimed(cluster.name);
  const { checkpoint } = owned;
  const position = {
    streamId,
    at: checkpoint.at,
    commitTimeMicros: BigInt(around.nowMs()) * 1000n,
    checkpoint,
    appendMs: checkpoint.nextOffsets.map(() => around.nowMs()),
    unfinished: unfinished.map(({ relation }) => relation),
  };
  for (const { client } of nodes) {
    await inTransaction(client, async () => {
      await saveEpoch(client, begin);
      await writePosition(client, position, formatVersion);
      if (schema !== null) await rememberSchema(client, { epoch: 1, lsn: startLsn }, schema, parts);
    });
    await recordFirstDatabase(control, client);
  }
  return checkpoint.at;
}

/** From then on another database under the node's name is refused. */
async function recordFirstDatabase(control: ControlLog, client: Client): Promise<void> {
  const identity = await readNode(client);
  if (identity === null) throw bug('init has installed the schema on every node');
  const { systemId } = await readServer(client);
  const database = await readReachedDatabase(client, systemId, true);
  await raiseStartNumber(client, control, identity, database);
}
