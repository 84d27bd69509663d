/**
 * The one loop that reads a log: fetches, decodes and hands over, until the caller wants nothing
 * more or a signal is aborted. Flows in: a reader with its decoder, and before each fetch the
 * partitions and offsets that the caller wants; flows out: one answer for each fetch, with the
 * decoded records of each partition in offset order. Offsets are the caller's: only the caller
 * knows when it has taken what it was handed. Nothing is read ahead: the next fetch is sent when
 * the next answer is asked for.
 */
import type { CommittedReader, FetchedPartition, FetchedRecord } from './log.ts';
import type { StreamRecord } from './records/stream-record.ts';

/** A reader, and what decodes its records. */
export interface TailSource<T = StreamRecord> {
  readonly reader: CommittedReader;
  readonly decoder: { decode(records: readonly FetchedRecord[]): Promise<readonly T[]> };
}

/** A fetched partition with its decoded records; the decoder may leave records out. */
export interface TailedPartition<T = StreamRecord> extends FetchedPartition {
  readonly decoded: readonly T[];
}

/**
 * A broker answers as soon as it has records; this only bounds how long a fetch waits where there
 * are none.
 */
const fetchMaxWaitMs = 500;

interface TailOptions {
  /** Default: `fetchMaxWaitMs`. */
  readonly maxWaitMs?: number;
  /** For each partition and fetch; default: the reader's. */
  readonly maxBytes?: number;
  /** Ends the loop. The caller closes the reader, which ends a fetch that waits at the broker. */
  readonly signal?: AbortSignal;
}

/**
 * Fetches from the offsets that `wanted` returns, until it returns none. After an abort an error of
 * the reader only means that the fetch under way ended, and is not thrown.
 */
export async function* tail<T>(
  source: TailSource<T>,
  wanted: () => ReadonlyMap<number, bigint>,
  options: TailOptions = {},
): AsyncGenerator<readonly TailedPartition<T>[], void, undefined> {
  const { maxWaitMs = fetchMaxWaitMs, maxBytes, signal } = options;
  const fetchOptions = { maxWaitMs, ...(maxBytes !== undefined && { maxBytes }) };
  while (signal?.aborted !== true) {
    const from = wanted();
    if (from.size === 0) return;
    let fetched: readonly FetchedPartition[];
    try {
      fetched = await source.reader.fetch(from, fetchOptions);
    } catch (error) {
      if (signal?.aborted) return;
      throw error;
    }
    const tailed: TailedPartition<T>[] = [];
    for (const one of fetched) {
      tailed.push({ ...one, decoded: await source.decoder.decode(one.records) });
    }
    yield tailed;
  }
}

/** One partition from an offset until `end`, which is exclusive and may lie behind a marker. */
export async function* tailPartition<T>(
  source: TailSource<T>,
  { partition, start, end }: { partition: number; start: bigint; end: bigint },
  options: TailOptions = {},
): AsyncGenerator<TailedPartition<T>, void, undefined> {
  let offset = start;
  const wanted = () => new Map(offset < end ? [[partition, offset] as const] : []);
  for await (const [tailed] of tail(source, wanted, options)) {
    if (tailed === undefined) return;
    yield tailed;
    offset = tailed.nextOffset;
  }
}
