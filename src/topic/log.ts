/**
 * What the path needs of a log, so that a second Kafka client can stand behind it: a producer whose
 * transactions are whole or absent, and a reader that never chooses an offset by itself. Both are
 * pull-based and hold no memory of where the caller stands: back-pressure is not calling them.
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
 * later call rejects, and the caller makes a new one and reads the log to learn what was committed.
 */
export interface TransactionalProducer {
  /** Fences the former owner of the transactional id and ends its open transaction. */
  open(): Promise<void>;
  /**
   * Appends to the open transaction, beginning one if there is none. Order per partition is kept.
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
  /** Committed records in offset order; markers and aborted records are already gone. */
  readonly records: readonly FetchedRecord[];
  /** Where to go on: past everything that was looked at, markers and aborted records included. */
  readonly nextOffset: bigint;
  /** The log start offset. */
  readonly lowWatermark: bigint;
  /** Every transaction below is decided; what is read reaches up to here. */
  readonly lastStableOffset: bigint;
  /** Whose log this is: each broker compacts for itself. */
  readonly broker: number;
}

export interface Watermarks {
  readonly partition: number;
  readonly lowWatermark: bigint;
  readonly lastStableOffset: bigint;
}

/** Reads committed records at offsets the caller names. */
export interface CommittedReader {
  /** Low watermark and last stable offset of every partition, asked of the brokers now. */
  watermarks(): Promise<readonly Watermarks[]>;
  /**
   * One fetch of the named partitions from the named offsets. Waits at the broker up to `maxWaitMs`
   * until anything is there; resolves with one entry per named partition, possibly without records.
   * An offset below the low watermark or past the end rejects with DAMAGED: never a silent reset.
   */
  fetch(
    from: ReadonlyMap<number, bigint>,
    options: { readonly maxWaitMs: number; readonly maxBytes?: number },
  ): Promise<readonly FetchedPartition[]>;
  close(): Promise<void>;
}
