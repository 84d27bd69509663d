/**
 * What an agent, or a command in its place, holds of a node: the lock, a session, the control log,
 * and the node's own record. Flows in: a cluster and a node's name; flows out: a node that is known
 * to be the one the control log speaks of. A database that was restored from an older copy is
 * stopped here, before it can follow or lead.
 */
import type { Client } from 'pg';
import { onLost } from '../../catalog/postgres-session.ts';
import { readServer, type ServerFacts } from '../../catalog/read-catalog.ts';
import { type NodeIdentity, readNode } from '../../catalog/understudy-schema.ts';
import type { EpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
import { readDetached } from '../../follower/state/follower-state.ts';
import type { Releasers } from '../../lifecycle.ts';
import { describeTopic } from '../../topic/kafka/admin.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import { RecordEncoder } from '../../topic/records/encoder.ts';
import type { Cluster } from '../cluster.ts';
import { isUnprepared, prepareNewNode } from '../provision/new-node.ts';
import { whyDelayTooLong } from './delay.ts';
import { detachedAt, notInitialised, requireAttached, requireMember } from './member-session.ts';
import { lockNode } from './node-lock.ts';
import { raiseStartNumber } from './start-number.ts';

export interface NodeAccess {
  readonly cluster: Cluster;
  readonly name: string;
  readonly url: string;
  readonly identity: NodeIdentity;
  readonly server: ServerFacts;
  readonly client: Client;
  readonly control: ControlLog;
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
  readonly encoder: RecordEncoder;
  readonly partitions: number;
  /** Where its follower is to stand and end; null where it goes on. */
  readonly until: EpochLsn | null;
  /** Rejects when the lock, the session or the control log is lost for good. */
  readonly lost: Promise<never>;
}

const verifyTimeoutMs = 30_000;

export async function openNode(
  cluster: Cluster,
  name: string,
  releasers: Releasers,
  { mayBuild, until = null }: { readonly mayBuild: boolean; readonly until?: EpochLsn | null },
): Promise<NodeAccess> {
  const { settings, registry, topic } = cluster;
  const url = settings.nodeUrl(name);
  const lock = await lockNode(url, settings.maintenanceDatabase, name);
  releasers.push(`the lock of ${name}`, () => lock.release());
  const client = await cluster.openSession(releasers, name, 'agent');
  const before = await readNode(client);
  const control = await openControl(cluster, name, releasers, before === null);
  // Of a database without our schema the control log may know what became of it.
  requireAttached(control.state, name);
  if (before !== null || !mayBuild) requireMember(before, cluster.name, name);
  const lost = new Promise<never>((_, reject) => {
    onLost(client, reject);
    lock.lost.catch(reject);
    control.ended.then((error) => error !== null && reject(error), reject);
  });
  // Nobody may be waiting for it yet, or any more.
  lost.catch(() => undefined);
  await control.verify(verifyTimeoutMs);
  requireAttached(control.state, name);
  const detached = before === null ? null : await readDetached(client);
  if (detached !== null) throw detachedAt(name, detached);
  if (mayBuild && (await isUnprepared(client, before))) {
    await prepareNewNode(cluster, name, client, control, releasers, { until });
  }
  const found = requireMember(before ?? (await readNode(client)), cluster.name, name);
  const partitions = await checkStream(cluster, control, found);
  const identity = await raiseStartNumber(client, control, found);
  const encoder = await RecordEncoder.open({ topic, partitions, registry });
  const reader = cluster.openReader(releasers, partitions);
  const decoder = new RecordDecoder(registry, encoder.keySchemaId);
  const server = await readServer(client);
  return {
    cluster,
    name,
    url,
    identity,
    server,
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

/** Where neither the database nor the topics know a cluster, there is none. */
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

/** Gives the number of partitions the stream was made with. */
async function checkStream(
  cluster: Cluster,
  control: ControlLog,
  identity: NodeIdentity,
): Promise<number> {
  const { stream } = control.state;
  if (stream === null) {
    throw new UnderstudyError(
      'NOT_INITIALISED',
      'the control log names no stream',
      'init did not end: run understudy destroy --yes, then understudy init.',
    );
  }
  if (stream.streamId !== identity.streamId) {
    throw new UnderstudyError(
      'TOPIC_MISMATCH',
      `the topics belong to the stream ${stream.streamId}, this node to ${identity.streamId}`,
      'The cluster was made again without this node: destroy it and init it again.',
    );
  }
  const topic = await describeTopic(cluster.kafka, cluster.topic);
  if (
    topic?.partitions !== stream.partitions ||
    cluster.settings.partitions !== stream.partitions
  ) {
    throw new UnderstudyError(
      'TOPIC_MISMATCH',
      `the stream has ${stream.partitions} partitions, the topic ${topic?.partitions ?? 0}, ` +
        `understudy.yaml ${cluster.settings.partitions}`,
      `The number is fixed at init: set kafka.partitions to ${stream.partitions}; if the topic ` +
        'itself was changed, destroy the cluster and init it again.',
    );
  }
  const lagMs = topic.settings['min.compaction.lag.ms'];
  const delayMs = cluster.settings.delayMs(identity.name);
  const tooLong = whyDelayTooLong(identity.name, delayMs, cluster.topic, lagMs);
  if (identity.role === 'follower' && tooLong !== null) throw tooLong;
  return stream.partitions;
}
