/**
 * The stages of one run, put together: what has to be done before WAL flows, the batcher, and the
 * publish loop. Takes where the log ends and the stages' surroundings; gives the LSN from which to
 * stream, and the loop. It does no I/O of its own: the model of publishing restarts through it.
 */
import type { Checkpoint, Point } from '../../change/change.ts';
import { type Lsn, zeroLsn } from '../../change/lsn.ts';
import type { Logger } from '../../logger.ts';
import type { TransactionalProducer } from '../../topic/log.ts';
import type { RecordEncoder } from '../../topic/records/encoder.ts';
import { Batcher, type BatcherOptions } from './batcher.ts';
import { PublishLoop, type PublishLoopParts } from './publish-loop.ts';
import { checkSlot, type SlotState } from './slot.ts';
import type { RowObserver, StreamTables, WalSource } from './stages.ts';
import { TransactionBuilder } from './transaction-builder.ts';

interface StreamRunParts {
  readonly streamId: string;
  readonly epoch: number;
  readonly slot: string;
  /** The end of the log: a point, or the begin of this epoch. */
  readonly checkpoint: Checkpoint;
  /** The point at the checkpoint; null when the checkpoint is the epoch begin. */
  readonly lastPoint: Point | null;
  readonly observer: RowObserver;
  readonly encoder: RecordEncoder;
  readonly producer: TransactionalProducer;
  readonly recordLabel: PublishLoopParts['recordLabel'];
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly nowMs: () => number;
}

type BatchBounds = Pick<BatcherOptions, 'recordsMax' | 'bytesMax' | 'idleSoonMs' | 'idleEveryMs'>;

/** The two stages that hold rules; a model replaces one by itself without a rule. */
interface StageClasses {
  readonly Batcher: typeof Batcher;
  readonly PublishLoop: typeof PublishLoop;
}

export class StreamRun {
  readonly batcher: Batcher;
  readonly #parts: StreamRunParts;
  readonly #classes: StageClasses;

  constructor(
    parts: StreamRunParts,
    bounds: BatchBounds,
    classes: StageClasses = { Batcher, PublishLoop },
  ) {
    const { streamId, epoch, checkpoint, lastPoint, observer, nowMs } = parts;
    this.#parts = parts;
    this.#classes = classes;
    this.batcher = new classes.Batcher({
      ...{ streamId, epoch, observer, ...bounds },
      partitions: checkpoint.nextOffsets.length,
      start: checkpoint,
      lastCommit: lastPoint?.commit ?? zeroLsn,
      lastCommitTimeMicros: lastPoint?.commitTimeMicros ?? BigInt(nowMs()) * 1000n,
    });
  }

  /** Before anything streams; returns the LSN from which to stream. */
  async prepare(readSlot: () => Promise<SlotState | null>): Promise<Lsn> {
    const { checkpoint, lastPoint, recordLabel, slot } = this.#parts;
    // A crash directly after the commit of a named point may have come before its label was
    // written.
    // rule: restart-records-label
    if (lastPoint?.label != null) await recordLabel(lastPoint.label, lastPoint, checkpoint);
    // rule: start-at-checkpoint, the slot may be behind it
    const start = checkpoint.at.lsn;
    checkSlot(await readSlot(), slot, start);
    return start;
  }

  loop(wal: WalSource, tables: StreamTables, onPoint: PublishLoopParts['onPoint']): PublishLoop {
    const { streamId, epoch, checkpoint, ...others } = this.#parts;
    const builder = new TransactionBuilder(streamId, epoch, tables);
    const { batcher } = this;
    const stages = { wal, tables, builder, batcher };
    return new this.#classes.PublishLoop({ ...others, ...stages, start: checkpoint, onPoint });
  }
}
