/**
 * Reads a batch again that was too large to hold, while it is applied. Flows in: its stretch of
 * every partition and the window that is wanted; flows out: steps, piece after piece. The next
 * piece is read while the caller works on the one before; no more than two are in memory.
 */
import { isCovered } from '../../change/position.ts';
import type { CommittedReader, FetchedPartition } from '../../topic/log.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import type { AlignedLarge, ContentRecord } from './aligner.ts';
import { type ApplyStep, type ApplyWindow, coalesce } from './coalesce.ts';
import { PositionMerge } from './position-merge.ts';

/** What is read is in the log: a broker that answers late only moved. */
const fetchMaxWaitMs = 500;

/** The reader is the caller's, and must not be used otherwise until the steps end. */
export async function* stepsOfLarge(
  { reader, decoder }: { readonly reader: CommittedReader; readonly decoder: RecordDecoder },
  batch: AlignedLarge,
  window: ApplyWindow,
): AsyncGenerator<ApplyStep> {
  const merge = new PositionMerge(batch);
  const fetch = (): Promise<readonly FetchedPartition[]> => {
    const wanted = merge.wanted();
    if (wanted.size === 0) return Promise.resolve([]);
    return reader.fetch(wanted, { maxWaitMs: fetchMaxWaitMs });
  };
  let fetching = fetch();
  try {
    for (let isPast = false; !isPast; ) {
      for (const { partition, records, nextOffset } of await fetching) {
        merge.push(partition, await decoder.decode(records), nextOffset);
      }
      const isLast = merge.complete;
      const partitions = merge.next();
      isPast = isLast || partitions.some((records) => endsPast(records, window));
      if (!isPast) {
        fetching = fetch();
        // Whoever takes the next piece hears of its failure.
        fetching.catch(() => undefined);
      }
      yield* coalesce([{ partitions }], window);
    }
  } finally {
    await Promise.allSettled([fetching]);
  }
}

/** Everything after a record that is past the window is past it too. */
function endsPast(records: readonly ContentRecord[], { to }: ApplyWindow): boolean {
  const last = records[records.length - 1];
  return to !== null && last !== undefined && !isCovered(last.position, to);
}
