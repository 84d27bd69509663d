/**
 * A broker that compacts within seconds, and fleets whose topic is on it: node a leads, b and c are
 * configured and were never initialised. It gives waits until records are really removed. The
 * segment that is written to is never cleaned, so a wait for cleaning keeps writing.
 */
import kafkajs from 'kafkajs';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { parseEpochLsn } from '../../src/change/position.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../src/topic/kafka/committed-reader.ts';
import type { FetchedRecord } from '../../src/topic/log.ts';
import { changesTopic } from '../../src/topic/records/layout.ts';
import { type Fleet, startFleet } from './fleet.ts';
import type { FleetOptions, NodeName } from './fleet-options.ts';
import { Forger } from './forger.ts';
import type { Stack } from './stack.ts';
import { readUpTo, testLog } from './topic-stack.ts';

export interface GrowingOptions {
  readonly stack: Stack;
  readonly tables: string;
  /** Whether nodes b and c get the tables by hand too; default true. */
  readonly tablesByHand?: boolean;
  readonly partitions: number;
  readonly servers?: FleetOptions['servers'];
  /** How long tombstones are kept; default: no node is built that slowly. */
  readonly deleteRetentionMs?: number;
  /** How long a record is kept beside a newer one; default: as short as a leader allows. */
  readonly compactionLagMs?: number;
}

type CompactionTimes = Pick<GrowingOptions, 'deleteRetentionMs' | 'compactionLagMs'>;

/** A row that is written all the time, so that segments end and are cleaned. */
const tickTable = 'CREATE TABLE tick (id int PRIMARY KEY, n int)';
const tickMs = 250;

export class CleaningBroker {
  readonly #sandbox: Sandbox;

  private constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox;
  }

  static async start(): Promise<CleaningBroker> {
    const sandbox = await startSandbox({
      postgres: 0,
      brokers: 1,
      registry: false,
      fastCompaction: true,
      log: () => undefined,
    });
    return new CleaningBroker(sandbox);
  }

  /** The agent of node a leads; the table `tick` is one of the tables. */
  async startFleet(options: GrowingOptions): Promise<Fleet> {
    const { stack, partitions, servers = {}, tablesByHand = true } = options;
    const tables = `${options.tables}; ${tickTable}`;
    const fleet = await startFleet({
      ...{ stack, servers, partitions, nodes: 3, initialised: ['a'] },
      ...{ brokers: this.#sandbox.brokers, topic: topicSettings(options) },
      ...(tablesByHand ? { tables } : { tablesOn: { a: tables } }),
    });
    await fleet.startAgent('a');
    return fleet;
  }

  /** Writes until no more than `recordsMax` records of the relation are left in the topic. */
  async cleaned(fleet: Fleet, relation: string, recordsMax: number): Promise<void> {
    await published(fleet);
    const records = async (): Promise<number> => {
      await tick(fleet);
      const all = await recordsOf(fleet);
      return all.filter(({ key }) => key.includes(relation)).length;
    };
    await fleet.until(`at most ${recordsMax} records of ${relation}`, records, {
      ...{ pollMs: tickMs, reached: (left) => left <= recordsMax },
    });
  }

  /** As an operator who wants a smaller topic does it. */
  async lowerLag(fleet: Fleet, to: CompactionTimes): Promise<void> {
    const kafka = connectKafka({ brokers: fleet.brokers, clientId: 'test' }, testLog);
    const admin = kafka.kafkajs.admin();
    const settings = {
      ...topicSettings(to),
      ...{ 'cleanup.policy': 'compact', 'message.timestamp.type': 'LogAppendTime' },
    };
    const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }));
    const type = kafkajs.ConfigResourceTypes.TOPIC;
    const resources = [{ type, name: changesTopic(fleet.cluster), configEntries }];
    try {
      await admin.connect();
      await admin.alterConfigs({ validateOnly: false, resources });
    } finally {
      await admin.disconnect();
    }
  }

  close(): Promise<void> {
    return this.#sandbox.stop();
  }
}

function topicSettings({ deleteRetentionMs = 600_000, compactionLagMs = 6_000 }: CompactionTimes) {
  return {
    // A leader reads its own batches back, and counts them.
    'min.compaction.lag.ms': String(compactionLagMs),
    'max.compaction.lag.ms': String(compactionLagMs + 1_000),
    'segment.ms': '500',
    'min.cleanable.dirty.ratio': '0.01',
    'delete.retention.ms': String(deleteRetentionMs),
  };
}

export async function tick(fleet: Fleet, leader: NodeName = 'a'): Promise<void> {
  await fleet.sql(
    leader,
    'INSERT INTO tick VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = tick.n + 1',
  );
}

/** Waits until the topic holds what node a has committed. */
export async function published(fleet: Fleet): Promise<void> {
  const forger = new Forger(fleet);
  const wanted = parseEpochLsn(await fleet.token())?.lsn ?? 0n;
  const upto = async (): Promise<bigint> => {
    // A topic that is written to may not end in a point.
    const point = await forger.lastPoint().catch(() => null);
    return point?.upto ?? 0n;
  };
  await fleet.until(`${wanted} in the topic`, upto, { reached: (lsn) => lsn >= wanted });
}

/** All records of the topic that are committed now. */
export async function recordsOf(fleet: Fleet): Promise<readonly FetchedRecord[]> {
  const { brokers, partitions, cluster } = fleet;
  const kafka = connectKafka({ brokers, clientId: 'test' }, testLog);
  const reader = createCommittedReader(kafka, { topic: changesTopic(cluster), partitions });
  try {
    const all: FetchedRecord[] = [];
    for (const { partition, lastStableOffset } of await reader.watermarks()) {
      all.push(...(await readUpTo(reader, partition, lastStableOffset)).records);
    }
    return all;
  } finally {
    await reader.close();
  }
}
