/**
 * Fills the tables of a new node from the topic, up to the checkpoint from which it follows as
 * every follower does. Flows in: the log from its beginning; flows out: rows and progress in the
 * node's database, one transaction for any number of rows, and with the last one the position row.
 * The next portion is read while one is applied; a kill costs no more than these two. Where it
 * cannot continue it throws a BootstrapRestart, after which the caller empties the tables.
 */
import type { Client } from 'pg';
import { inTransaction } from '../../catalog/postgres-session.ts';
import type { Lsn } from '../../change/lsn.ts';
import type { EpochBase } from '../../change/position.ts';
import { compareEpochLsn } from '../../change/position.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import { formatVersion } from '../../topic/records/layout.ts';
import { type TailedPartition, tail } from '../../topic/tailer.ts';
import { Applier } from '../apply/applier.ts';
import { ApplyTargets } from '../apply/apply-targets.ts';
import { coalesce } from '../apply/coalesce.ts';
import { requireOffsets } from '../apply/log-fit.ts';
import type { Piece } from '../apply/ordered-merge.ts';
import type { ApplyStep } from '../apply/stages.ts';
import { type BootstrapState, endBootstrap, saveBootstrap } from '../state/bootstrap-state.ts';
import { isExactAt } from '../state/exactness.ts';
import { writePosition } from '../state/follower-state.ts';
import { BootstrapRestart, restartFor } from './bootstrap-restart.ts';
import { CompactedLog, pieceBytes } from './compacted-log.ts';
import { horizonOf, isTooSlow, movedPartitions } from './horizon.ts';

interface BootstrapParts {
  readonly client: Client;
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
  readonly epochs: readonly EpochBase[];
  /** What delete.retention.ms is now. */
  readonly deleteRetentionMs: () => Promise<number>;
  readonly nowMs: () => number;
  readonly onProgress: (state: BootstrapState) => void;
}

/** What one transaction writes; as much may have been read ahead. */
const portionBytesMax = 8 * 1024 * 1024;
/** How often delete.retention.ms is read: it may be lowered meanwhile. */
const retentionCheckMs = 30_000;
/** Epochs are counted from 1. */
const everything = { from: { epoch: 0, lsn: 0n as Lsn }, to: null };

interface Portion {
  readonly pieces: readonly Piece[];
  /** The state once they are applied. */
  readonly state: BootstrapState;
  readonly isLast: boolean;
}

