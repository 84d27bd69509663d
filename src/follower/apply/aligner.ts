/**
 * Holds every partition at a point until all have it. Flows in: the records of each partition in
 * offset order; flows out: whole batches, each with its point, and epoch begins. Pure: no I/O.
 *
 * Nothing is handed out before all partitions are at the same point and its record counts match, so
 * a transaction is never handed out in part. Records of a torn batch are dropped by the epoch begin
 * that voids them; any other mismatch is damage, and the follower stops.
 *
 * A batch that outgrows `heldBytesMax` is no longer held: its records are checked and counted as
 * they pass, and only its offsets in the topic are handed out.
 */
import type { Checkpoint, EpochBegin, Point } from '../../change/change.ts';
import { compareEpochLsn, comparePositions, formatEpochLsn } from '../../change/position.ts';
import { countsDiffer, GapError, otherStream } from '../../errors/topic.ts';
import type { EpochRecord, PointRecord, StreamRecord } from '../../topic/records/stream-record.ts';
import type {
  Aligned,
  AlignedBatch,
  AlignedEpoch,
  AlignedLarge,
  AlignStage,
  ContentRecord,
} from './stages.ts';

type Boundary = PointRecord | EpochRecord;

type RecordPosition = Pick<ContentRecord, 'position' | 'offset'>;

interface Held {
  /** Empty, whatever `count` says, once the open batch is too large to hold. */
  content: ContentRecord[];
  count: number;
  bytes: number;
  /** Of the lowest and of the highest position: a record of another batch is one of the two. */
  lowest: RecordPosition | null;
  highest: RecordPosition | null;
  newestCommitMicros: bigint | null;
  boundary: Boundary | null;
  /** Records after the boundary, not checked yet. */
  readonly queue: StreamRecord[];
  taken: number;
}

/** Measured: what a decoded record costs beside the bytes of its key and value. */
const recordBytes = 600;

/** What holding a record costs, roughly. */
export function heldBytes(record: ContentRecord): number {
  if (record.kind !== 'row') return recordBytes;
  return recordBytes + record.key.length + (record.value?.length ?? 0);
}

export class Aligner implements AlignStage {
  readonly #streamId: string;
  readonly #heldBytesMax: number;
  readonly #held: readonly Held[];
  #checkpoint: Checkpoint;
  /** Whether the open batch has outgrown the bound. */
  #isLarge = false;

