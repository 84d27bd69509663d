/**
 * A broker that compacts within seconds. Flows in: a fleet whose topic is on it; flows out:
 * settings for such a topic, and waits until records are really gone. The segment that is written
 * to is never cleaned, so whoever waits keeps writing.
 */
import * as assert from 'uvu/assert';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../src/topic/kafka/committed-reader.ts';
import type { FetchedRecord } from '../../src/topic/log.ts';
import { changesTopic } from '../../src/topic/records/layout.ts';
import type { Fleet } from './fleet.ts';
import { readUpTo, testLog } from './topic-stack.ts';

const cleanedMaxMs = 60_000;
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

  get brokers(): readonly string[] {
    return this.#sandbox.brokers;
  }

  /** For `kafka.topic` in understudy.yaml. */
  topicSettings(deleteRetentionMs: number, compactionLagMs = 6_000): Record<string, string> {
    return {
      // A leader reads its own batches back, and counts them.
      'min.compaction.lag.ms': String(compactionLagMs),
      'max.compaction.lag.ms': String(compactionLagMs + 1_000),
      'segment.ms': '500',
      'min.cleanable.dirty.ratio': '0.01',
      'delete.retention.ms': String(deleteRetentionMs),
    };
  }

  async records(fleet: Fleet, partitions: number): Promise<readonly FetchedRecord[]> {
    const kafka = connectKafka({ brokers: this.brokers, clientId: 'test' }, testLog);
    const reader = createCommittedReader(kafka, { topic: changesTopic(fleet.cluster), partitions });
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

  /** Writes on until what the topic holds is as wanted. */
  async cleans(
    fleet: Fleet,
    partitions: number,
    write: () => Promise<unknown>,
    isDone: (records: readonly FetchedRecord[]) => boolean,
  ): Promise<void> {
    for (const deadlineMs = Date.now() + cleanedMaxMs; ; ) {
      await write();
      await new Promise((resolve) => setTimeout(resolve, tickMs));
      const records = await this.records(fleet, partitions);
      if (isDone(records)) return;
      assert.ok(Date.now() < deadlineMs, `the broker still holds ${records.length} records`);
    }
  }

  close(): Promise<void> {
    return this.#sandbox.stop();
  }
}
