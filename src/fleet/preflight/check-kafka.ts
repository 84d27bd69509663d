/**
 * Checks the brokers, the topics and the schema registry: one finding per cause. A topic that does
 * not exist yet is no finding; one that exists has to match the configuration and what followers
 * rely on. Nothing is created or changed.
 */

import { alterTopicSetting } from '../../errors/topic.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import { brokersSilent, registrySilent } from '../../errors/unreachable.ts';
import {
  brokerSetting,
  describeCluster,
  describeTopic,
  type TopicDescription,
} from '../../topic/kafka/admin.ts';
import { probeKafka } from '../../topic/kafka/client.ts';
import { transactionTimeoutMsDefault } from '../../topic/kafka/transactional-producer.ts';
import {
  changesTopicSettings,
  controlTopic,
  controlTopicSettings,
} from '../../topic/records/layout.ts';
import { connectRegistry } from '../../topic/schema-registry.ts';
import type { Clock } from '../../waiting.ts';
import { withTimeout } from '../../waiting.ts';
import type { Cluster, ClusterSettings } from '../cluster.ts';
import { whyDelayTooLong } from '../node/check-stream.ts';
import { errorFinding, type Finding, findingOf, warningFinding } from './finding.ts';

/** A user waits for the answer; brokers that are up take milliseconds. */
const probeMaxMs = 5_000;
/** For several requests, some of which brokers may have to forward. */
const readMaxMs = 20_000;

export async function checkKafka(cluster: Cluster, withTopics: boolean): Promise<Finding[]> {
  try {
    await probeKafka(cluster.kafka, probeMaxMs);
    return await withTimeout(checkBrokers(cluster, withTopics), readMaxMs, () => {
      return brokersSilent(readMaxMs);
    });
  } catch (error) {
    return [findingOf(error, 'kafka')];
  }
}

async function checkBrokers(cluster: Cluster, withTopics: boolean): Promise<Finding[]> {
  const { kafka, settings, topic, name } = cluster;
  const { brokers } = await describeCluster(kafka);
  const replication = settings.replication ?? Math.min(3, brokers);
  const findings = [
    ...judgeReplication(settings.replication, brokers),
    ...(await checkTransactionTimeout(cluster)),
  ];
  if (!withTopics) return findings;
  const [changes, control] = await Promise.all([
    describeTopic(kafka, topic),
    describeTopic(kafka, controlTopic(name)),
  ]);
  if (changes !== null) findings.push(...judgeChangesTopic(topic, changes, settings, replication));
  if (control !== null)
    findings.push(...judgeControlTopic(controlTopic(name), control, replication));
  return findings;
}

export function judgeReplication(wanted: number | null, brokers: number): Finding[] {
  if (wanted === null || wanted <= brokers) return [];
  return [
    errorFinding(
      'PREREQUISITE',
      'kafka',
      `kafka.replication is ${wanted} and there are ${brokers} brokers`,
      `Start more brokers, or set kafka.replication to ${brokers} or less.`,
    ),
  ];
}

const transactionLimit = 'transaction.max.timeout.ms';

async function checkTransactionTimeout({ kafka }: Cluster): Promise<Finding[]> {
  try {
    return judgeTransactionTimeout(await brokerSetting(kafka, transactionLimit));
  } catch (error) {
    // A user that may publish may lack the permission to read settings of the brokers.
    if (!hasCode(error, 'PREREQUISITE')) throw error;
    return [
      warningFinding(
        'NOT_LOOKED_AT',
        'kafka',
        `this user may not read ${transactionLimit} of the brokers`,
        `It has to be ${transactionTimeoutMsDefault} (its default) or more. Grant ` +
          'DescribeConfigs on the cluster to let this user read it.',
      ),
    ];
  }
}

