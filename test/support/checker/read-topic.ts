/**
 * Reads a whole topic twice, up to where it ends: as a committed reader sees it, and with what was
 * aborted. Flows in: brokers, a topic; flows out: every record, with whether it is committed. The
 * topic must reach back to its first record: of a compacted one nothing could be counted.
 */

import { decodeBatches } from '../../../src/topic/kafka/batch-decoder.ts';
import {
  connectKafka,
  type KafkaClient,
  type TopicConnection,
} from '../../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../../src/topic/kafka/committed-reader.ts';
import { fetchCommitted } from '../../../src/topic/kafka/fetch.ts';
import { listOffsets } from '../../../src/topic/kafka/requests.ts';
import type { KafkaRequest } from '../../../src/topic/kafka/wire.ts';
import type { CommittedReader, FetchedRecord } from '../../../src/topic/log.ts';
import { decodeFramed } from '../../../src/topic/records/avro-codec.ts';
import {
  epochFromAvro,
  fixedSchemas,
  pointFromAvro,
} from '../../../src/topic/records/fixed-schemas.ts';
import { PositionHeaderDecoder } from '../../../src/topic/records/headers.ts';
import type { RecordKey } from '../../../src/topic/records/layout.ts';
import { testLog } from '../topic-stack.ts';
import { until } from '../until.ts';
import { neverMark } from '../workloads/workload.ts';
import type { Partitions, TopicRecord } from './judge-topic.ts';

const fetchMaxWaitMs = 200;
const fetchBytesMax = 4 * 1024 * 1024;
const readUncommitted = 0;

export async function readWholeTopic(
  brokers: readonly string[],
  topic: string,
  partitions: number,
): Promise<Partitions> {
  const client = connectKafka({ brokers, clientId: 'checker' }, testLog);
  const reader = createCommittedReader(client, { topic, partitions });
  const connection = client.connection(topic);
  try {
    await connection.open();
    const ends = await settledEnds(reader, connection, partitions);
    return await Promise.all(
      ends.map((end, partition) =>
        readPartition(client, reader, connection, { topic, partition, end }),
      ),
    );
  } finally {
    connection.close();
    await reader.close();
  }
}

/** High watermarks, once no transaction is open. */
async function settledEnds(
  reader: CommittedReader,
  connection: TopicConnection,
  partitions: number,
): Promise<readonly bigint[]> {
  const read = async () => {
    const stable = await reader.watermarks();
    const first = stable.find(({ lowWatermark }) => lowWatermark !== 0n);
    if (first !== undefined) throw new Error(`the topic begins at offset ${first.lowWatermark}`);
    const ends: bigint[] = [];
    for (let partition = 0; partition < partitions; partition += 1) {
      const request = uncommitted(listOffsets(connection.topic, [partition], 'lastStable'), 4);
      const [answer] = await connection.request(leaderOf(connection, partition), request);
      ends.push(answer?.offset ?? 0n);
    }
    return { ends, stable: stable.map(({ lastStableOffset }) => lastStableOffset) };
  };
  const settled = await until('no open transaction in the topic', read, {
    ...{ pollMs: fetchMaxWaitMs, reached: ({ ends, stable }) => `${ends}` === `${stable}` },
  });
  return settled.ends;
}

/** The same request for what is not committed as well: one byte of it says so. */
function uncommitted<T>(request: KafkaRequest<T>, isolationAt: number): KafkaRequest<T> {
  const body = Buffer.from(request.body);
  if (body.readInt8(isolationAt) !== 1) throw new Error(`${request.apiName} has another layout`);
  body.writeInt8(readUncommitted, isolationAt);
  return { ...request, body };
}

function leaderOf(connection: TopicConnection, partition: number): number {
  const leader = connection.leaders().get(partition);
  if (leader === undefined) throw new Error(`partition ${partition} has no leader`);
  return leader;
}

interface Stretch {
  readonly topic: string;
  readonly partition: number;
  readonly end: bigint;
}

async function readPartition(
  client: KafkaClient,
  reader: CommittedReader,
  connection: TopicConnection,
  stretch: Stretch,
): Promise<readonly TopicRecord[]> {
  const { partition, end } = stretch;
  const committed = new Set<bigint>();
  for (let offset = 0n; offset < end; ) {
    const [fetched] = await reader.fetch(new Map([[partition, offset]]), {
      maxWaitMs: fetchMaxWaitMs,
    });
    for (const record of fetched?.records ?? []) {
      // What came since belongs to no end that was settled.
      if (record.offset < end) committed.add(record.offset);
    }
    offset = fetched?.nextOffset ?? offset;
  }
  client.log.debug({ partition, committed: committed.size }, 'read what is committed');
  const headers = new PositionHeaderDecoder();
  const records: TopicRecord[] = [];
  for (let offset = 0n; offset < end; ) {
    const { fetched, nextOffset } = await fetchAll(connection, stretch, offset);
    for (const record of fetched.filter((one) => one.offset < end)) {
      records.push(decoded(record, committed.has(record.offset), headers));
      committed.delete(record.offset);
    }
    offset = nextOffset;
  }
  if (committed.size > 0) throw new Error(`${committed.size} committed records were not seen`);
  return records;
}

async function fetchAll(
  connection: TopicConnection,
  { topic, partition }: Stretch,
  offset: bigint,
): Promise<{ readonly fetched: readonly FetchedRecord[]; readonly nextOffset: bigint }> {
  const wanted = fetchCommitted(topic, [[partition, offset]], fetchMaxWaitMs, fetchBytesMax);
  // The isolation level stands behind four numbers of four bytes.
  const answer = await connection.request(leaderOf(connection, partition), uncommitted(wanted, 16));
  const [raw] = answer.partitions;
  if (answer.errorCode !== 0 || raw === undefined || raw.errorCode !== 0) {
    throw new Error(`fetch answered ${answer.errorCode} and ${raw?.errorCode}`);
  }
  const { records, nextOffset } = decodeBatches(raw.batches, [], { topic, partition, offset });
  return { fetched: records, nextOffset };
}

function decoded(
  record: FetchedRecord,
  committed: boolean,
  headers: PositionHeaderDecoder,
): TopicRecord {
  const { partition, offset, value } = record;
  const { kind, relation } = decodeFramed(fixedSchemas.key.type, record.key) as RecordKey;
  const position = record.headers['position'];
  const read = (schema: 'point' | 'epoch'): unknown =>
    value === null ? null : decodeFramed(fixedSchemas[schema].type, value);
  return {
    ...{ partition, offset, committed, kind, relation, key: record.key.toString('base64') },
    position: position === undefined ? null : headers.decode(position).position,
    isTombstone: value === null,
    point: kind === 'point' ? pointFromAvro(read('point')) : null,
    begin: kind === 'epoch' ? epochFromAvro(read('epoch')) : null,
    isGhost: value?.includes(neverMark) ?? false,
  };
}
