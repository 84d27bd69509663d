/**
 * The text of server.properties for one broker of the sandbox. Settings differ from Kafka's
 * defaults for a fast start or a small size, each with its reason.
 */

export interface QuorumMember {
  readonly id: number;
  readonly port: number;
  readonly controllerPort: number;
}

export interface BrokerSettings {
  readonly id: number;
  readonly members: readonly QuorumMember[];
  readonly dataDir: string;
  /** Compaction within about a second, for tests of its results. */
  readonly fastCompaction: boolean;
}

export function brokerProperties(settings: BrokerSettings): string {
  const { id, members, dataDir, fastCompaction } = settings;
  const self = members.find((member) => member.id === id);
  if (self === undefined) throw new Error(`no member ${id}`);
  const voters = members.map((member) => `${member.id}@127.0.0.1:${member.controllerPort}`);
  const replication = Math.min(3, members.length);
  const inSync = replication >= 3 ? 2 : 1;
  const entries: Readonly<Record<string, string | number>> = {
    'process.roles': 'broker,controller',
    'node.id': id,
    'controller.quorum.voters': voters.join(','),
    listeners: `PLAINTEXT://127.0.0.1:${self.port},CONTROLLER://127.0.0.1:${self.controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${self.port}`,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'log.dirs': dataDir,
    // A misspelt topic is an error, not a new topic.
    'auto.create.topics.enable': 'false',
    // The default makes every first consumer of a group wait three seconds.
    'group.initial.rebalance.delay.ms': 0,
    'default.replication.factor': replication,
    'min.insync.replicas': inSync,
    'offsets.topic.replication.factor': replication,
    'transaction.state.log.replication.factor': replication,
    'transaction.state.log.min.isr': inSync,
    'share.coordinator.state.topic.replication.factor': replication,
    'share.coordinator.state.topic.min.isr': inSync,
    // 50 partitions each by default: most of a first start.
    'offsets.topic.num.partitions': 4,
    'transaction.state.log.num.partitions': 4,
    // The default checks for expired transactions every 10 s, and tests wait for that.
    'transaction.abort.timed.out.transaction.cleanup.interval.ms': 1_000,
    // A killed broker is detected, and may register again, after 4 s instead of 9. With much less,
    // a busy machine would fence healthy brokers.
    'broker.session.timeout.ms': 4_000,
    'broker.heartbeat.interval.ms': 500,
    'num.network.threads': 2,
    'num.io.threads': 4,
    // 128 MB by default, a third of this broker's heap.
    'log.cleaner.dedupe.buffer.size': 16 * 1024 * 1024,
    ...(fastCompaction ? fastCompactionSettings : {}),
  };
  return Object.entries(entries)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}

/** Settings of a topic override these, above all min.compaction.lag.ms. */
const fastCompactionSettings: Readonly<Record<string, string | number>> = {
  'log.cleaner.backoff.ms': 200,
  'log.cleaner.min.cleanable.ratio': 0.01,
  'log.cleaner.delete.retention.ms': 1_000,
  // The active segment is never compacted, so it has to be rolled soon. 1 MB is the smallest size.
  'log.segment.bytes': 1024 * 1024,
  'log.roll.ms': 1_000,
  'log.segment.delete.delay.ms': 1_000,
  'log.retention.check.interval.ms': 1_000,
  'log.initial.task.delay.ms': 500,
};
