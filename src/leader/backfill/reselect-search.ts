/**
 * Finds in the topic which keys need their row. Flows in: the log from a checkpoint to its end, and
 * the bases of its epochs; flows out: keys whose last valid record is partial, and keys of void
 * records: compaction keeps the newest record of a key, void or not, and may have removed the valid
 * one below it. Keys whose row was published meanwhile may be found again: that costs a read.
 */
import type { Checkpoint, RelationId, RowKey } from '../../change/change.ts';
import { type EpochBase, isVoid } from '../../change/position.ts';
import type { CommittedReader } from '../../topic/log.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import type { StreamRecord } from '../../topic/records/stream-record.ts';
import { type TailSource, tail } from '../../topic/tailer.ts';

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
    const isVoided = isVoid(record.position, this.#epochs);
    if (record.kind === 'truncate') {
      if (!isVoided) this.#truncated(record.relationId);
      return;
    }
    const text = record.key.toString('latin1');
    const { relationId, identity } = record;
    if (isVoided || record.unchanged !== null) this.#keys.set(text, { relationId, identity });
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

/** The keys of one part; the search continues once these are done. */
const partKeysMax = 10_000;

/** A search from a checkpoint to the end that the log has at its first part. Owns its reader. */
export class ReselectSearch {
  readonly #reader: CommittedReader;
  readonly #source: TailSource;
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
    this.#source = { reader, decoder };
    this.#epochs = epochs;
    this.#offsets = [...from.nextOffsets];
  }

  async next(keysMax = partKeysMax): Promise<SearchedPart> {
    const ends = await this.#endsOnce();
    const keys: RowKey[] = [];
    for (const [partition, end] of ends.entries()) {
      const found = new FoundKeys(this.#epochs);
      const offset = (): bigint => this.#offsets[partition] ?? end;
      const wanted = (): ReadonlyMap<number, bigint> => {
        const isOver = offset() >= end || keys.length + found.size >= keysMax;
        return new Map(isOver ? [] : [[partition, offset()]]);
      };
      for await (const tailed of tail(this.#source, wanted)) {
        for (const { decoded, nextOffset } of tailed) {
          for (const record of decoded) found.take(record);
          this.#offsets[partition] = nextOffset;
        }
      }
      keys.push(...found.keys);
      if (offset() < end) return { keys, isAll: false };
    }
    return { keys, isAll: true };
  }

  close(): Promise<void> {
    return this.#reader.close();
  }

  async #endsOnce(): Promise<readonly bigint[]> {
    this.#ends ??= (await this.#reader.watermarks()).map(
      ({ lastStableOffset }) => lastStableOffset,
    );
    return this.#ends;
  }
}
