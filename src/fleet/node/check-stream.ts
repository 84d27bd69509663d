/**
 * Whether a node, the topics and the configuration belong to one stream. It takes what each of them
 * says, and gives what the topic has, or the first difference as an error. Nothing is written
 * before this has passed.
 */
import type { NodeIdentity } from '../../catalog/understudy-schema.ts';
import type { ControlState } from '../../control/control-state.ts';
import { initUnfinished } from '../../errors/cluster.ts';
import { delayTooLong } from '../../errors/prerequisite.ts';
import { nodeOfOtherStream, partitionsDiffer } from '../../errors/topic.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import { describeTopic } from '../../topic/kafka/admin.ts';
import type { Cluster } from '../cluster.ts';

/** What the topic has: the stream's number of partitions, and a setting, where it is known. */
interface CheckedStream {
  readonly partitions: number;
  readonly compactionLagSetting: string | undefined;
}

export async function checkStream(
  cluster: Cluster,
  { stream }: ControlState,
  identity: NodeIdentity,
): Promise<CheckedStream> {
  const { name: node, role, streamId } = identity;
  if (stream === null) throw initUnfinished(cluster.name);
  if (stream.streamId !== streamId) throw nodeOfOtherStream(node, stream.streamId, streamId);
  const topic = await describeTopic(cluster.kafka, cluster.topic);
  const ofStream = stream.partitions;
  const ofTopic = topic?.partitions ?? 0;
  const configured = cluster.settings.partitions;
  if (ofTopic !== ofStream || configured !== ofStream) {
    throw partitionsDiffer({ topic: cluster.topic, ofStream, ofTopic, configured });
  }
  const lagMs = topic?.settings['min.compaction.lag.ms'];
  const delayMs = cluster.settings.delayMs(node);
  const tooLong = whyDelayTooLong(node, delayMs, cluster.topic, lagMs);
  if (role === 'follower' && tooLong !== null) throw tooLong;
  return { partitions: ofStream, compactionLagSetting: lagMs };
}

/**
 * A delayed follower loses what it has read and not applied when its agent ends: the topic must
 * still hold every change of that time when it starts again.
 */
export function whyDelayTooLong(
  node: string,
  delayMs: number,
  topic: string,
  compactionLagSetting: string | undefined,
): UnderstudyError | null {
  const compactionLagMs = Number(compactionLagSetting ?? Number.POSITIVE_INFINITY);
  if (delayMs === 0 || delayMs < compactionLagMs) return null;
  return delayTooLong({ node, delayMs, topic, compactionLagMs });
}
