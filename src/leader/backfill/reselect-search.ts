/**
 * Finds in the topic which keys need their row. Flows in: the log from a checkpoint to its end, and
 * the bases of its epochs; flows out: keys whose last valid record is partial, and keys of void
 * records: compaction keeps the newest record of a key, void or not, and may have dropped the valid
 * one beneath. Keys that were healed meanwhile may be found again: that costs a read.
 */
import type { Checkpoint, RelationId } from '../../change/change.ts';
import { type EpochBase, isVoid } from '../../change/position.ts';
import type { CommittedReader } from '../../topic/log.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import type { StreamRecord } from '../../topic/records/stream-record.ts';
import type { RowKey } from './row-overlay.ts';

/** The keys of one partition, in offset order. */
export class FoundKeys {
  readonly #epochs: readonly EpochBase[];
  readonly #keys = new Map<string, RowKey>();

  constructor(epochs: readonly EpochBase[]) {
    this.#epochs = epochs;
  }

  get keys(): readonly RowKey[] {
    return [...this.#keys.values()];
  }

  get size(): number {
    return this.#keys.size;
  }

  take(record: StreamRecord): void {
    if (record.kind !== 'row' && record.kind !== 'truncate') return;
    const isOfNobody = isVoid(record.position, this.#epochs);
    if (record.kind === 'truncate') {
      if (!isOfNobody) this.#truncated(record.relationId);
      return;
    }
    const text = record.key.toString('latin1');
    const { relationId, identity } = record;
    if (isOfNobody || record.unchanged !== null) this.#keys.set(text, { relationId, identity });
    else this.#keys.delete(text);
  }

  #truncated(relationId: RelationId): void {
    for (const [text, key] of this.#keys) {
      if (key.relationId === relationId) this.#keys.delete(text);
    }
  }
}

interface SearchedPart {
  readonly keys: readonly RowKey[];
  readonly isAll: boolean;
}

const fetchMaxWaitMs = 500;
/** What one part may bring: beyond, the rest comes once these are done. */
const partKeysMax = 10_000;

/**
 * A search from a checkpoint to the end of the log as it is at its first part; the reader is its
 * own.
 */
export class ReselectSearch {
  readonly #reader: CommittedReader;
  readonly #decoder: RecordDecoder;
  readonly #epochs: readonly EpochBase[];
  readonly #offsets: bigint[];
  #ends: readonly bigint[] | null = null;

  constructor(
    reader: CommittedReader,
    decoder: RecordDecoder,
    epochs: readonly EpochBase[],
    from: Checkpoint,
  ) {
    this.#reader = reader;
    this.#decoder = decoder;
    this.#epochs = epochs;
    this.#offsets = [...from.nextOffsets];
  }

  async next(keysMax = partKeysMax): Promise<SearchedPart> {
    const ends = await this.#endsOnce();
    const keys: RowKey[] = [];
    for (const [partition, end] of ends.entries()) {
      const found = new FoundKeys(this.#epochs);
      while ((this.#offsets[partition] ?? end) < end) {
        if (keys.length + found.size >= keysMax)
          return { keys: [...keys, ...found.keys], isAll: false };
        await this.#readOn(partition, end, found);
      }
      keys.push(...found.keys);
    }
    return { keys, isAll: true };
  }

  close(): Promise<void> {
    return this.#reader.close();
  }

  async #readOn(partition: number, end: bigint, found: FoundKeys): Promise<void> {
    const from = new Map([[partition, this.#offsets[partition] ?? end]]);
    const [fetched] = await this.#reader.fetch(from, { maxWaitMs: fetchMaxWaitMs });
    if (fetched === undefined) return;
    for (const record of await this.#decoder.decode(fetched.records)) found.take(record);
    this.#offsets[partition] = fetched.nextOffset;
  }

  async #endsOnce(): Promise<readonly bigint[]> {
    this.#ends ??= (await this.#reader.watermarks()).map(
      ({ lastStableOffset }) => lastStableOffset,
    );
    return this.#ends;
  }
}
