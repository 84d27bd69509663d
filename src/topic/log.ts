/**
 * The interfaces of a log, so that another Kafka client can implement them: a producer whose
 * transactions are whole or absent, and a reader that never chooses an offset by itself. Both work
 * only when called and keep no position of the caller: back-pressure is not calling them.
 */

export interface OutgoingRecord {
  readonly partition: number;
  readonly key: Buffer;
  /** null is a tombstone. */
  readonly value: Buffer | null;
  /** Text headers; undefined members are left out. */
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * One producer object lives from `open` to its first error. After any rejection it is dead: every
 * later call rejects, and the caller creates a new one and reads the log to learn what was
 * committed.
 */
export interface TransactionalProducer {
  /** Fences the former owner of the transactional id and ends its open transaction. */
  open(): Promise<void>;
  /**
   * Appends to the open transaction, or begins one. Order per partition is kept.
   */
  send(records: readonly OutgoingRecord[]): Promise<void>;
  /**
   * Commits. Resolves with the offset of the last record that was sent to each partition in this
   * transaction (null where none was).
   */
  commit(): Promise<readonly (bigint | null)[]>;
  /** Drops the connection without ending the transaction: the next owner's `open` ends it. */
  close(): Promise<void>;
}

export interface FetchedRecord {
  readonly partition: number;
  readonly offset: bigint;
  /** LogAppendTime, milliseconds since 1970. */
  readonly timestampMs: number;
  /** Empty when the record had none. */
  readonly key: Buffer;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
}

export interface FetchedPartition {
  readonly partition: number;
  /** Committed records in offset order; without markers and aborted records. */
  readonly records: readonly FetchedRecord[];
  /** Where the next fetch continues: past all that was read, markers and aborted records too. */
  readonly nextOffset: bigint;
  /** The log start offset. */
  readonly lowWatermark: bigint;
  /** Every transaction below is decided; a fetch returns records up to here. */
  readonly lastStableOffset: bigint;
  /** The broker that returned them: each broker compacts its own copy. */
  readonly broker: number;
}

export interface Watermarks {
  readonly partition: number;
  readonly lowWatermark: bigint;
  readonly lastStableOffset: bigint;
}

/** Reads committed records at offsets the caller names. */
export interface CommittedReader {
  /** Low watermark and last stable offset of every partition, as the brokers report them now. */
  watermarks(): Promise<readonly Watermarks[]>;
  /**
   * One fetch of the named partitions from the named offsets. Waits at the broker up to `maxWaitMs`
   * until there are records; resolves with one entry per named partition, possibly without records.
   * An offset below the low watermark or past the end rejects with NODE_DAMAGED: there is no
   * silent reset.
   */
  fetch(
    from: ReadonlyMap<number, bigint>,
    options: { readonly maxWaitMs: number; readonly maxBytes?: number },
  ): Promise<readonly FetchedPartition[]>;
  close(): Promise<void>;
}
