/**
 * Reads what there is of a cluster before it is created, checked or removed: its topics, the state
 * of the control log, the end of the stream, and the databases that understudy.yaml leads to. What
 * cannot be reached or read is a reason, not a failure; nothing is changed.
 */
import type { Client } from 'pg';
import { readServer } from '../../catalog/read-catalog.ts';
import { readNode } from '../../catalog/understudy-schema.ts';
import type { EpochLsn } from '../../change/position.ts';
import type { ControlState } from '../../control/control-state.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { Releasers } from '../../lifecycle.ts';
import { describeTopic, type TopicDescription } from '../../topic/kafka/admin.ts';
import { createCommittedReader } from '../../topic/kafka/committed-reader.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import { controlTopic } from '../../topic/records/layout.ts';
import type { RowSchema } from '../../topic/records/row-schema.ts';
import type { Cluster } from '../cluster.ts';
import type { FoundDatabase } from './judge-belonging.ts';
import { isLocked } from './node-lock.ts';
import { readReachedDatabase } from './reached-database.ts';

export interface TopicsFacts {
  readonly changes: TopicDescription | null;
  readonly control: TopicDescription | null;
  /** null where there is no control topic, or where it cannot be read. */
  readonly state: ControlState | null;
  /** Why the control log cannot be read; null where it can, or where there is none. */
  readonly unreadable: string | null;
  /** Whether the changes topic holds no record; true where there is none. */
  readonly isEmpty: boolean;
  /** The last point; null where there is none, or where it cannot be read. */
  readonly last: { readonly at: EpochLsn; readonly commitMs: number | null } | null;
}

/** Points and epochs need no registry, and no row is decoded: any schema does for rows. */
export const noRegistry = {
  schemaById: async (): Promise<RowSchema> => ({
    type: 'record',
    name: 'unread',
    namespace: 'understudy',
    relationId: 'unread',
    fields: [],
  }),
};

export async function readTopicsFacts(cluster: Cluster): Promise<TopicsFacts> {
  const { kafka, topic, name } = cluster;
  const [changes, control] = await Promise.all([
    describeTopic(kafka, topic),
    describeTopic(kafka, controlTopic(name)),
  ]);
  const log = control === null ? { state: null, unreadable: null } : await readControl(cluster);
  const end = changes === null ? { isEmpty: true, last: null } : await readEnd(cluster, changes);
  return { changes, control, ...log, ...end };
}

async function readControl(cluster: Cluster): Promise<Pick<TopicsFacts, 'state' | 'unreadable'>> {
  const releasers = new Releasers();
  try {
    const { state } = await cluster.openControl(releasers, null);
    return { state, unreadable: null };
  } catch (error) {
    if (!(error instanceof UnderstudyError) || error.retry) throw error;
    return { state: null, unreadable: error.message };
  } finally {
    await releasers.close();
  }
}

async function readEnd(
  { kafka, topic }: Cluster,
  { partitions }: TopicDescription,
): Promise<Pick<TopicsFacts, 'isEmpty' | 'last'>> {
  const reader = createCommittedReader(kafka, { topic, partitions });
  try {
    const watermarks = await reader.watermarks();
    const isEmpty = watermarks.every((one) => one.lowWatermark >= one.lastStableOffset);
    if (isEmpty) return { isEmpty, last: null };
    const end = await readLogEnd(reader, new RecordDecoder(noRegistry), watermarks);
    const micros = end.point?.commitTimeMicros ?? null;
    const commitMs = micros === null ? null : Number(micros / 1000n);
    const at = end.checkpoint?.at ?? null;
    return { isEmpty, last: at === null ? null : { at, commitMs } };
  } catch (error) {
    // Records of another program, or of a newer version.
    if (!(error instanceof UnderstudyError) || error.retry) throw error;
    return { isEmpty: false, last: null };
  } finally {
    await reader.close();
  }
}

/** Throws what keeps the database from being judged. */
export async function readFoundDatabase(name: string, client: Client): Promise<FoundDatabase> {
  const identity = await readNode(client);
  const { systemId } = await readServer(client);
  const reached = await readReachedDatabase(client, systemId, identity !== null);
  return { name, identity, reached, isServed: await isLocked(client) };
}
