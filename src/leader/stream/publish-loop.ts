/**
 * The leader's central loop: from WAL to Kafka and back to the slot. Flows in: WAL events, and how
 * far the topic was read back; flows out: Kafka transactions that end in points, then the
 * confirmation of exactly what they cover. After any error the loop ends and whoever started it
 * throws the producer away and reads from the log where it stands.
 *
 * Kafka's answer to a commit is not enough to confirm: a coordinator that dies behind it can leave
 * the transaction open in partitions, where a later abort ends it as never written. What was read
 * back as committed in every partition stays.
 */

import type { Change, Checkpoint, Point, RelationId } from '../../change/change.ts';
import { zeroLsn } from '../../change/lsn.ts';
import { type EpochLsn, formatEpochLsn, type Position } from '../../change/position.ts';
import { bug } from '../../errors/bug.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import type { Logger } from '../../logger.ts';
import type { OutgoingRecord, TransactionalProducer } from '../../topic/log.ts';
import type { RecordEncoder } from '../../topic/records/encoder.ts';
import { unlessAborted } from '../../waiting.ts';
import type { BackfillMerge } from '../backfill/backfill-merge.ts';
import type { Reselect } from '../backfill/reselect.ts';
import type { KnownTables } from '../tables/known-tables.ts';
import type { BatchAction, Batcher } from './batcher.ts';
import type { BuiltEvent, TransactionBuilder } from './transaction-builder.ts';
import type { WalEvent, WalSession } from './wal-session.ts';

interface PublishLoopParts {
  readonly wal: Pick<WalSession, 'shift' | 'onReadable' | 'confirm'>;
  readonly builder: TransactionBuilder;
  readonly tables: Pick<KnownTables, 'learn' | 'rereadable'>;
  readonly batcher: Batcher;
  readonly healing: Pick<Reselect, 'row' | 'truncated' | 'reread' | 'take'>;
  readonly chunks: Pick<BackfillMerge, 'row' | 'take' | 'reread'>;
  readonly encoder: RecordEncoder;
  readonly producer: TransactionalProducer;
  /** Where the log stands: what was read back so far. */
  readonly start: Checkpoint;
  /** Tells the control log of a named point, before it is confirmed. */
  readonly recordLabel: (label: string, point: Point, checkpoint: Checkpoint) => Promise<void>;
  readonly onPoint: (point: Point, checkpoint: Checkpoint, records: number) => void;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly nowMs: () => number;
}

/** After this much feeding other work of the process gets its turn. */
const feedEventsMax = 2_000;
/** Each is a fetch that waited at the brokers; markers take seconds where a broker returns. */
const looksInVainMax = 3;

export class PublishLoop {
  readonly #parts: PublishLoopParts;
  /** Of the source transaction under way. */
  #commitTimeMicros = 0n;
  #commitLsn = zeroLsn;
  #xid = 0;
  #inFlight: Promise<void> | null = null;
  #wakeUp: (() => void) | null = null;
  #failure: { readonly error: unknown } | null = null;
  /** Records sent in pieces of the batch that is still open. */
  #recordsInBatch = 0;
  /** Up to where every partition was read back. */
  #seenAt: EpochLsn;
  /** The point that was answered last. */
  #answeredAt: EpochLsn;
  /** Fulfilled once that point was read back, told and confirmed, or the end came first. */
  #settled: Promise<void> = Promise.resolve();
  /** Resolves what waits for the next sight of the topic, or for the end. */
  #onSeen: (() => void) | null = null;
  /** How often a look at the topic found nothing new while a point was awaited. */
  #looksInVain = 0;
  #isEnding = false;
  /** What goes out with the next point, beside the stream: no count has it. */
  #beside: { readonly records: readonly OutgoingRecord[]; readonly onSent: () => void }[] = [];

  constructor(parts: PublishLoopParts) {
    this.#parts = parts;
    this.#seenAt = parts.start.at;
    this.#answeredAt = parts.start.at;
  }

  get seenAt(): EpochLsn {
    return this.#seenAt;
  }

  /** Records that are no part of the stream; resolves once they are committed, with a point. */
  publishBeside(records: readonly OutgoingRecord[]): Promise<void> {
    return new Promise((onSent) => {
      this.#beside.push({ records, onSent });
    });
  }

