/**
 * Reads the end of a log: the committed tail of every partition, longer and longer ones until they
 * hold a checkpoint that all partitions have. Flows in: a reader, a decoder and the offsets to read
 * up to; flows out: a LogEnd.
 *
 * The offsets to read up to are the delicate part. A last stable offset can be below a transaction
 * that was committed and answered: a coordinator that crashes after its answer and before the
 * markers loads the decision when it returns, and drops the markers of partitions whose leader it
 * does not know yet (Kafka 4.3.1, seen after every second kill -9 of a lone broker). The
 * transaction is complete for the coordinator and open in the partitions, until the same producer
 * ends another one there. A leader that took that offset for the end would begin its epoch below a
 * batch that was confirmed to the slot. `commitReadably` is the way out.
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

/** Most tails hold a point within their last records; each longer tail doubles this. */
const firstTailOffsets = 512n;
/** The smallest answer: a broker sends no less than a batch. */
const oneBatch = { maxBytes: 1 };
const stablePollMs = 20;
/** Markers take milliseconds, and seconds where a broker has just returned. */
const stablePatienceMs = 30_000;

interface EndSource {
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
}

export async function readLogEnd(
  reader: CommittedReader,
  decoder: RecordDecoder,
  watermarks: readonly Watermarks[],
): Promise<LogEnd> {
  for (let length = firstTailOffsets; ; length *= 2n) {
    const tails: Tail[] = [];
    for (const watermark of watermarks)
      tails.push(await readTail({ reader, decoder }, watermark, length));
    const end = findLogEnd(tails);
    if (end !== null) return end;
  }
}

/** The begin of an epoch, and where it was written. */
interface WrittenBegin extends Pick<EpochBegin, 'streamId'> {
  /** After the begin in each partition. */
  readonly checkpoint: Checkpoint;
}

/**
 * Whether a log is the one in which an epoch began: every partition has the begin just before the
 * offset in `checkpoint`. A topic that was deleted and re-created may be longer than the first one,
 * and the records at its end may be of the same stream: an agent went on writing without noticing.
 * A partition that was truncated past that offset is passed over. Reads one record of each
 * partition.
 */
export async function holdsBegin(
  reader: CommittedReader,
  decoder: RecordDecoder,
  watermarks: readonly Watermarks[],
  { checkpoint, streamId }: WrittenBegin,
): Promise<boolean> {
  for (const { partition, lowWatermark, lastStableOffset } of watermarks) {
    const offset = (checkpoint.nextOffsets[partition] ?? 0n) - 1n;
    // rule: own-begin-is-where-it-was-written
    if (offset < lowWatermark) continue;
    if (offset >= lastStableOffset) return false;
    const record = await recordOf({ reader, decoder }, partition, offset);
    if (record?.kind !== 'epoch' || record.begin.streamId !== streamId) return false;
    if (compareEpochLsn(beginsAt(record.begin), checkpoint.at) !== 0) return false;
  }
  return true;
}

/** A fetch returns the whole batch around the record: nothing else of it is decoded. */
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
  /** Read after the commit: past those records in every partition. */
  readonly ends: readonly Watermarks[];
}

/**
 * Commits records to every partition and waits until all can be read: everything that was ever
 * committed is below them then, and stays. For a node that has fenced the other producers, which
 * then write nothing more. A transaction that was decided and left open ends with this one,
 * committed: if it was whole, it was the former leader's last batch, whose rows are in its WAL; if
 * not, it is torn, and the next epoch voids it.
 */
export async function commitReadably(
  producer: TransactionalProducer,
  records: readonly OutgoingRecord[],
  reader: CommittedReader,
  clock: Clock,
): Promise<Readable> {
  // rule: fence-is-written
  await producer.send(records);
  // rule: fence-is-committed
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
    // The next attempt ends what a crash of the coordinator left open, but not what another
    // program opened.
    if (clock.nowMs() > deadlineMs) {
      throw openTransaction(behind.partition, behind.lastStableOffset);
    }
    await clock.sleep(stablePollMs);
  }
}

async function readTail(
  { reader, decoder }: EndSource,
  watermark: Watermarks,
  length: bigint,
): Promise<Tail> {
  const { partition, lowWatermark, lastStableOffset } = watermark;
  const isShort = lastStableOffset - lowWatermark <= length;
  const start = isShort ? lowWatermark : lastStableOffset - length;
  const records: StreamRecord[] = [];
  const stretch = { partition, start, end: lastStableOffset };
  const places: TailSource['decoder'] = {
    decode: async (fetched) => decoder.decodePlaces(fetched),
  };
  const source = { reader, decoder: places };
  for await (const { decoded } of tailPartition(source, stretch)) records.push(...decoded);
  return { partition, records, reachesStart: start === lowWatermark };
}
