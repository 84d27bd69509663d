/**
 * The bytes of the seven Kafka requests that the log is written and read with. Values flow in and
 * a request flows out that knows how to decode its answer; errors inside answers are left to the
 * caller, who alone knows what may be tried again. The versions are the newest without tagged
 * fields: every broker from 2.3 to today's 4.x speaks them.
 */

export interface KafkaRequest<T> {
  readonly apiKey: number;
  readonly apiVersion: number;
  readonly apiName: string;
  readonly body: Buffer;
  /** How long the client waits for the answer. */
  readonly timeoutMs: number;
  readonly decode: (payload: Buffer) => T;
}

/** Brokers answer a request that reaches them; this covers a connection that went silent. */
const answerTimeoutMs = 30_000;
/** How long a broker may wait for its replicas before it answers a produce request by an error. */
const replicasTimeoutMs = 20_000;

/** Writes the primitive types of the protocol into one growing buffer. */
export class WireWriter {
  #bytes: Buffer;
  #length = 0;

  constructor(sizeBytes = 256) {
    this.#bytes = Buffer.allocUnsafe(sizeBytes);
  }

  #room(size: number): number {
    const at = this.#length;
    this.#length += size;
    if (this.#length > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(this.#length * 2);
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    return at;
  }

  int8(value: number): this {
    const at = this.#room(1);
    this.#bytes.writeInt8(value, at);
    return this;
  }

  int16(value: number): this {
    const at = this.#room(2);
    this.#bytes.writeInt16BE(value, at);
    return this;
  }

  int32(value: number): this {
    const at = this.#room(4);
    this.#bytes.writeInt32BE(value, at);
    return this;
  }

  int64(value: bigint): this {
    const at = this.#room(8);
    this.#bytes.writeBigInt64BE(value, at);
    return this;
  }

  string(value: string | null): this {
    if (value === null) return this.int16(-1);
    const size = Buffer.byteLength(value);
    this.int16(size);
    const at = this.#room(size);
    this.#bytes.write(value, at);
    return this;
  }

  bytes(value: Buffer): this {
    this.int32(value.length);
    const at = this.#room(value.length);
    value.copy(this.#bytes, at);
    return this;
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** Reads the primitive types of the protocol; byte fields are views into the answer. */
export class WireReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  #step(size: number): number {
    const at = this.#at;
    this.#at += size;
    return at;
  }

  int16(): number {
    return this.#bytes.readInt16BE(this.#step(2));
  }

  int32(): number {
    return this.#bytes.readInt32BE(this.#step(4));
  }

  int64(): bigint {
    return this.#bytes.readBigInt64BE(this.#step(8));
  }

  string(): string {
    const size = this.int16();
    if (size < 0) return '';
    const at = this.#step(size);
    return this.#bytes.toString('utf8', at, at + size);
  }

  bytes(): Buffer {
    const size = this.int32();
    if (size <= 0) return Buffer.alloc(0);
    const at = this.#step(size);
    return this.#bytes.subarray(at, at + size);
  }

  array<T>(item: () => T): T[] {
    const items: T[] = [];
    for (let left = this.int32(); left > 0; left -= 1) items.push(item());
    return items;
  }
}

interface PartitionError {
  readonly partition: number;
  readonly errorCode: number;
}

/** Who holds the state of a transactional id. */
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
      return reader
        .array(() => {
          reader.string();
          return reader.array(() => ({ partition: reader.int32(), errorCode: reader.int16() }));
        })
        .flat();
    },
  };
}

/** Commits. Ending by abort is not asked for: the next owner's InitProducerId does that. */
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

/** Room for what stands beside the batches, so that they are copied once; a hint, no limit. */
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
      return reader
        .array(() => {
          reader.string();
          return reader.array(() => {
            const partition = reader.int32();
            const errorCode = reader.int16();
            const baseOffset = reader.int64();
            reader.int64();
            reader.int64();
            return { partition, errorCode, baseOffset };
          });
        })
        .flat();
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
      return reader
        .array(() => {
          reader.string();
          return reader.array(() => {
            const partition = reader.int32();
            const errorCode = reader.int16();
            reader.int64();
            return { partition, errorCode, offset: reader.int64() };
          });
        })
        .flat();
    },
  };
}