  /** Every partition was read back as committed up to `at`. */
  seen(at: EpochLsn): void {
    this.#seenAt = at;
    this.#looksInVain = 0;
    this.#endSeenWait();
  }

  /**
   * A look at the topic found nothing new, for seconds. What was answered and stays unread is open
   * in a partition, until this producer ends another transaction there: the next owner's fence.
   */
  seenNothing(): void {
    this.#looksInVain = this.#onSeen === null ? 0 : this.#looksInVain + 1;
    if (this.#looksInVain >= looksInVainMax) this.#fail(unread(this.#answeredAt));
  }

  /** Ends when `signal` aborts, after what is in flight; rejects with the first error. */
  async run(signal: AbortSignal): Promise<void> {
    const wake = (): void => {
      this.#isEnding = true;
      this.#wake();
      this.#endSeenWait();
    };
    signal.addEventListener('abort', wake);
    try {
      while (!signal.aborted) {
        await this.#feed(signal);
        this.#throwFailure();
        await this.#wait(this.#act(), signal);
      }
    } finally {
      signal.removeEventListener('abort', wake);
      await this.#inFlight;
      await this.#settled;
    }
    this.#throwFailure();
  }

  async #feed(signal: AbortSignal): Promise<void> {
    const { wal, batcher } = this.#parts;
    for (let fed = 0; fed < feedEventsMax && batcher.accepts; fed += 1) {
      const event = wal.shift();
      if (event === null) return;
      await this.#take(event, signal);
      if (signal.aborted) return;
    }
  }

  async #take(event: WalEvent, signal: AbortSignal): Promise<void> {
    const { builder, batcher } = this.#parts;
    if (event.kind === 'keepalive') {
      batcher.keepalive(event.walEnd);
      return;
    }
    const { message } = event;
    if (message.kind === 'relation') {
      // A server that fell silent must not hold up the end of a run that failed elsewhere.
      await unlessAborted(this.#parts.tables.learn(message, this.#commitLsn), signal);
      if (signal.aborted) return;
    }
    for (const built of builder.build(message)) await this.#put(built, signal);
  }

  async #put(built: BuiltEvent, signal: AbortSignal): Promise<void> {
    const { batcher, encoder } = this.#parts;
    switch (built.kind) {
      case 'begin':
        this.#commitTimeMicros = built.commitTimeMicros;
        this.#commitLsn = built.commitLsn;
        this.#xid = built.xid;
        batcher.begin(built.commitLsn, built.commitTimeMicros);
        return;
      case 'change': {
        const { change, position } = built;
        const { relation } = change;
        if (!encoder.isPrepared(relation)) await encoder.prepare(relation);
        this.#note(change, position);
        batcher.add(encoder.encode(change, position, this.#commitTimeMicros));
        return;
      }
      case 'watermark': {
        const { healing, chunks, builder, nowMs } = this.#parts;
        const healed = healing.take(built.id, nowMs());
        const taken = chunks.take(built.id, batcher.previous, nowMs());
        // Also a table without rows is told of: followers publish it when they lead.
        const known = taken === null ? [] : builder.announce(taken.shape);
        const reads = builder.reads([...healed, ...(taken?.rows ?? [])]);
        for (const read of [...known, ...reads]) await this.#put(read, signal);
        return;
      }
      case 'reread':
        await this.#reread(built.relationId, signal);
        return;
      case 'label':
        batcher.label(built.label);
        return;
      case 'commit':
        batcher.end(built.endLsn);
        return;
    }
  }

  /** Whoever may run SQL on the leader may ask, for a table that is none, too. */
  async #reread(relationId: RelationId, signal: AbortSignal): Promise<void> {
    const { tables, builder, log } = this.#parts;
    const shape = await unlessAborted(tables.rereadable(relationId), signal);
    if (signal.aborted) return;
    if (shape == null) {
      log.warn({ relationId }, 'asked to read a table anew that is none of the stream’s');
      return;
    }
    log.info({ relationId }, 'every row of this table is read anew');
    for (const built of builder.reread(shape)) await this.#put(built, signal);
  }

