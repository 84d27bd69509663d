/**
 * The leader's central loop: from WAL to Kafka and back to the slot. Flows in: WAL events, and how
 * far the topic was read back; flows out: Kafka transactions that end in points, then the
 * confirmation of exactly what they cover. After any error the loop ends; its caller discards the
 * producer, and reads the end of the log before the next run.
 *
 * Kafka's answer to a commit is not enough to confirm: a coordinator that dies after its answer can
 * leave the transaction open in partitions, where a later abort ends it as never written. What was
 * read back as committed in every partition stays.
 */

import type { Change, Checkpoint, Point, RelationId } from '../../change/change.ts';
import { zeroLsn } from '../../change/lsn.ts';
import { type EpochLsn, formatEpochLsn, type Position } from '../../change/position.ts';
import { bug, unreachable } from '../../errors/bug.ts';
import { commitNotReadable } from '../../errors/unreachable.ts';
import { hit } from '../../failpoints.ts';
import type { Logger } from '../../logger.ts';
import type { OutgoingRecord, TransactionalProducer } from '../../topic/log.ts';
import type { RecordEncoder } from '../../topic/records/encoder.ts';
import { interruptible, unlessAborted, WakeUp } from '../../waiting.ts';
import type {
  BatchAction,
  BatchPolicy,
  BuiltEvent,
  ChangeBuilder,
  Publisher,
  RowObserver,
  StreamTables,
  WalEvent,
  WalSource,
} from './stages.ts';

export interface PublishLoopParts {
  readonly wal: WalSource;
  readonly builder: ChangeBuilder;
  readonly tables: Pick<StreamTables, 'learn' | 'forResnapshot'>;
  readonly observer: Omit<RowObserver, 'takeForPoint'>;
  readonly batcher: BatchPolicy;
  readonly encoder: RecordEncoder;
  readonly producer: TransactionalProducer;
  /** The end of the log: what was read back so far. */
  readonly start: Checkpoint;
  /** Writes a named point to the control log, before it is confirmed. */
  readonly recordLabel: (label: string, point: Point, checkpoint: Checkpoint) => Promise<void>;
  readonly onPoint: (point: Point, checkpoint: Checkpoint, records: number) => void;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly nowMs: () => number;
}

/** After this much feeding other work of the process gets its turn. */
const feedEventsMax = 2_000;
/** Each is a fetch that waited at the brokers; markers take seconds where a broker returns. */
const emptyFetchesMax = 3;

export class PublishLoop implements Publisher {
  readonly #parts: PublishLoopParts;
  /** Of the open source transaction. */
  #commitTimeMicros = 0n;
  #commitLsn = zeroLsn;
  #xid = 0;
  #inFlight: Promise<void> | null = null;
  readonly #work = new WakeUp();
  #failure: { readonly error: unknown } | null = null;
  /** Records of the open batch that were sent so far. */
  #recordsInBatch = 0;
  /** Up to where every partition was read back. */
  #seenAt: EpochLsn;
  /** The point whose commit was answered last. */
  #answeredAt: EpochLsn;
  /** Fulfilled once that point was read back and confirmed, or the run ended first. */
  #settled: Promise<void> = Promise.resolve();
  /** Woken when more of the topic was read back, and when the run ends. */
  readonly #readBack = new WakeUp();
  /** How many fetches in a row returned nothing new while a point was awaited. */
  #emptyFetches = 0;
  #isEnding = false;
  /** What goes out with the next point, beside the stream: no count includes it. */
  #beside: { readonly records: readonly OutgoingRecord[]; readonly onSent: () => void }[] = [];

  constructor(parts: PublishLoopParts) {
    this.#parts = parts;
    this.#seenAt = parts.start.at;
    this.#answeredAt = parts.start.at;
  }

  get seenAt(): EpochLsn {
    return this.#seenAt;
  }

  publishBeside(records: readonly OutgoingRecord[]): Promise<void> {
    return new Promise((onSent) => {
      this.#beside.push({ records, onSent });
    });
  }

  seen(at: EpochLsn): void {
    this.#seenAt = at;
    this.#emptyFetches = 0;
    this.#readBack.wake();
  }

  /**
   * A commit that was answered and stays unread is open in a partition, until this producer ends
   * another transaction there: the fence of the next run does.
   */
  seenNothing(): void {
    this.#emptyFetches = this.#readBack.hasSleepers ? this.#emptyFetches + 1 : 0;
    // rule: unread-commit-ends-run
    if (this.#emptyFetches >= emptyFetchesMax) {
      this.#fail(commitNotReadable(formatEpochLsn(this.#answeredAt)));
    }
  }

