/**
 * What compaction would leave of the topic of a fleet: the newest record of every row. Gives rows
 * as the topic has them, which of them are partial, and the last point. Void records count:
 * compaction keeps them too.
 */
import type { Point } from '../../src/change/change.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../src/topic/kafka/committed-reader.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { changesTopic } from '../../src/topic/records/layout.ts';
import type {
  RereadRecord,
  RowRecord,
  TruncateRecord,
} from '../../src/topic/records/stream-record.ts';
import { connectRegistry } from '../../src/topic/schema-registry.ts';
import type { Fleet } from './fleet.ts';
import { testLog } from './topic-stack.ts';

const fetchMaxWaitMs = 200;

export interface NewestRecords {
  /** By relation, then by identity; deleted rows are left out. */
  readonly rows: ReadonlyMap<string, ReadonlyMap<string, Readonly<Record<string, string | null>>>>;
  /** `relation identity: columns` of rows whose newest record is partial. */
  readonly partial: readonly string[];
  /** Of the partition that was furthest behind when it was read. */
  readonly lastPoint: Point | null;
  /** How many records of op r there are. */
  readonly reads: number;
}

export async function newestRecords(fleet: Fleet): Promise<NewestRecords> {
  const { brokers, registryUrl, partitions } = fleet;
  const kafka = connectKafka({ brokers, clientId: 'newest' }, testLog);
  const topic = changesTopic(fleet.cluster);
  const reader = createCommittedReader(kafka, { topic, partitions });
  const decoder = new RecordDecoder(connectRegistry({ url: registryUrl }, testLog));
  const newest = new Map<string, RowRecord>();
  let reads = 0;
  const lastPoints: Point[] = [];
  try {
    for (const { partition, lastStableOffset } of await reader.watermarks()) {
      for (let offset = 0n; offset < lastStableOffset; ) {
        const from = new Map([[partition, offset]]);
        const [fetched] = await reader.fetch(from, { maxWaitMs: fetchMaxWaitMs });
        for (const record of await decoder.decode(fetched?.records ?? [])) {
          if (record.kind === 'point') lastPoints[partition] = record.point;
          // After a truncate or the begin of a resnapshot, older records of the table are void.
          if (record.kind === 'truncate' || record.kind === 'reread') emptied(newest, record);
          if (record.kind === 'row') newest.set(record.key.toString('latin1'), record);
          if (record.kind === 'row' && record.op === 'r') reads += 1;
        }
        offset = fetched?.nextOffset ?? offset;
      }
    }
  } finally {
    await reader.close();
  }
  return { ...contentsOf(newest.values(), decoder), lastPoint: lowest(lastPoints), reads };
}

function lowest(points: readonly Point[]): Point | null {
  const sorted = [...points].sort((a, b) => a.epoch - b.epoch || Number(a.upto - b.upto));
  return sorted[0] ?? null;
}

function emptied(
  newest: Map<string, RowRecord>,
  { relationId, partition }: TruncateRecord | RereadRecord,
): void {
  for (const [key, record] of newest) {
    if (record.relationId === relationId && record.partition === partition) newest.delete(key);
  }
}

function contentsOf(newest: Iterable<RowRecord>, decoder: RecordDecoder) {
  const rows = new Map<string, Map<string, Record<string, string | null>>>();
  const partial: string[] = [];
  for (const record of newest) {
    const { relationId, identity, value, unchanged } = record;
    if (value === null) continue;
    const { columnIds, values } = decoder.rowValues({ ...record, value });
    const row = Object.fromEntries(columnIds.map((id, i) => [id, values[i] ?? null]));
    rows.set(relationId, (rows.get(relationId) ?? new Map()).set(identity.join(), row));
    if (unchanged !== null) partial.push(`${relationId} ${identity}: ${unchanged}`);
  }
  return { rows, partial };
}
