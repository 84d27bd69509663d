/**
 * The fetch request and what is in its answer: partitions, offsets to read from and a wait flow in,
 * raw record batches with the list of aborted transactions flow out. Batches are views into the
 * answer; nothing is copied or decoded here.
 */
import { type KafkaRequest, WireReader, WireWriter } from './wire.ts';

export interface AbortedTransaction {
  readonly producerId: bigint;
  readonly firstOffset: bigint;
}

export interface RawPartition {
  readonly partition: number;
  readonly errorCode: number;
  readonly lowWatermark: bigint;
  readonly lastStableOffset: bigint;
  readonly aborted: readonly AbortedTransaction[];
  /** Record batches one after the other; the last may be cut off. */
  readonly batches: Buffer;
}

interface RawFetch {
  readonly errorCode: number;
  readonly partitions: readonly RawPartition[];
}

/** What the network may add to the broker's own wait. */
const answerGraceMs = 30_000;

/** No answer is larger than this, except by one record batch that is larger on its own. */
const answerBytesMax = 4 * 1024 * 1024;

export function fetchCommitted(
  topic: string,
  from: readonly (readonly [partition: number, offset: bigint])[],
  maxWaitMs: number,
  partitionBytesMax: number,
): KafkaRequest<RawFetch> {
  const noReplica = -1;
  const readCommitted = 1;
  const unknown = -1;
  const bytesMin = 1;
  const bytesMax = Math.min(answerBytesMax, partitionBytesMax * from.length);
  const writer = new WireWriter().int32(noReplica).int32(maxWaitMs).int32(bytesMin);
  writer.int32(bytesMax).int8(readCommitted);
  // No fetch session: each request names all its partitions, so the broker keeps no state.
  writer.int32(0).int32(-1).int32(1).string(topic).int32(from.length);
  for (const [partition, offset] of from) {
    writer.int32(partition).int32(unknown).int64(offset).int64(-1n).int32(partitionBytesMax);
  }
  writer.int32(0).string('');
  return {
    apiKey: 1,
    apiVersion: 11,
    apiName: 'Fetch',
    body: writer.finish(),
    timeoutMs: maxWaitMs + answerGraceMs,
    decode: decodeFetch,
  };
}

function decodeFetch(payload: Buffer): RawFetch {
  const reader = new WireReader(payload);
  reader.int32();
  const errorCode = reader.int16();
  reader.int32();
  const topics = reader.array(() => {
    reader.string();
    return reader.array(() => decodePartition(reader));
  });
  return { errorCode, partitions: topics.flat() };
}

function decodePartition(reader: WireReader): RawPartition {
  const partition = reader.int32();
  const errorCode = reader.int16();
  reader.int64();
  const lastStableOffset = reader.int64();
  const lowWatermark = reader.int64();
  const aborted = reader.array(() => ({
    producerId: reader.int64(),
    firstOffset: reader.int64(),
  }));
  reader.int32();
  const batches = reader.bytes();
  return { partition, errorCode, lowWatermark, lastStableOffset, aborted, batches };
}
