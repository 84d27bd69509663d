/**
 * What makes the topics of a running cluster lose rows: a setting that was changed since `init`, or
 * a topic that is gone. It takes the descriptions of both topics and gives one sentence for each
 * problem.
 */
import { describeTopic, type TopicDescription } from '../../topic/kafka/admin.ts';
import { controlTopic } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';

/** Without these, rows expire, or the age of a record in the log is unknown. */
const essential = {
  'cleanup.policy': { value: 'compact', without: 'records expire, rows with them' },
  'message.timestamp.type': {
    value: 'LogAppendTime',
    without: 'how long a follower was away cannot be judged',
  },
} as const;

function topicProblems(topic: string, found: TopicDescription | null): string[] {
  if (found === null) return [`the topic ${topic} does not exist`];
  return Object.entries(essential).flatMap(([setting, { value, without }]) => {
    const actual = found.settings[setting];
    // Brokers that do not return a setting do not let this user read it.
    if (actual === undefined || actual === value) return [];
    return [`${setting} of ${topic} is ${actual}, not ${value}: ${without}`];
  });
}

export async function readTopicProblems(cluster: Cluster): Promise<string[]> {
  const topics = [cluster.topic, controlTopic(cluster.name)];
  const found = await Promise.all(
    topics.map(async (topic) => topicProblems(topic, await describeTopic(cluster.kafka, topic))),
  );
  return found.flat();
}
