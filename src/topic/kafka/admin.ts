/**
 * Creates, describes and deletes topics, and reads settings of brokers. Each call has its own short
 * connection: none of this happens while rows flow. A missing permission is PREREQUISITE with the
 * ACLs that are needed.
 */
import kafkajs, { type Admin } from 'kafkajs';
import { tooFewBrokers, topicPolicyViolated } from '../../errors/prerequisite.ts';
import { topicWithoutLeaders } from '../../errors/timed-out.ts';
import { partitionsRefused, topicSettingRefused } from '../../errors/usage.ts';
import type { KafkaClient } from './client.ts';
import { createCommittedReader } from './committed-reader.ts';
import { answerName, type KafkaAction } from './errors.ts';

export interface TopicDescription {
  readonly partitions: number;
  /** Of the partition with the fewest replicas. */
  readonly replication: number;
  /** Every setting by its Kafka name, defaults included. */
  readonly settings: Readonly<Record<string, string>>;
}

interface NewTopic {
  readonly topic: string;
  readonly partitions: number;
  readonly replication: number;
  readonly settings: Readonly<Record<string, string>>;
}

/** A controller answers when the topic is in its log; brokers learn of it within moments. */
const createTimeoutMs = 30_000;
const pollMs = 50;

/** Null when there is no such topic. */
export async function describeTopic(
  client: KafkaClient,
  topic: string,
): Promise<TopicDescription | null> {
  return withAdmin(client, 'describe', topic, async (admin) => {
    const partitions = await partitionsOf(admin, topic);
    if (partitions === null) return null;
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic }],
    });
    const settings: Record<string, string> = {};
    for (const entry of resources[0]?.configEntries ?? []) {
      if (!entry.isSensitive) settings[entry.configName] = entry.configValue;
    }
    const replication = Math.min(...partitions.map(({ replicas }) => replicas.length));
    return { partitions: partitions.length, replication, settings };
  });
}

/**
 * Resolves when every partition has a leader that answers. True when this call created the
 * topic, false when it existed before, whatever its settings.
 */
export async function createTopic(client: KafkaClient, wanted: NewTopic): Promise<boolean> {
  const { topic, partitions, replication, settings } = wanted;
  return withAdmin(client, 'create', topic, async (admin) => {
    let isNew: boolean;
    try {
      isNew = await admin.createTopics({
        waitForLeaders: false,
        timeout: createTimeoutMs,
        topics: [
          {
            topic,
            numPartitions: partitions,
            replicationFactor: replication,
            configEntries: Object.entries(settings).map(([name, value]) => ({ name, value })),
          },
        ],
      });
    } catch (error) {
      throw explainCreate(error, wanted);
    }
    await waitForLeaders(client, admin, topic);
    if (isNew) await waitForReplicas(client, wanted);
    return isNew;
  });
}

/** A topic that is not there is already deleted. */
export async function deleteTopic(client: KafkaClient, topic: string): Promise<void> {
  await withAdmin(client, 'delete', topic, async (admin) => {
    if ((await partitionsOf(admin, topic)) === null) return;
    await admin.deleteTopics({ topics: [topic], timeout: createTimeoutMs });
  });
}

export async function describeCluster(
  client: KafkaClient,
): Promise<{ readonly brokers: number; readonly clusterId: string }> {
  return withAdmin(client, 'describe', null, async (admin) => {
    const { brokers, clusterId } = await admin.describeCluster();
    return { brokers: brokers.length, clusterId };
  });
}

/** A setting of the brokers, as the first of them has it; null when its answer has none. */
export async function brokerSetting(client: KafkaClient, name: string): Promise<string | null> {
  return withAdmin(client, 'describe', null, async (admin) => {
    const { brokers } = await admin.describeCluster();
    const nodeId = Math.min(...brokers.map((broker) => broker.nodeId));
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: [
        { type: kafkajs.ConfigResourceTypes.BROKER, name: String(nodeId), configNames: [name] },
      ],
    });
    const entry = resources[0]?.configEntries.find(({ configName }) => configName === name);
    return entry === undefined || entry.isSensitive ? null : entry.configValue;
  });
}

async function withAdmin<T>(
  client: KafkaClient,
  action: KafkaAction,
  topic: string | null,
  step: (admin: Admin) => Promise<T>,
): Promise<T> {
  const admin = client.kafkajs.admin();
  try {
    await admin.connect();
    return await step(admin);
  } catch (error) {
    throw client.explain(error, { action, topic, transactionalId: null });
  } finally {
    await admin.disconnect();
  }
}

async function partitionsOf(admin: Admin, topic: string) {
  try {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    return topics.find(({ name }) => name === topic)?.partitions ?? null;
  } catch (error) {
    if (answerName(error) === 'UNKNOWN_TOPIC_OR_PARTITION') return null;
    throw error;
  }
}

async function waitForLeaders(client: KafkaClient, admin: Admin, topic: string): Promise<void> {
  const { nowMs, sleep } = client.clock;
  for (const deadlineMs = nowMs() + createTimeoutMs; ; ) {
    // Without leaders kafkajs rejects with LEADER_NOT_AVAILABLE, after retries of its own.
    const partitions = await partitionsOf(admin, topic);
    if (partitions?.every(({ leader }) => leader >= 0)) return;
    if (nowMs() > deadlineMs) throw topicWithoutLeaders(topic, createTimeoutMs);
    await sleep(pollMs);
  }
}

/** A broker can be named as leader before it leads: what it answers itself is what counts. */
async function waitForReplicas(client: KafkaClient, wanted: NewTopic): Promise<void> {
  const reader = createCommittedReader(client, wanted);
  try {
    await reader.watermarks();
  } finally {
    await reader.close();
  }
}

function explainCreate(error: unknown, wanted: NewTopic): unknown {
  const { topic, partitions, replication, settings } = wanted;
  switch (answerName(error)) {
    case 'INVALID_REPLICATION_FACTOR':
      return tooFewBrokers(topic, replication, error);
    case 'INVALID_PARTITIONS':
      return partitionsRefused(topic, partitions, error);
    case 'INVALID_CONFIG':
      return topicSettingRefused(topic, Object.keys(settings), error);
    case 'POLICY_VIOLATION':
      return topicPolicyViolated(topic, error);
    default:
      return error;
  }
}