export function judgeTransactionTimeout(limit: string | null): Finding[] {
  if (limit === null || Number(limit) >= transactionTimeoutMsDefault) return [];
  return [
    errorFinding(
      'PREREQUISITE',
      'kafka',
      `${transactionLimit} of the brokers is ${limit}, less than the leader requests`,
      `Set it to ${transactionTimeoutMsDefault} (its default) or more on every broker.`,
    ),
  ];
}

export function judgeChangesTopic(
  topic: string,
  found: TopicDescription,
  settings: Pick<ClusterSettings, 'partitions' | 'topicOverrides' | 'nodeNames' | 'delayMs'>,
  replication: number,
): Finding[] {
  const wanted = changesTopicSettings(replication, settings.topicOverrides);
  return [
    ...judgePartitions(topic, found, settings.partitions),
    ...judgeSettings(topic, found, wanted),
    ...judgeDelays(topic, found, settings),
  ];
}

function judgeDelays(
  topic: string,
  found: TopicDescription,
  { nodeNames, delayMs }: Pick<ClusterSettings, 'nodeNames' | 'delayMs'>,
): Finding[] {
  const lagMs = found.settings['min.compaction.lag.ms'];
  return nodeNames.flatMap((node) => {
    const tooLong = whyDelayTooLong(node, delayMs(node), topic, lagMs);
    return tooLong === null ? [] : [findingOf(tooLong, `node ${node}`)];
  });
}

export function judgeControlTopic(
  topic: string,
  found: TopicDescription,
  replication: number,
): Finding[] {
  return [
    ...judgePartitions(topic, found, 1),
    ...judgeSettings(topic, found, controlTopicSettings(replication)),
  ];
}

function judgePartitions(topic: string, found: TopicDescription, wanted: number): Finding[] {
  if (found.partitions === wanted) return [];
  return [
    errorFinding(
      'TOPIC_MISMATCH',
      topic,
      `${topic} has ${found.partitions} partitions, ${wanted} were expected`,
      `The number is fixed at init: set kafka.partitions to what it was then, or restore ${topic}.`,
    ),
  ];
}

/** Without these, rows expire, or the age of a record in the log is unknown. */
const essential: ReadonlySet<string> = new Set(['cleanup.policy', 'message.timestamp.type']);

function judgeSettings(
  topic: string,
  found: TopicDescription,
  wanted: Readonly<Record<string, string>>,
): Finding[] {
  const findings: Finding[] = [];
  const insync = Number(found.settings['min.insync.replicas'] ?? '1');
  if (insync > found.replication) {
    findings.push(
      errorFinding(
        'TOPIC_MISMATCH',
        topic,
        `${topic} needs ${insync} in-sync replicas and has ${found.replication}: no write succeeds`,
        alterTopicSetting(topic, 'min.insync.replicas', String(found.replication)),
      ),
    );
  }
  for (const [setting, value] of Object.entries(wanted)) {
    const actual = found.settings[setting];
    // A broker that does not return a setting does not know it; init would have been refused.
    if (actual === undefined || actual === value) continue;
    const message = `${setting} of ${topic} is ${actual}, ${value} is configured`;
    const hint = alterTopicSetting(topic, setting, value);
    findings.push(
      essential.has(setting)
        ? errorFinding('TOPIC_MISMATCH', topic, message, hint)
        : warningFinding('TOPIC_SETTING', topic, message, hint),
    );
  }
  return findings;
}

/** The registry is retried while it may be starting up, but no longer than this. */
const registryMaxMs = 5_000;

export async function checkRegistry(cluster: Cluster): Promise<Finding[]> {
  const { settings, around } = cluster;
  const deadlineMs = around.nowMs() + registryMaxMs;
  const clock: Clock = {
    nowMs: around.nowMs,
    random: around.random,
    sleep: async () => {
      if (around.nowMs() >= deadlineMs) throw registrySilent(settings.registry.url);
    },
  };
  try {
    await connectRegistry(settings.registry, around.log, clock).probe();
    return [];
  } catch (error) {
    return [findingOf(error, 'registry')];
  }
}