export class Bootstrap {
  readonly #parts: BootstrapParts;
  readonly #log: CompactedLog;
  readonly #answers: AsyncIterator<readonly TailedPartition[], void>;
  readonly #applier: Applier;
  /** How long earlier processes have read, and since when this one reads. */
  readonly #beforeMs: number;
  readonly #sinceMs = performance.now();
  /** Of what is read; what is applied may be a portion less. */
  #state: BootstrapState;
  #rows: number;
  #checkedMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  private constructor(parts: BootstrapParts, state: BootstrapState, applier: Applier) {
    this.#parts = parts;
    this.#state = state;
    this.#rows = state.rows;
    this.#applier = applier;
    const { offsets, checkpoint, emptied } = state;
    this.#log = new CompactedLog(offsets, checkpoint.nextOffsets, parts.epochs, emptied);
    this.#answers = tail(parts, () => this.#log.wanted());
    // A clock that was set back meanwhile must not make the time shorter.
    this.#beforeMs = Math.max(state.readMs, parts.nowMs() - state.beganMs);
  }

  static async open(parts: BootstrapParts, state: BootstrapState): Promise<Bootstrap> {
    const targets = await ApplyTargets.open(parts.client);
    return new Bootstrap(parts, state, new Applier(parts.client, targets, parts.decoder));
  }

  /** Ends after the transaction under way. */
  stop(): void {
    this.#stopped = true;
  }

  /** Reads and applies up to the checkpoint, or until it is stopped. */
  async run(): Promise<void> {
    // Records are not counted below: a topic that was re-created meanwhile would not be noticed.
    requireOffsets(await this.#parts.reader.watermarks(), this.#state.offsets);
    let reading = this.#read();
    try {
      for (;;) {
        const portion = await reading;
        if (portion === null) return;
        if (!portion.isLast) {
          reading = this.#read();
          // An error is thrown where the next portion is awaited, or one before it has failed.
          reading.catch(() => undefined);
        }
        await this.#apply(portion);
        if (portion.isLast) return;
      }
    } finally {
      this.#stopped = true;
      await Promise.allSettled([reading]);
    }
  }

  async #read(): Promise<Portion | null> {
    const pieces: Piece[] = [];
    for (let bytes = 0; bytes < portionBytesMax && !this.#log.complete; ) {
      if (this.#stopped) return null;
      const { value: fetched = [] } = await this.#answers.next();
      for (const one of fetched) this.#take(one);
      const piece = this.#log.take();
      bytes += pieceBytes(piece);
      pieces.push(piece);
      await this.#checkTime();
    }
    this.#state = { ...this.#state, offsets: this.#log.offsets, readMs: this.#readMs() };
    return { pieces, state: this.#state, isLast: this.#log.complete };
  }

  #take({ partition, records, decoded, nextOffset, broker }: TailedPartition): void {
    const { brokers, appendMs, checkpoint } = this.#state;
    const now = brokers.map((_, i) => (i === partition ? broker : null));
    const [moved] = movedPartitions(brokers, now);
    if (moved !== undefined) {
      throw new BootstrapRestart(
        `another broker leads partition ${moved} now, and cleans its own log`,
      );
    }
    const end = checkpoint.nextOffsets[partition] ?? 0n;
    const last = records.findLast(({ offset }) => offset < end);
    this.#state = {
      ...this.#state,
      brokers: brokers.map((before, i) => now[i] ?? before),
      appendMs: appendMs.map((before, i) => {
        return i === partition ? (last?.timestampMs ?? before) : before;
      }),
    };
    this.#log.push(partition, decoded, nextOffset);
  }

  #readMs(): number {
    return Math.round(this.#beforeMs + performance.now() - this.#sinceMs);
  }

  /** The last check is after the last fetch: the whole time counts. */
  async #checkTime(): Promise<void> {
    const now = performance.now();
    if (now - this.#checkedMs >= retentionCheckMs || this.#log.complete) {
      this.#checkedMs = now;
      const seenMs = await this.#parts.deleteRetentionMs();
      const deleteRetentionMs = Math.min(seenMs, this.#state.deleteRetentionMs);
      this.#state = { ...this.#state, deleteRetentionMs };
    }
    const { deleteRetentionMs } = this.#state;
    const readMs = this.#readMs();
    if (!isTooSlow({ readMs, deleteRetentionMs })) return;
    throw new BootstrapRestart(
      `reading took ${readMs} ms, and the topic keeps tombstones for ${deleteRetentionMs} ms ` +
        '(delete.retention.ms)',
    );
  }

  async #apply({ pieces, state, isLast }: Portion): Promise<void> {
    const { client, onProgress } = this.#parts;
    const batches = pieces.map((partitions) => ({ partitions }));
    const steps = coalesce(batches, everything, () => true);
    const next = { ...state, rows: this.#rows + rowsOf(steps) };
    const save = async (): Promise<void> => {
      await saveBootstrap(client, next);
      if (!isLast) return;
      const { streamId, checkpoint, commitTimeMicros, appendMs, unfinished } = next;
      const position = {
        streamId,
        at: checkpoint.at,
        commitTimeMicros,
        checkpoint,
        appendMs,
        unfinished,
      };
      await writePosition(client, position, formatVersion);
    };
    try {
      await this.#applier.applyAnd(
        () => steps,
        save,
        () => true,
      );
    } catch (error) {
      throw restartFor(error, state.conflicts);
    }
    this.#rows = next.rows;
    onProgress(next);
  }
}

function rowsOf(steps: readonly ApplyStep[]): number {
  const tables = steps.flatMap((step) => (step.kind === 'rows' ? step.tables : []));
  return tables.reduce((sum, { upserts, partials }) => sum + upserts.length + partials.length, 0);
}

/**
 * On arrival at the checkpoint: records that the broker removed unread are replaced below the end
 * of the log as it is now. Also after a kill in between; then the end is a later one, which is as
 * good.
 */
export async function findHorizon(
  {
    client,
    reader,
    decoder,
    nowMs,
  }: Pick<BootstrapParts, 'client' | 'reader' | 'decoder' | 'nowMs'>,
  state: BootstrapState,
): Promise<BootstrapState> {
  const watermarks = await reader.watermarks();
  requireOffsets(watermarks, state.checkpoint.nextOffsets);
  const { checkpoint, pastCheckpoint } = await readLogEnd(reader, decoder, watermarks);
  const isSame = checkpoint !== null && compareEpochLsn(checkpoint.at, state.checkpoint.at) === 0;
  // A checkpoint that was not there when the reading began is younger than it.
  const checkpointAgeMs = nowMs() - (isSame ? Math.min(...state.appendMs) : state.beganMs);
  const lastStable = watermarks.map(({ lastStableOffset }) => lastStableOffset);
  const end = { checkpoint, pastCheckpoint, lastStable, checkpointAgeMs };
  const horizon = horizonOf(end, state.deleteRetentionMs);
  const next = { ...state, horizon };
  await inTransaction(client, async () => {
    if (isExactAt(horizon, state.checkpoint, state.isWhole)) await endBootstrap(client);
    else await saveBootstrap(client, next);
  });
  return next;
}
