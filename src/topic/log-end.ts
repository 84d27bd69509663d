/**
 * Reads where the log ends: every partition's committed tail, further and further back until a mark
 * is found that all partitions hold. Flows in: a reader, a decoder and how far to read; flows out:
 * a LogEnd. The reader goes up to the last stable offsets it was told, past every marker.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { CommittedReader, Watermarks } from './log.ts';
import { findLogEnd, type LogEnd, type Tail } from './partition-tails.ts';
import type { RecordDecoder } from './record-decoder.ts';
import type { StreamRecord } from './stream-record.ts';

/** Most tails hold a point within their last records; each further look doubles this. */
const firstLookBack = 512n;
const fetchMaxWaitMs = 500;
const settleMs = 300;

export async function readLogEnd(
  reader: CommittedReader,
  decoder: RecordDecoder,
  watermarks: readonly Watermarks[],
): Promise<LogEnd> {
  for (let lookBack = firstLookBack; ; lookBack *= 2n) {
    const tails: Tail[] = [];
    for (const watermark of watermarks)
      tails.push(await readTail(reader, decoder, watermark, lookBack));
    const end = findLogEnd(tails);
    if (end !== null) return end;
  }
}

/**
 * The end of a log that nobody writes to any more, for whoever has just fenced the others. A broker
 * that has just restarted knows an older high watermark for a moment: the end counts once two looks
 * agree. While somebody writes they never would.
 */
export async function settledWatermarks(reader: CommittedReader): Promise<readonly Watermarks[]> {
  let before = await reader.watermarks();
  for (;;) {
    await sleep(settleMs);
    const now = await reader.watermarks();
    const same = now.every(({ lastStableOffset }, i) => {
      return lastStableOffset === before[i]?.lastStableOffset;
    });
    if (same) return now;
    before = now;
  }
}

async function readTail(
  reader: CommittedReader,
  decoder: RecordDecoder,
  watermark: Watermarks,
  lookBack: bigint,
): Promise<Tail> {
  const { partition, lowWatermark, lastStableOffset } = watermark;
  const isShort = lastStableOffset - lowWatermark <= lookBack;
  const start = isShort ? lowWatermark : lastStableOffset - lookBack;
  const records: StreamRecord[] = [];
  let offset = start;
  while (offset < lastStableOffset) {
    const [fetched] = await reader.fetch(new Map([[partition, offset]]), {
      maxWaitMs: fetchMaxWaitMs,
    });
    if (fetched === undefined) break;
    records.push(...(await decoder.decode(fetched.records)));
    offset = fetched.nextOffset;
  }
  return { partition, records, reachesStart: start === lowWatermark };
}