  async run(signal: AbortSignal): Promise<void> {
    const end = (): void => {
      this.#isEnding = true;
      this.#work.wake();
      this.#readBack.wake();
    };
    signal.addEventListener('abort', end);
    try {
      while (!signal.aborted) {
        await this.#feed(signal);
        this.#throwFailure();
        await this.#wait(this.#act(), signal);
      }
    } finally {
      signal.removeEventListener('abort', end);
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
    // rule: receipt-is-not-confirmed, no broker has it yet
    const { message } = event;
    if (message.kind === 'relation') {
      await this.#answer(this.#parts.tables.learn(message, this.#commitLsn), signal);
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
        this.#observe(change, position);
        batcher.add(encoder.encode(change, position, this.#commitTimeMicros));
        return;
      }
      case 'watermark': {
        const { observer, builder } = this.#parts;
        const read = observer.takeAt(built.id, batcher.previous);
        for (const event of builder.read(read)) await this.#put(event, signal);
        return;
      }
      case 'resnapshot':
        await this.#resnapshot(built.relationId, signal);
        return;
      case 'label':
        batcher.label(built.label);
        return;
      case 'commit':
        batcher.end(built.commitEndLsn);
        return;
      default:
        unreachable(built);
    }
  }

  /**
   * What the leader's Postgres answers. A server that stopped answering must not delay the end of a
   * run that failed elsewhere, nor hide that the walsender of this run has ended.
   */
  #answer<T>(asked: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
    return unlessAborted(interruptible(asked, this.#parts.wal.ended), signal);
  }

  /** Any user who may run SQL on the leader may request one, also for a table that is none. */
  async #resnapshot(relationId: RelationId, signal: AbortSignal): Promise<void> {
    const { tables, builder, log } = this.#parts;
    const relation = await this.#answer(tables.forResnapshot(relationId), signal);
    if (signal.aborted) return;
    if (relation == null) {
      log.warn({ relationId }, 'ignored resnapshot request: table is not part of the stream');
      return;
    }
    log.info({ relationId }, 'resnapshot of a table begins');
    for (const built of builder.resnapshot(relation)) await this.#put(built, signal);
  }

  #observe(change: Change, position: Position): void {
    const { observer, batcher } = this.#parts;
    switch (change.kind) {
      case 'row':
        observer.row(change, this.#xid, batcher.previous, position);
        return;
      case 'truncate':
        observer.truncated(change.relation.id);
        return;
      case 'reread':
        observer.resnapshot(change.relation.id);
        return;
      case 'relation':
        return;
      default:
        unreachable(change);
    }
  }

  /** Starts what the batcher says when Kafka is free; gives when to ask it again without events. */
  #act(): number | null {
    if (this.#inFlight !== null) return null;
    const action = this.#parts.batcher.next(this.#parts.nowMs());
    if (action.kind === 'wait') return action.atMs;
    this.#inFlight = this.#perform(action).then(
      () => {
        this.#inFlight = null;
        this.#work.wake();
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
    // A point is committed only once every partition holds the one that it continues.
    // rule: settle-before-next-commit
    await this.#settled;
    // rule: point-continues-seen-point
    if (this.#failure !== null || !this.#isSeen(this.#answeredAt)) return;
    await hit('publish.before-commit');
    // rule: commit-before-confirm
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
    // rule: read-back-before-confirm, an answered commit can still be aborted
    while (!this.#isSeen(checkpoint.at)) {
      if (this.#isEnding || this.#failure !== null) return;
      await this.#readBack.sleep();
    }
    // rule: label-before-confirm
    if (point.label !== null) await recordLabel(point.label, point, checkpoint);
    onPoint(point, checkpoint, records);
    await hit('ack.before');
    // rule: confirm-exact-end-lsn, the next commit record may start there
    wal.confirm(point.upto);
  }

  /** The begin of another epoch says nothing about a point that was not seen before it. */
  #isSeen(at: EpochLsn): boolean {
    return at.epoch === this.#seenAt.epoch && at.lsn <= this.#seenAt.lsn;
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#work.wake();
    this.#readBack.wake();
  }

  /** Sleeps until there is something to do. */
  async #wait(untilMs: number | null, signal: AbortSignal): Promise<void> {
    const { wal, batcher, nowMs } = this.#parts;
    if (signal.aborted || this.#failure !== null) return;
    const slept = this.#work.sleep(untilMs === null ? null : Math.max(0, untilMs - nowMs()));
    if (batcher.accepts) wal.onReadable(() => this.#work.wake());
    await slept;
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}

function nextOffset(offset: bigint | null): bigint {
  if (offset === null) throw bug('a point was not sent to every partition');
  return offset + 1n;
}
