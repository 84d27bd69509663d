/**
 * The cluster of a command. Only this file turns the settings of understudy.yaml into the plain
 * values that all other rooms take. The Cluster that it returns connects to no server by itself.
 */
import { randomUUID } from 'node:crypto';
import type { Config } from '../config/config.ts';
import { Cluster, type ClusterSettings } from '../fleet/cluster.ts';
import type { RegistrySettings } from '../topic/schema-registry.ts';
import type { CommandContext } from './command.ts';

/** Brokers show it in their logs and quotas. */
const clientId = 'understudy';
/** The meaning of `tables` when it is left out. */
const allTables: readonly string[] = ['*.*'];

export function clusterOf(context: CommandContext): Cluster {
  const { config, log, now, random, sleep } = context;
  return new Cluster(clusterSettingsOf(config), {
    log,
    nowMs: now,
    random,
    sleep,
    randomId: randomUUID,
  });
}

function clusterSettingsOf(config: Config): ClusterSettings {
  const { brokers, ssl, sasl } = config.kafka();
  return {
    cluster: config.cluster,
    nodeNames: config.nodeNames,
    nodeUrl: (node) => config.nodeUrl(node),
    delayMs: (node) => config.delayMs(node),
    tables: config.tables ?? allTables,
    keyless: config.keyless,
    pgDump: () => (config.isSchemaManual ? null : config.pgDump),
    maintenanceDatabase: config.maintenanceDatabase,
    refusesDdl: config.refusesDdl,
    rebuild: config.rebuild,
    pointsEveryMs: config.pointsEveryMs,
    partitions: config.topic.partitions,
    replication: config.topic.replication,
    topicOverrides: config.topic.overrides,
    kafka: { brokers, ssl, clientId, ...(sasl === null ? {} : { sasl }) },
    registry: registrySettingsOf(config),
  };
}

function registrySettingsOf(config: Config): RegistrySettings {
  const { url, auth } = config.registry();
  return auth === null ? { url } : { url, auth };
}
