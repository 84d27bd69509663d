/**
 * The topics of a new cluster: the changes topic and the control log, with the settings that the
 * stream rests on. Flows in: a cluster; flows out: both topics, each named before it is made, so
 * that whoever fails halfway can take it back.
 */
import { createTopic, describeCluster } from '../../topic/kafka/admin.ts';
import {
  changesTopicSettings,
  controlTopic,
  controlTopicSettings,
} from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';

export async function makeTopics(
  { kafka, settings, topic, name }: Cluster,
  onMaking: (topic: string) => void,
): Promise<void> {
  const { brokers } = await describeCluster(kafka);
  const replication = settings.replication ?? Math.min(3, brokers);
  const wanted = [
    {
      topic,
      partitions: settings.partitions,
      replication,
      settings: changesTopicSettings(replication, settings.topicOverrides),
    },
    {
      topic: controlTopic(name),
      partitions: 1,
      replication,
      settings: controlTopicSettings(replication),
    },
  ];
  for (const one of wanted) {
    onMaking(one.topic);
    await createTopic(kafka, one);
  }
}
