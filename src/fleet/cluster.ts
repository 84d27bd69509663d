/**
 * A cluster as verbs and agents share it: its settings as plain values, and the readers, producers,
 * control logs and sessions that they open, each closed by its caller.
 */
import type { Client } from 'pg';
import { connectPostgres, endSession, urlOfDatabase } from '../catalog/postgres-session.ts';
import type { KeylessTables } from '../catalog/table.ts';
import { type ControlLog, openControlLog } from '../control/control-log.ts';
import type { Releasers } from '../lifecycle.ts';
import type { Logger } from '../logger.ts';
import { connectKafka, type KafkaClient, type KafkaSettings } from '../topic/kafka/client.ts';
import { createCommittedReader } from '../topic/kafka/committed-reader.ts';
import { createPlainProducer } from '../topic/kafka/plain-producer.ts';
import { createTransactionalProducer } from '../topic/kafka/transactional-producer.ts';
import type { CommittedReader, TransactionalProducer } from '../topic/log.ts';
import { changesTopic, controlTopic, transactionalId } from '../topic/records/layout.ts';
import { recordName } from '../topic/records/record-name.ts';
import {
  connectRegistry,
  type RegistrySettings,
  type SchemaRegistry,
} from '../topic/schema-registry.ts';
import type { Sleep } from '../waiting.ts';

export interface ClusterSettings {
  readonly cluster: string;
  readonly nodeNames: readonly string[];
  /** Expanded when it is read: a process needs only the secrets of the nodes that it uses. */
  readonly nodeUrl: (node: string) => string;
  /** A node applies no change that is younger, by its agent's clock; 0 is no delay. */
  readonly delayMs: (node: string) => number;
  readonly tables: readonly string[];
  readonly keyless: KeylessTables;
  /** The program; null where tables are created by hand. Expanded when it is read. */
  readonly pgDump: () => string | null;
  readonly maintenanceDatabase: string;
  /** Whether the leader refuses schema changes that the stream cannot carry. */
  readonly refusesDdl: boolean;
  /** How a follower that was offline too long is rebuilt; `manual` is by hand. */
  readonly rebuild: 'swap' | 'in-place' | 'manual';
  readonly pointsEveryMs: number;
  readonly partitions: number;
  /** Null is the smaller of 3 and the number of brokers. */
  readonly replication: number | null;
  readonly topicOverrides: Readonly<Record<string, string>>;
  readonly kafka: KafkaSettings;
  readonly registry: RegistrySettings;
}

export interface Surroundings {
  readonly log: Logger;
  readonly nowMs: () => number;
  readonly random: () => number;
  readonly sleep: Sleep;
  readonly randomId: () => string;
}

export class Cluster {
  readonly settings: ClusterSettings;
  readonly around: Surroundings;
  readonly kafka: KafkaClient;
  readonly registry: SchemaRegistry;

  constructor(
    settings: ClusterSettings,
    around: Surroundings,
    kafka: KafkaClient = connectKafka(settings.kafka, around.log),
    registry: SchemaRegistry = connectRegistry(settings.registry, around.log),
  ) {
    this.settings = settings;
    this.around = around;
    this.kafka = kafka;
    this.registry = registry;
  }

  /** The same cluster, with another database of its server as the node. */
  withDatabase(node: string, database: string): Cluster {
    const { settings } = this;
    const nodeUrl = (name: string): string => {
      const url = settings.nodeUrl(name);
      return name === node ? urlOfDatabase(url, database) : url;
    };
    return new Cluster({ ...settings, nodeUrl }, this.around, this.kafka, this.registry);
  }

  get name(): string {
    return this.settings.cluster;
  }

  get topic(): string {
    return changesTopic(this.name);
  }

  openReader(releasers: Releasers, partitions: number): CommittedReader {
    const reader = createCommittedReader(this.kafka, { topic: this.topic, partitions });
    releasers.push('the reader of the topic', () => reader.close());
    return reader;
  }

  createProducer(partitions: number): TransactionalProducer {
    return createTransactionalProducer(this.kafka, {
      topic: this.topic,
      partitions,
      transactionalId: transactionalId(this.name),
      recordName,
    });
  }

  /** `node` is null for a command. */
  async openControl(releasers: Releasers, node: string | null): Promise<ControlLog> {
    const topic = controlTopic(this.name);
    const { log, sleep, random, randomId } = this.around;
    const control = await openControlLog({
      reader: createCommittedReader(this.kafka, { topic, partitions: 1 }),
      producer: createPlainProducer(this.kafka, topic),
      node,
      log,
      sleep,
      random,
      randomId,
    });
    releasers.push('the control log', () => control.close());
    return control;
  }

  /** A session of ours under the replica role, past the write guard. */
  async openSession(releasers: Releasers, node: string, purpose: string): Promise<Client> {
    const client = await connectPostgres(this.settings.nodeUrl(node), {
      applicationName: `understudy ${node} ${purpose}`,
      replica: true,
    });
    releasers.push(`the session on ${node}`, () => endSession(client));
    return client;
  }
}
