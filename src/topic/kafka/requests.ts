/**
 * The requests that the log is written and read with, but for fetch: values flow in, a request
 * flows out. The versions are the newest without tagged fields: every broker from 2.3 to today's
 * 4.x speaks them.
 */
import { type KafkaRequest, WireReader, WireWriter } from './wire.ts';

/** Brokers answer a request that reaches them; this covers a connection that is dead. */
const answerTimeoutMs = 30_000;
/** How long a broker may wait for its replicas before it answers a produce request by an error. */
const replicasTimeoutMs = 20_000;

interface PartitionError {
  readonly partition: number;
  readonly errorCode: number;
}

/** The answers for the partitions of all topics; `rest` reads the fields after the error code. */
function decodePartitions<T>(reader: WireReader, rest: (answer: PartitionError) => T): T[] {
  return reader
    .array(() => {
      reader.string();
      return reader.array(() => rest({ partition: reader.int32(), errorCode: reader.int16() }));
    })
    .flat();
}

/** Finds the broker that holds the state of a transactional id. */
export function findTransactionCoordinator(
  transactionalId: string,
): KafkaRequest<{ readonly errorCode: number; readonly nodeId: number }> {
  const transactionKeyType = 1;
  return {
    apiKey: 10,
    apiVersion: 1,
    apiName: 'FindCoordinator',
    body: new WireWriter().string(transactionalId).int8(transactionKeyType).finish(),
    timeoutMs: answerTimeoutMs,
    decode: (payload) => {
      const reader = new WireReader(payload);
      reader.int32();
      const errorCode = reader.int16();
      reader.string();
      return { errorCode, nodeId: reader.int32() };
    },
  };
}

/** The identity a coordinator gave to one opening of a transactional id. */
export interface ProducerIdentity {
  readonly producerId: bigint;
  readonly producerEpoch: number;
}

export function initProducerId(
  transactionalId: string,
  transactionTimeoutMs: number,
): KafkaRequest<ProducerIdentity & { readonly errorCode: number }> {
  return {
    apiKey: 22,
    apiVersion: 1,
    apiName: 'InitProducerId',
    body: new WireWriter().string(transactionalId).int32(transactionTimeoutMs).finish(),
    timeoutMs: answerTimeoutMs,
    decode: (payload) => {
      const reader = new WireReader(payload);
      reader.int32();
      const errorCode = reader.int16();
      return { errorCode, producerId: reader.int64(), producerEpoch: reader.int16() };
    },
  };
}

export function addPartitionsToTransaction(
  transactionalId: string,
  identity: ProducerIdentity,
  topic: string,
  partitions: readonly number[],
): KafkaRequest<readonly PartitionError[]> {
  const writer = new WireWriter().string(transactionalId);
  writer.int64(identity.producerId).int16(identity.producerEpoch);
  writer.int32(1).string(topic).int32(partitions.length);
  for (const partition of partitions) writer.int32(partition);
  return {
    apiKey: 24,
    apiVersion: 1,
    apiName: 'AddPartitionsToTxn',
    body: writer.finish(),
    timeoutMs: answerTimeoutMs,
    decode: (payload) => {
      const reader = new WireReader(payload);
      reader.int32();
      return decodePartitions(reader, (answer) => answer);
    },
  };
}

/** Commits. There is no request for an abort: the next owner's InitProducerId aborts. */
export function commitTransaction(
  transactionalId: string,
  identity: ProducerIdentity,
): KafkaRequest<{ readonly errorCode: number }> {
  const writer = new WireWriter().string(transactionalId);
  writer.int64(identity.producerId).int16(identity.producerEpoch).int8(1);
  return {
    apiKey: 26,
    apiVersion: 1,
    apiName: 'EndTxn',
    body: writer.finish(),
    timeoutMs: answerTimeoutMs,
    decode: (payload) => {
      const reader = new WireReader(payload);
      reader.int32();
      return { errorCode: reader.int16() };
    },
  };
}

export interface PartitionBatch {
  readonly partition: number;
  /** One record batch, as it is stored. */
  readonly bytes: Buffer;
}

interface ProducedPartition extends PartitionError {
  readonly baseOffset: bigint;
}

/** Room for the fields beside the batches, so that these are copied once; a hint, no limit. */
const requestFieldsBytes = 512;
const batchFieldsBytes = 8;

/** Appends one record batch to each named partition and waits for all in-sync replicas. */
export function produce(
  transactionalId: string | null,
  topic: string,
  batches: readonly PartitionBatch[],
): KafkaRequest<readonly ProducedPartition[]> {
  const allInSyncReplicas = -1;
  const batchesBytes = batches.reduce((sum, { bytes }) => sum + bytes.length + batchFieldsBytes, 0);
  const writer = new WireWriter(requestFieldsBytes + batchesBytes);
  writer.string(transactionalId).int16(allInSyncReplicas);
  writer.int32(replicasTimeoutMs).int32(1).string(topic).int32(batches.length);
  for (const { partition, bytes } of batches) writer.int32(partition).bytes(bytes);
  return {
    apiKey: 0,
    apiVersion: 7,
    apiName: 'Produce',
    body: writer.finish(),
    timeoutMs: replicasTimeoutMs + answerTimeoutMs,
    decode: (payload) => {
      const reader = new WireReader(payload);
      return decodePartitions(reader, (answer) => {
        const baseOffset = reader.int64();
        reader.int64();
        reader.int64();
        return { ...answer, baseOffset };
      });
    },
  };
}

export const offsetOf = { lastStable: -1n, first: -2n } as const;

interface ListedOffset extends PartitionError {
  readonly offset: bigint;
}

/** First offset, or last stable offset, of partitions that the asked broker leads. */
export function listOffsets(
  topic: string,
  partitions: readonly number[],
  which: keyof typeof offsetOf,
): KafkaRequest<readonly ListedOffset[]> {
  const noReplica = -1;
  const readCommitted = 1;
  const writer = new WireWriter().int32(noReplica).int8(readCommitted);
  writer.int32(1).string(topic).int32(partitions.length);
  for (const partition of partitions) writer.int32(partition).int64(offsetOf[which]);
  return {
    apiKey: 2,
    apiVersion: 3,
    apiName: 'ListOffsets',
    body: writer.finish(),
    timeoutMs: answerTimeoutMs,
    decode: (payload) => {
      const reader = new WireReader(payload);
      reader.int32();
      return decodePartitions(reader, (answer) => {
        reader.int64();
        return { ...answer, offset: reader.int64() };
      });
    },
  };
}