  #note(change: Change, position: Position): void {
    const { healing, chunks, batcher } = this.#parts;
    switch (change.kind) {
      case 'row':
        healing.row(change, this.#xid, batcher.previous, position);
        chunks.row(change, this.#xid, batcher.previous);
        return;
      case 'truncate':
        healing.truncated(change.relation.id);
        return;
      case 'reread':
        healing.reread(change.relation.id);
        chunks.reread(change.relation.id);
        return;
      case 'relation':
        return;
    }
  }

  /** Starts what the batcher says when Kafka is free; gives when to look again without events. */
  #act(): number | null {
    if (this.#inFlight !== null) return null;
    const action = this.#parts.batcher.next(this.#parts.nowMs());
    if (action.kind === 'wait') return action.atMs;
    this.#inFlight = this.#perform(action).then(
      () => {
        this.#inFlight = null;
        this.#wake();
      },
      (error: unknown) => {
        this.#inFlight = null;
        this.#fail(error);
      },
    );
    return null;
  }

  async #perform(action: Exclude<BatchAction, { kind: 'wait' }>): Promise<void> {
    const { producer } = this.#parts;
    await hit('publish.before-send');
    this.#recordsInBatch += action.records.length;
    if (action.kind === 'send') {
      await producer.send(action.records);
      await hit('publish.after-send');
      return;
    }
    await this.#commit(action.records, action.point);
  }

  async #commit(rest: readonly OutgoingRecord[], point: Point): Promise<void> {
    const { producer, encoder, batcher } = this.#parts;
    const beside = this.#beside;
    this.#beside = [];
    const extra = beside.flatMap(({ records }) => records);
    await producer.send([...rest, ...extra, ...encoder.encodePoint(point)]);
    // No point is committed before all partitions hold the one that it continues.
    await this.#settled;
    if (this.#failure !== null || !this.#isSeen(this.#answeredAt)) return;
    await hit('publish.before-commit');
    const offsets = await producer.commit();
    await hit('publish.after-commit');
    const at = { epoch: point.epoch, lsn: point.upto };
    const checkpoint = { at, nextOffsets: offsets.map((offset) => nextOffset(offset)) };
    batcher.committed(checkpoint);
    for (const { onSent } of beside) onSent();
    this.#answeredAt = at;
    const records = this.#recordsInBatch;
    this.#recordsInBatch = 0;
    this.#settled = this.#settle(point, checkpoint, records).catch((error: unknown) =>
      this.#fail(error),
    );
  }

  async #settle(point: Point, checkpoint: Checkpoint, records: number): Promise<void> {
    const { wal, recordLabel, onPoint } = this.#parts;
    while (!this.#isSeen(checkpoint.at)) {
      if (this.#isEnding || this.#failure !== null) return;
      await new Promise<void>((resolve) => {
        this.#onSeen = resolve;
      });
    }
    if (point.label !== null) await recordLabel(point.label, point, checkpoint);
    onPoint(point, checkpoint, records);
    await hit('ack.before');
    wal.confirm(point.upto);
  }

  /** Another epoch's begin says nothing about a point that was not seen before it. */
  #isSeen(at: EpochLsn): boolean {
    return at.epoch === this.#seenAt.epoch && at.lsn <= this.#seenAt.lsn;
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
    this.#endSeenWait();
  }

  #endSeenWait(): void {
    const onSeen = this.#onSeen;
    this.#onSeen = null;
    onSeen?.();
  }

  /**
   * Sleeps until there is something to do. One promise for each sleep, which whatever happens first
   * resolves: a race against a promise that lasts would keep every sleep of its life.
   */
  async #wait(untilMs: number | null, signal: AbortSignal): Promise<void> {
    const { wal, batcher, nowMs } = this.#parts;
    if (signal.aborted || this.#failure !== null) return;
    const slept = new Promise<void>((resolve) => {
      this.#wakeUp = resolve;
    });
    if (batcher.accepts) wal.onReadable(() => this.#wake());
    const delayMs = untilMs === null ? null : Math.max(0, untilMs - nowMs());
    const timer = delayMs === null ? null : setTimeout(() => this.#wake(), delayMs);
    await slept;
    if (timer !== null) clearTimeout(timer);
  }

  #wake(): void {
    const wakeUp = this.#wakeUp;
    this.#wakeUp = null;
    wakeUp?.();
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}

function unread(at: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'KAFKA_UNREACHABLE',
    `the point ${formatEpochLsn(at)} was answered as committed and cannot be read`,
    'It is tried again behind a new transaction. If this stays, look at the brokers’ health.',
  );
}

function nextOffset(offset: bigint | null): bigint {
  if (offset === null) {
    throw bug('a point was not sent everywhere');
  }
  return offset + 1n;
}
