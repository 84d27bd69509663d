/**
 * What an agent, or a command in its place, holds of a node: the lock, a session, the control log,
 * and the node's own record. Flows in: a cluster and a node's name; flows out: a node that is known
 * to be the one the control log speaks of. A database that was restored from an older copy is
 * stopped here, before it can follow or lead.
 */
import type { Client } from 'pg';
import { onLost } from '../catalog/postgres-session.ts';
import { readServer, type ServerFacts } from '../catalog/read-catalog.ts';
import { type NodeIdentity, readNode } from '../catalog/understudy-schema.ts';
import type { ControlLog } from '../control/control-log.ts';
import { UnderstudyError } from '../errors.ts';
import { readDetached } from '../follower/follower-state.ts';
import type { Releasers } from '../lifecycle.ts';
import type { CommittedReader } from '../topic/log.ts';
import { RecordDecoder } from '../topic/record-decoder.ts';
import { RecordEncoder } from '../topic/record-encoder.ts';
import { describeTopic } from '../topic/topic-admin.ts';
import type { Cluster } from './cluster.ts';
import { whyDelayTooLong } from './delay.ts';
import { detachedAt, openFleetLog, requireAttached, requireMember } from './member-session.ts';
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
  /** Rejects when the lock, the session or the control log is lost for good. */
  readonly lost: Promise<never>;
}

const verifyTimeoutMs = 30_000;

export async function openNode(
  cluster: Cluster,
  name: string,
  releasers: Releasers,
): Promise<NodeAccess> {
  const { settings, registry, topic } = cluster;
  const url = settings.nodeUrl(name);
  const lock = await lockNode(url, settings.maintenanceDatabase, name);
  releasers.push(`the lock of ${name}`, () => lock.release());
  const client = await cluster.openSession(releasers, name, 'agent');
  const stored = await readNode(client);
  // Of a database without our schema the control log may know what became of it.
  if (stored === null) requireAttached((await openFleetLog(cluster, releasers)).state, name);
  const found = requireMember(stored, cluster.name, name);
  const control = await cluster.openControl(releasers, name);
  const lost = new Promise<never>((_, reject) => {
    onLost(client, reject);
    lock.lost.catch(reject);
    control.ended.then((error) => error !== null && reject(error), reject);
  });
  // Nobody may be waiting for it yet, or any more.
  lost.catch(() => undefined);
  await control.verify(verifyTimeoutMs);
  requireAttached(control.state, name);
  const detached = await readDetached(client);
  if (detached !== null) throw detachedAt(name, detached);
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
    lost,
  };
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
