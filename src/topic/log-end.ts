/**
 * Reads where the log ends: every partition's committed tail, further and further back until a
 * checkpoint is found that all partitions hold. Flows in: a reader, a decoder and how far to read;
 * flows out: a LogEnd. The reader goes up to the last stable offsets it was told, past every
 * marker.
 *
 * How far to read is the delicate part. A last stable offset can lie below a transaction that was
 * committed and answered: a coordinator that crashes after its answer and before the markers loads
 * the decision when it returns, and drops markers of partitions whose leader it does not know yet
 * (Kafka 4.3.1, seen after every second kill -9 of a lone broker). The transaction is complete for
 * the coordinator and open in the partitions, until the same producer ends another one there. A
 * leader that took that offset for the end would begin its epoch below a batch that the slot was
 * told of.
 */

import type { Checkpoint, EpochBegin } from '../change/change.ts';
import { compareEpochLsn, type EpochLsn } from '../change/position.ts';
import { bug } from '../errors/bug.ts';
import { openTransaction } from '../errors/unreachable.ts';
import type { Clock } from '../waiting.ts';
import type { CommittedReader, OutgoingRecord, TransactionalProducer, Watermarks } from './log.ts';
import { findLogEnd, type LogEnd, type Tail } from './partition-tails.ts';
import type { RecordDecoder } from './records/decoder.ts';
import type { StreamRecord } from './records/stream-record.ts';
import { type TailSource, tailPartition } from './tailer.ts';

/** Most tails hold a point within their last records; each further look doubles this. */
const firstLookBack = 512n;
/** The smallest answer: a broker sends no less than a batch. */
const oneBatch = { maxBytes: 1 };
const stablePollMs = 20;
/** Markers take milliseconds, and seconds where a broker has just returned. */
const stablePatienceMs = 30_000;

export async function readLogEnd(
  reader: CommittedReader,
  decoder: RecordDecoder,
  watermarks: readonly Watermarks[],
): Promise<LogEnd> {
  for (let lookBack = firstLookBack; ; lookBack *= 2n) {
    const tails: Tail[] = [];
    for (const watermark of watermarks)
      tails.push(await readTail({ reader, decoder }, watermark, lookBack));
    const end = findLogEnd(tails);
    if (end !== null) return end;
  }
}

/** An epoch's begin, and where it was written. */
interface WrittenBegin extends Pick<EpochBegin, 'streamId'> {
  /** Behind the begin in each partition. */
  readonly checkpoint: Checkpoint;
}

/**
 * Whether a log is the one in which an epoch began: every partition has the begin where
 * `checkpoint` says that it ended. A topic that was deleted and made again may be longer than the
 * first one, and what its end holds may be of the same stream: an agent wrote on without knowing.
 * Nothing is said of a partition whose beginning was deleted behind that place. Reads one record of
 * each partition.
 */
export async function holdsBegin(
  reader: CommittedReader,
  decoder: RecordDecoder,
  watermarks: readonly Watermarks[],
  { checkpoint, streamId }: WrittenBegin,
): Promise<boolean> {
  for (const { partition, lowWatermark, lastStableOffset } of watermarks) {
    const offset = (checkpoint.nextOffsets[partition] ?? 0n) - 1n;
    if (offset < lowWatermark) continue;
    if (offset >= lastStableOffset) return false;
    const record = await recordOf({ reader, decoder }, partition, offset);
    if (record?.kind !== 'epoch' || record.begin.streamId !== streamId) return false;
    if (compareEpochLsn(beginsAt(record.begin), checkpoint.at) !== 0) return false;
  }
  return true;
}

/** A fetch brings the whole batch around it: nothing else of it is decoded. */
async function recordOf(
  { reader, decoder }: TailSource,
  partition: number,
  offset: bigint,
): Promise<StreamRecord | undefined> {
  const only: TailSource['decoder'] = {
    decode: (records) => decoder.decode(records.filter((one) => one.offset === offset)),
  };
  const stretch = { partition, start: offset, end: offset + 1n };
  const found: StreamRecord[] = [];
  for await (const { decoded } of tailPartition({ reader, decoder: only }, stretch, oneBatch)) {
    found.push(...decoded);
  }
  return found[0];
}

function beginsAt({ epoch, startLsn }: EpochBegin): EpochLsn {
  return { epoch, lsn: startLsn };
}

interface Readable {
  /** Of the last record in each partition. */
  readonly offsets: readonly bigint[];
  /** Past them all. */
  readonly ends: readonly Watermarks[];
}

/**
 * Commits records to every partition and waits until all can be read: everything that was ever
 * committed lies below them then, and stays. For whoever has fenced the others, who then write
 * nothing more. A transaction that was decided and left open ends with this one, committed: if it
 * was whole, it was the former leader's last batch, whose rows are in its WAL; if not, it is torn,
 * and the next epoch voids it.
 */
export async function commitReadably(
  producer: TransactionalProducer,
  records: readonly OutgoingRecord[],
  reader: CommittedReader,
  clock: Clock,
): Promise<Readable> {
  await producer.send(records);
  const offsets = (await producer.commit()).map((offset) => {
    if (offset !== null) return offset;
    throw bug('a record misses a partition');
  });
  const deadlineMs = clock.nowMs() + stablePatienceMs;
  for (;;) {
    const ends = await reader.watermarks();
    const behind = ends.find(({ partition, lastStableOffset }) => {
      return lastStableOffset <= (offsets[partition] ?? 0n);
    });
    if (behind === undefined) return { offsets, ends };
    // The next attempt ends what a crash of the coordinator left open; not what a stranger opened.
    if (clock.nowMs() > deadlineMs) {
      throw openTransaction(behind.partition, behind.lastStableOffset);
    }
    await clock.sleep(stablePollMs);
  }
}

async function readTail(
  source: TailSource,
  watermark: Watermarks,
  lookBack: bigint,
): Promise<Tail> {
  const { partition, lowWatermark, lastStableOffset } = watermark;
  const isShort = lastStableOffset - lowWatermark <= lookBack;
  const start = isShort ? lowWatermark : lastStableOffset - lookBack;
  const records: StreamRecord[] = [];
  const stretch = { partition, start, end: lastStableOffset };
  for await (const { decoded } of tailPartition(source, stretch)) records.push(...decoded);
  return { partition, records, reachesStart: start === lowWatermark };
}
