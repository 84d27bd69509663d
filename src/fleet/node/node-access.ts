/**
 * What an agent, or a command in its place, holds of a node: its lock, a session, the control log
 * and the node's own record. It takes a cluster and a node's name, and gives a node that is known
 * to be the one that the control log names. A database that was restored from an older copy is
 * refused here, before it can follow or lead.
 */
import type { Client } from 'pg';
import { onLost } from '../../catalog/postgres-session.ts';
import { readServer, type ServerFacts } from '../../catalog/read-catalog.ts';
import { type NodeIdentity, readNode } from '../../catalog/understudy-schema.ts';
import type { EpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { ServedDatabase } from '../../control/control-records.ts';
import { initUnfinished, notInitialised } from '../../errors/cluster.ts';
import { detachedAt } from '../../errors/follower.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import { readDetached } from '../../follower/state/follower-state.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import { RecordEncoder } from '../../topic/records/encoder.ts';
import type { Cluster } from '../cluster.ts';
import { checkStream } from './check-stream.ts';
import { noteCompactionLag } from './compaction-lag.ts';
import { requireAttached, requireMember } from './member-session.ts';
import { lockNode, type NodeLock } from './node-lock.ts';
import { readReachedDatabase, requireServedDatabase } from './reached-database.ts';
import { upgradeSchema } from './schema-upgrade.ts';
import { raiseStartNumber } from './start-number.ts';

export interface NodeAccess {
  readonly cluster: Cluster;
  readonly name: string;
  readonly url: string;
  readonly identity: NodeIdentity;
  readonly server: ServerFacts;
  /** As the control log records it. */
  readonly database: ServedDatabase;
  readonly client: Client;
  readonly control: ControlLog;
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
  readonly encoder: RecordEncoder;
  readonly partitions: number;
  /** Where its follower is to stop; null where it follows for good. */
  readonly until: EpochLsn | null;
  /** Rejects when the lock, the session or the control log is lost for good. */
  readonly lost: Promise<never>;
}

/** A locked database that may not be a node yet. */
export interface NodeDatabase extends Pick<NodeAccess, 'cluster' | 'name' | 'client' | 'control'> {
  /** Null where the `understudy` schema is not installed. */
  readonly known: NodeIdentity | null;
  readonly releasers: Releasers;
}

interface OpenNodeOptions {
  /** Makes a new follower of a database that is none yet; null where such a one is refused. */
  readonly prepare: ((database: NodeDatabase) => Promise<void>) | null;
  /** Whether the database may take the place of the one from which the node was served. */
  readonly mayReplace?: boolean;
  readonly until?: EpochLsn | null;
}

export async function openNode(
  cluster: Cluster,
  name: string,
  releasers: Releasers,
  options: OpenNodeOptions,
): Promise<NodeAccess> {
  const { nodeUrl, maintenanceDatabase } = cluster.settings;
  const lock = await lockNode(nodeUrl(name), maintenanceDatabase, name);
  releasers.push(`the lock of ${name}`, () => lock.release());
  return Promise.race([openLocked(cluster, name, releasers, lock, options), lock.lost]);
}

async function openLocked(
  cluster: Cluster,
  name: string,
  releasers: Releasers,
  lock: NodeLock,
  { prepare, mayReplace = false, until = null }: OpenNodeOptions,
): Promise<NodeAccess> {
  const { settings, registry, topic } = cluster;
  const url = settings.nodeUrl(name);
  const client = await cluster.openSession(releasers, name, 'agent');
  const known = await readNode(client);
  const control = await openControl(cluster, name, releasers, known === null);
  // Of a database without our schema the control log may know that it was detached.
  requireAttached(control.state, name);
  if (known !== null || prepare === null) requireMember(known, cluster.name, name);
  const lost = new Promise<never>((_, reject) => {
    onLost(client, reject);
    lock.lost.catch(reject);
    control.ended.then((error) => error !== null && reject(error), reject);
  });
  // The caller races it with its work; before and after that its rejection is of no use.
  lost.catch(() => undefined);
  await control.verify();
  requireAttached(control.state, name);
  if (known !== null) await upgradeSchema(cluster, name, client);
  const detached = known === null ? null : await readDetached(client);
  if (detached !== null) throw detachedAt(name, detached);
  if (known !== null && control.state.stream === null) throw initUnfinished(cluster.name);
  const server = await readServer(client);
  const database = await readReachedDatabase(client, server.systemId, known !== null);
  const reached = { cluster, node: name, control, identity: known, reached: database, mayReplace };
  const isReplacement = await requireServedDatabase(reached);
  await prepare?.({ cluster, name, client, control, known, releasers });
  const found = requireMember(known ?? (await readNode(client)), cluster.name, name);
  const { partitions, compactionLagSetting } = await checkStream(cluster, control.state, found);
  await noteCompactionLag(control, compactionLagSetting);
  const identity = await raiseStartNumber(client, control, found, database, isReplacement);
  const encoder = await RecordEncoder.open({ topic, partitions, registry });
  const reader = cluster.openReader(releasers, partitions);
  const decoder = new RecordDecoder(registry, encoder.keySchemaId);
  return {
    cluster,
    name,
    url,
    identity,
    server,
    database,
    client,
    control,
    reader,
    decoder,
    encoder,
    partitions,
    until,
    lost,
  };
}

/** Where neither the database nor the topics belong to a cluster, there is none. */
async function openControl(
  cluster: Cluster,
  name: string,
  releasers: Releasers,
  isNew: boolean,
): Promise<ControlLog> {
  try {
    return await cluster.openControl(releasers, name);
  } catch (error) {
    const isMissing = hasCode(error, 'TOPIC_MISMATCH');
    throw isNew && isMissing ? notInitialised(cluster.name, error) : error;
  }
}
