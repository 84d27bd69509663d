/**
 * The leader's central loop: from WAL to Kafka and back to the slot. Flows in: WAL events; flows
 * out: Kafka transactions that end in points, then the confirmation of exactly what they cover.
 * Nothing is confirmed before its Kafka commit; after any error the loop ends and whoever started
 * it throws the producer away and reads from the log where it stands.
 */
import type { Mark, Point } from '../change/change.ts';
import { UnderstudyError } from '../errors.ts';
import { hit } from '../failpoints.ts';
import type { OutgoingRecord, TransactionalProducer } from '../topic/log.ts';
import type { RecordEncoder } from '../topic/record-encoder.ts';
import type { BatchAction, Batcher } from './batcher.ts';
import type { KnownTables } from './known-tables.ts';
import type { BuiltEvent, TransactionBuilder } from './transaction-builder.ts';
import type { WalEvent, WalSession } from './wal-session.ts';

export interface PublishLoopParts {
  readonly wal: Pick<WalSession, 'shift' | 'onReadable' | 'confirm'>;
  readonly builder: TransactionBuilder;
  readonly tables: Pick<KnownTables, 'learn'>;
  readonly batcher: Batcher;
  readonly encoder: RecordEncoder;
  readonly producer: TransactionalProducer;
  /** Called after the Kafka commit and before the confirmation to Postgres. */
  readonly committed: (point: Point, mark: Mark, records: number) => Promise<void>;
  readonly nowMs: () => number;
}

/** After this much feeding other work of the process gets its turn. */
const feedEventsMax = 2_000;

export class PublishLoop {
  readonly #parts: PublishLoopParts;
  #commitTimeMicros = 0n;
  #inFlight: Promise<void> | null = null;
  #wakeUp: (() => void) | null = null;
  #failure: { readonly error: unknown } | null = null;
  /** Records sent in pieces of the batch that is still open. */
  #recordsInBatch = 0;

  constructor(parts: PublishLoopParts) {
    this.#parts = parts;
  }

  /** Ends when `signal` aborts, after what is in flight; rejects with the first error. */
  async run(signal: AbortSignal): Promise<void> {
    const wake = (): void => this.#wake();
    signal.addEventListener('abort', wake);
    try {
      while (!signal.aborted) {
        await this.#feed();
        this.#throwFailure();
        await this.#wait(this.#act(), signal);
      }
    } finally {
      signal.removeEventListener('abort', wake);
      await this.#inFlight;
    }
    this.#throwFailure();
  }

  async #feed(): Promise<void> {
    const { wal, batcher } = this.#parts;
    for (let fed = 0; fed < feedEventsMax && batcher.accepts; fed += 1) {
      const event = wal.shift();
      if (event === null) return;
      await this.#take(event);
    }
  }

  async #take(event: WalEvent): Promise<void> {
    const { builder, batcher } = this.#parts;
    if (event.kind === 'keepalive') {
      batcher.keepalive(event.walEnd);
      return;
    }
    const { message } = event;
    if (message.kind === 'relation') await this.#parts.tables.learn(message);
    for (const built of builder.build(message)) await this.#put(built);
  }

  async #put(built: BuiltEvent): Promise<void> {
    const { batcher, encoder } = this.#parts;
    switch (built.kind) {
      case 'begin':
        this.#commitTimeMicros = built.commitTimeMicros;
        batcher.begin(built.commitLsn, built.commitTimeMicros);
        return;
      case 'change': {
        const { relation } = built.change;
        if (!encoder.isPrepared(relation)) await encoder.prepare(relation);
        if (built.change.kind === 'row' && built.change.unchanged.length > 0) batcher.partial();
        batcher.add(encoder.encode(built.change, built.position, this.#commitTimeMicros));
        return;
      }
      case 'label':
        batcher.label(built.label);
        return;
      case 'commit':
        batcher.end(built.endLsn);
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
        this.#failure = { error };
        this.#wake();
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

  async #commit(records: readonly OutgoingRecord[], point: Point): Promise<void> {
    const { producer, encoder, batcher, wal, committed } = this.#parts;
    await producer.send([...records, ...encoder.encodePoint(point)]);
    await hit('publish.before-commit');
    const offsets = await producer.commit();
    await hit('publish.after-commit');
    const mark = {
      at: { epoch: point.epoch, lsn: point.upto },
      nextOffsets: offsets.map((offset) => nextOffset(offset)),
    };
    await committed(point, mark, this.#recordsInBatch);
    this.#recordsInBatch = 0;
    batcher.committed(mark);
    await hit('ack.before');
    wal.confirm(point.upto);
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

function nextOffset(offset: bigint | null): bigint {
  if (offset === null) {
    throw new UnderstudyError('BUG', 'a point was not sent everywhere', 'Please report this.');
  }
  return offset + 1n;
}