  /** `heldBytesMax` bounds one batch; the records of one push may exceed it. */
  constructor(streamId: string, checkpoint: Checkpoint, heldBytesMax = Number.POSITIVE_INFINITY) {
    this.#streamId = streamId;
    this.#checkpoint = checkpoint;
    this.#heldBytesMax = heldBytesMax;
    this.#held = checkpoint.nextOffsets.map(() => ({
      content: [],
      count: 0,
      bytes: 0,
      lowest: null,
      highest: null,
      newestCommitMicros: null,
      boundary: null,
      queue: [],
      taken: 0,
    }));
  }

  /** The newest checkpoint that was handed out. */
  get checkpoint(): Checkpoint {
    return this.#checkpoint;
  }

  /** Whether a partition waits at a boundary for the others: it need not be read further. */
  waits(partition: number): boolean {
    return this.#held[partition]?.boundary !== null;
  }

  push(partition: number, records: readonly StreamRecord[]): void {
    const held = this.#held[partition];
    if (held === undefined)
      throw countsDiffer(`there is a partition ${partition}`, this.#checkpoint.at);
    for (const record of records) held.queue.push(record);
  }

  /** The next whole batch or epoch begin, or null until more records come. */
  next(): Aligned | null {
    for (;;) {
      for (const held of this.#held) this.#advance(held);
      const boundaries = this.#held.map((held) => held.boundary);
      // rule: void-boundaries-dropped
      if (this.#dropVoided(boundaries)) continue;
      // rule: batch-in-every-partition
      if (!boundaries.every((boundary) => boundary !== null)) return null;
      return this.#align(boundaries);
    }
  }

  /** Moves records from the queue up to the next boundary. */
  #advance(held: Held): void {
    while (held.boundary === null && held.taken < held.queue.length) {
      const record = held.queue[held.taken] as StreamRecord;
      held.taken += 1;
      if (record.kind === 'point' || record.kind === 'epoch') held.boundary = record;
      else take(held, record, this.#isLarge);
    }
    if (held.taken === held.queue.length) {
      held.queue.length = 0;
      held.taken = 0;
    }
    if (this.#isLarge || this.#bytes() <= this.#heldBytesMax) return;
    this.#isLarge = true;
    for (const other of this.#held) other.content = [];
  }

  #bytes(): number {
    return this.#held.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /**
   * The newest epoch begin that any partition is at voids the records past its base in other
   * partitions: the points and begins of lower epochs there are those of torn batches.
   */
  #dropVoided(boundaries: readonly (Boundary | null)[]): boolean {
    const newest = newestBegin(boundaries);
    if (newest === null) return false;
    const base = newest.base ?? { epoch: 0, lsn: newest.startLsn };
    let dropped = false;
    for (const held of this.#held) {
      const { boundary } = held;
      if (boundary === null || epochOf(boundary) >= newest.epoch) continue;
      const at = boundary.position;
      if (
        newest.base !== null &&
        compareEpochLsn({ epoch: at.epoch, lsn: at.commitLsn }, base) <= 0
      ) {
        throw this.#gap(`the point ${formatEpochLsn(base)} is in one partition and not in another`);
      }
      forget(held);
      dropped = true;
    }
    return dropped;
  }

  #align(boundaries: readonly Boundary[]): Aligned {
    const [first] = boundaries;
    if (first === undefined) throw countsDiffer('the topic has no partition', this.#checkpoint.at);
    const at = { epoch: first.position.epoch, lsn: first.position.commitLsn };
    const alike = boundaries.every(
      ({ kind, position }) =>
        kind === first.kind && position.epoch === at.epoch && position.commitLsn === at.lsn,
    );
    if (!alike) {
      const found = boundaries.map(({ kind, position }) => {
        return `${kind} ${formatEpochLsn({ epoch: position.epoch, lsn: position.commitLsn })}`;
      });
      throw this.#gap(`the partitions are at ${found.join(', ')}`);
    }
    const checkpoint = { at, nextOffsets: boundaries.map(({ offset }) => offset + 1n) };
    const appendMs = boundaries.map(({ timestampMs }) => timestampMs);
    const aligned =
      first.kind === 'point'
        ? this.#batch(first.point, checkpoint, appendMs)
        : this.#epoch(first.begin, checkpoint, appendMs);
    // rule: void-content-dropped
    for (const held of this.#held) forget(held);
    this.#isLarge = false;
    this.#checkpoint = checkpoint;
    return aligned;
  }

  #batch(
    point: Point,
    checkpoint: Checkpoint,
    appendMs: readonly number[],
  ): AlignedBatch | AlignedLarge {
    this.#checkStream(point.streamId);
    // rule: point-continues-checkpoint
    if (compareEpochLsn(point.previous.at, this.#checkpoint.at) !== 0) {
      throw this.#gap(
        `the point ${formatEpochLsn(checkpoint.at)} continues ${formatEpochLsn(point.previous.at)}`,
      );
    }
    for (const [partition, held] of this.#held.entries())
      this.#requireCount(point, partition, held);
    const newestCommitMicros = newestOf(this.#held);
    if (this.#isLarge) {
      return {
        kind: 'large',
        point,
        from: this.#checkpoint,
        checkpoint,
        appendMs,
        newestCommitMicros,
      };
    }
    const partitions = this.#held.map(({ content }) => content);
    const bytes = this.#bytes();
    return { kind: 'batch', point, partitions, bytes, checkpoint, appendMs, newestCommitMicros };
  }

  /** A partition holds as many records before the point as it counts, all of its own batch. */
  #requireCount(point: Point, partition: number, { count, lowest, highest }: Held): void {
    const begin = this.#checkpoint.at;
    const stranger = [lowest, highest].find((record) => {
      if (record === null) return false;
      const { epoch, commitLsn } = record.position;
      return epoch !== point.epoch || commitLsn >= point.upto || commitLsn < begin.lsn;
    });
    const counted = point.counts[partition];
    // rule: counts-compared
    if (stranger == null && count === counted) return;
    const what =
      `partition ${partition} holds ${count} records before the point ` +
      `${formatEpochLsn({ epoch: point.epoch, lsn: point.upto })}, which counts ${counted}` +
      (stranger == null ? '' : `, and the one at offset ${stranger.offset} is of another batch`);
    // Compaction takes records and never adds one.
    const isSurplus = counted === undefined || count > counted;
    // rule: surplus-is-damage
    if (stranger != null || isSurplus) throw countsDiffer(what, begin);
    throw this.#gap(what);
  }

  #epoch(begin: EpochBegin, checkpoint: Checkpoint, appendMs: readonly number[]): AlignedEpoch {
    this.#checkStream(begin.streamId);
    if (begin.epoch <= this.#checkpoint.at.epoch) {
      throw countsDiffer(`epoch ${begin.epoch} begins again`, this.#checkpoint.at);
    }
    if (begin.base === null || compareEpochLsn(begin.base, this.#checkpoint.at) !== 0) {
      const base = begin.base === null ? 'nothing' : formatEpochLsn(begin.base);
      throw this.#gap(`epoch ${begin.epoch} continues ${base}`);
    }
    // Held records are past the base and belong to a torn batch of a lower epoch: they are dropped
    // with the begin.
    return { kind: 'epoch', begin, checkpoint, appendMs };
  }

  #gap(what: string): GapError {
    return new GapError(what, this.#checkpoint.at);
  }

  #checkStream(streamId: string): void {
    if (streamId === this.#streamId) return;
    const expected = this.#streamId;
    const what = `the topic belongs to the stream ${streamId}, this node to ${expected}`;
    throw otherStream(what, { found: streamId, expected });
  }
}

function take(held: Held, record: ContentRecord, isLarge: boolean): void {
  if (!isLarge) held.content.push(record);
  held.count += 1;
  held.bytes += heldBytes(record);
  const { position, offset, commitTimeMicros } = record;
  // rule: newest-commit-of-batch, commits may be in the log in the other order
  held.newestCommitMicros = later(held.newestCommitMicros, commitTimeMicros);
  // Not the record: it is a view into a fetch answer, which it would keep in memory.
  if (held.lowest === null || comparePositions(position, held.lowest.position) < 0) {
    held.lowest = { position, offset };
  }
  if (held.highest === null || comparePositions(position, held.highest.position) > 0) {
    held.highest = { position, offset };
  }
}

/** Drops a boundary and the records before it; what was handed out is not changed. */
function forget(held: Held): void {
  held.content = [];
  held.count = 0;
  held.bytes = 0;
  held.lowest = null;
  held.highest = null;
  held.newestCommitMicros = null;
  held.boundary = null;
}

function newestOf(all: readonly Held[]): bigint | null {
  return all.reduce<bigint | null>((newest, { newestCommitMicros }) => {
    return newestCommitMicros === null ? newest : later(newest, newestCommitMicros);
  }, null);
}

function later(a: bigint | null, b: bigint): bigint {
  return a === null || b > a ? b : a;
}

function epochOf(boundary: Boundary): number {
  return boundary.position.epoch;
}

function newestBegin(boundaries: readonly (Boundary | null)[]): EpochBegin | null {
  let newest: EpochBegin | null = null;
  for (const boundary of boundaries) {
    if (boundary?.kind !== 'epoch') continue;
    if (newest === null || boundary.begin.epoch > newest.epoch) newest = boundary.begin;
  }
  return newest;
}
