/**
 * A running follower. Flows in: the committed records of every partition, from the offsets in its
 * position row; flows out: rows, position and history in its own database, one transaction for any
 * number of batches. It wires the stages of apply/stages.ts: reading and applying run side by side
 * with a bounded queue between them, and take turns at a batch that is larger than the bound. The
 * first error ends both, and the caller restarts from the position row.
 */
import type { Client } from 'pg';
import { inTransaction } from '../catalog/postgres-session.ts';
import type { EpochBegin, RelationId } from '../change/change.ts';
import { compareEpochLsn, type EpochLsn, parseEpochLsn } from '../change/position.ts';
import { withoutPosition } from '../errors/cluster.ts';
import { behindRepair } from '../errors/node-damage.ts';
import { followerStopped } from '../errors/timed-out.ts';
import { GapError } from '../errors/topic.ts';
import { hasCode } from '../errors/understudy-error.ts';
import { ClosedError } from '../topic/kafka/errors.ts';
import type { CommittedReader } from '../topic/log.ts';
import type { RecordDecoder } from '../topic/records/decoder.ts';
import { sequencePartition } from '../topic/records/layout.ts';
import { tail } from '../topic/tailer.ts';
import { WakeUp } from '../waiting.ts';
import { Aligner } from './apply/aligner.ts';
import { Applier } from './apply/applier.ts';
import {
  type ApplyLimit,
  type ApplyPortion,
  bytesWaiting,
  dueOf,
  mayBegin,
  nextPortion,
  positionAfter,
  reachesHorizon,
  relationsOf,
  unfinishedDuring,
  waitingBytesMax,
  wholeBatches,
} from './apply/apply-portion.ts';
import { ApplyTargets } from './apply/apply-targets.ts';
import { coalesce } from './apply/coalesce.ts';
import { stepsOfLarge } from './apply/large-batch.ts';
import { judgeGap, requireBase, requireOffsets } from './apply/log-fit.ts';
import type {
  Aligned,
  AlignedEpoch,
  AlignStage,
  ApplyStage,
  ApplySteps,
  ApplyWindow,
  FoldStage,
} from './apply/stages.ts';
import { BootstrapRestart, restartFor } from './bootstrap/bootstrap-restart.ts';
import { type BootstrapState, readBootstrap } from './state/bootstrap-state.ts';
import {
  type FollowerPosition,
  movePosition,
  readPosition,
  saveEpoch,
} from './state/follower-state.ts';
import { saveSequences, UnsavedSequences } from './state/sequence-positions.ts';

interface FollowerParts {
  readonly client: Client;
  /** The follower's own: it is closed with it. */
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
  /** The smallest min.compaction.lag.ms the topic ever had; null when it is unknown. */
  readonly smallestCompactionLagMs: () => Promise<number | null>;
  /** Damage of the topic at or below was closed: no node can read on from there. */
  readonly repairedTo: EpochLsn | null;
  /** The time of the brokers' clocks, which give LogAppendTimes. */
  readonly brokerNowMs: () => Promise<number>;
  /** Transactions younger than this are not applied; 0 is no delay. */
  readonly delayMs: number;
  readonly nowMs: () => number;
  readonly onApplied: (position: FollowerPosition, rows: number) => void;
  readonly onEpoch: (begin: EpochBegin) => void;
  /** A node that was being built is exact now. */
  readonly onExact?: () => void;
}

/** A batch that costs more to hold is read again while it is applied. */
const batchBytesMax = 16 * 1024 * 1024;

export class Follower {
  readonly #parts: FollowerParts;
  readonly #aligner: AlignStage;
  readonly #fold: FoldStage = coalesce;
  readonly #applier: ApplyStage;
  #position: FollowerPosition;
  /** While this node is being built; null once it is exact. */
  #building: BootstrapState | null;
  readonly #offsets: bigint[];
  readonly #lastStable: bigint[];
  readonly #waiting: Aligned[] = [];
  readonly #sequences = new UnsavedSequences();
  #limit: ApplyLimit = { kind: 'none' };
  #delayMs: number;
  #busy = false;
  readonly #stopping = new AbortController();
  #closing: Promise<void> | null = null;
  #failure: { readonly error: unknown } | null = null;
  readonly #wakeUp = new WakeUp();

  private constructor(
    parts: FollowerParts,
    position: FollowerPosition,
    building: BootstrapState | null,
    targets: ApplyTargets,
  ) {
    this.#parts = parts;
    this.#building = building;
    this.#position = position;
    this.#delayMs = parts.delayMs;
    this.#aligner = new Aligner(position.streamId, position.checkpoint, batchBytesMax);
    this.#applier = new Applier(parts.client, targets, parts.decoder);
    this.#offsets = [...position.checkpoint.nextOffsets];
    this.#lastStable = position.checkpoint.nextOffsets.map(() => 0n);
  }

  /** Checks that the log still holds what this node reads next; reads and writes no rows. */
  static async open(parts: FollowerParts): Promise<Follower> {
    const position = await readPosition(parts.client);
    if (position === null) throw withoutPosition();
    const building = await readBootstrap(parts.client);
    const targets = await ApplyTargets.open(parts.client);
    const follower = new Follower(parts, position, building, targets);
    await follower.#checkOffsets();
    return follower;
  }

  async #checkOffsets(): Promise<void> {
    const watermarks = await this.#parts.reader.watermarks();
    requireOffsets(watermarks, this.#offsets);
    for (const { partition, lastStableOffset } of watermarks) {
      this.#lastStable[partition] = lastStableOffset;
    }
  }

  get position(): FollowerPosition {
    return this.#position;
  }

  /** Whether its rows are the leader's at its position, for tables that are not backfilling. */
  get exact(): boolean {
    return this.#building === null;
  }

  /** Whether everything up to the last stable offsets of the last fetches is applied. */
  get caughtUp(): boolean {
    return this.#readTo(this.#lastStable) && this.#waiting.length === 0 && !this.#busy;
  }

  setLimit(limit: ApplyLimit): void {
    this.#limit = limit;
    this.#wakeUp.wake();
  }

  /** From now on the delay is 0. */
  dropDelay(): void {
    this.#delayMs = 0;
    this.#wakeUp.wake();
  }

  /** Runs until `stop` is called; rejects with the first error. */
  async run(): Promise<void> {
    const guard = (work: Promise<void>): Promise<void> =>
      work.catch(async (error: unknown) => {
        const judged = await this.#judged(error).catch((unknown: unknown) => unknown);
        this.#failure ??= { error: judged };
        this.stop();
      });
    await Promise.all([guard(this.#readLoop()), guard(this.#applyLoop())]);
    await this.#closing;
    if (this.#failure !== null) throw this.#failure.error;
  }

  /** A gap is damage of the topic, or this node is too late, and may be rebuilt. */
  async #judged(error: unknown): Promise<unknown> {
    const building = this.#building;
    if (this.#isBehindRepair(error)) {
      const late = behindRepair(this.#position.at, error);
      return building === null ? late : new BootstrapRestart(late.message);
    }
    if (!(error instanceof GapError)) {
      return building === null ? error : restartFor(error, building.conflicts);
    }
    const lastAppendMs = Math.min(...this.#position.appendMs);
    const awayMs = (await this.#parts.brokerNowMs()) - lastAppendMs;
    const judged = judgeGap(error, awayMs, await this.#parts.smallestCompactionLagMs());
    return judged.code === 'STALE' && building !== null
      ? new BootstrapRestart(judged.message)
      : judged;
  }

  #isBehindRepair(error: unknown): boolean {
    const { repairedTo } = this.#parts;
    if (repairedTo === null || !hasCode(error, 'DAMAGED')) return false;
    const at = parseEpochLsn(String(error.facts['at'] ?? '')) ?? this.#position.at;
    return compareEpochLsn(at, repairedTo) <= 0;
  }

  /**
   * Ends after the transaction under way, or rolls it back where more has to be read for it; a
   * fetch that waits at the broker is not awaited.
   */
  stop(): void {
    this.#stopping.abort();
    this.#wakeUp.wake();
    this.#closing ??= this.#parts.reader.close();
  }

  /**
   * Resolves when everything below the given offsets is read and all whole batches are applied,
   * without a delay: a promotion needs them all.
   */
  async drained(lastStable: readonly bigint[]): Promise<void> {
    // rule: promotion-drops-delay
    this.dropDelay();
    const done = (): boolean => this.#readTo(lastStable) && this.#waiting.length === 0;
    await this.#until(() => done() && !this.#busy);
  }

  /**
   * A partition that waits at a boundary counts as read: where all others are at their end and do
   * not have that boundary, no batch after it can be whole. After a torn batch this would otherwise
   * never resolve.
   */
  #readTo(ends: readonly bigint[]): boolean {
    return this.#offsets.every((offset, i) => offset >= (ends[i] ?? 0n) || this.#aligner.waits(i));
  }

  /**
   * Sets the limit and resolves with the position once the follower has stopped at it: null when
   * another limit was set meanwhile. The position is another one where the follower was past the
   * limit already, or before an epoch that begins past it: then the limit is not in the stream.
   */
  async pauseAt(limit: ApplyLimit): Promise<FollowerPosition | null> {
    this.setLimit(limit);
    await this.#until(() => {
      if (this.#limit !== limit) return true;
      return !this.#busy && (limit.kind === 'hold' || this.#atLimit() || this.#isAtEpoch());
    });
    return this.#limit === limit ? this.#position : null;
  }

  #atLimit(): boolean {
    if (this.#limit.kind !== 'to') return false;
    const { at } = this.#limit;
    const here = this.#position.at;
    return here.epoch > at.epoch || (here.epoch === at.epoch && here.lsn >= at.lsn);
  }

  /** Whether an epoch begin is next, and is past the limit. */
  #isAtEpoch(): boolean {
    const [first] = this.#waiting;
    return first?.kind === 'epoch' && !mayBegin(first, this.#limit);
  }

  async #readLoop(): Promise<void> {
    const { signal } = this.#stopping;
    for await (const answers of tail(this.#parts, () => this.#wanted(), { signal })) {
      // Nothing is awaited until all is aligned: offsets are never past what is pushed and aligned.
      for (const { partition, records, decoded, nextOffset, lastStableOffset } of answers) {
        // Before the batch that they are in can be aligned: its position is saved with them.
        if (partition === sequencePartition) {
          this.#sequences.add(this.#parts.decoder.sequences(records));
        }
        this.#aligner.push(partition, decoded);
        this.#offsets[partition] = nextOffset;
        this.#lastStable[partition] = lastStableOffset;
      }
      for (let aligned = this.#aligner.next(); aligned !== null; aligned = this.#aligner.next()) {
        this.#waiting.push(aligned);
      }
      this.#wakeUp.wake();
      while (!this.#stopped && this.#mustPause()) await this.#wakeUp.sleep();
    }
  }

  get #stopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** Partitions that wait at a boundary for the others are not read further. */
  #wanted(): Map<number, bigint> {
    const all = this.#offsets.map((offset, partition): [number, bigint] => [partition, offset]);
    return new Map(all.filter(([partition]) => !this.#aligner.waits(partition)));
  }

  /** While a large batch is read once more to be applied, the reader is the applier's. */
  #mustPause(): boolean {
    return (
      bytesWaiting(this.#waiting) > waitingBytesMax ||
      this.#waiting.some(({ kind }) => kind === 'large')
    );
  }

  /** What to do is decided without awaiting, so that no wake-up is missed before the sleep. */
  async #applyLoop(): Promise<void> {
    while (!this.#stopped) {
      const due = dueOf(this.#waiting, this.#delayMs, this.#parts.nowMs());
      const work = this.#nextWork(this.#waiting.slice(0, due.count));
      if (work === null) {
        await this.#wakeUp.sleep(due.inMs);
        continue;
      }
      this.#busy = true;
      try {
        await work();
      } catch (error) {
        // A large batch that was being read is rolled back with its transaction.
        if (this.#stopped && error instanceof ClosedError) return;
        throw error;
      }
      this.#busy = false;
      this.#wakeUp.wake();
    }
  }

  #nextWork(due: readonly Aligned[]): (() => Promise<void>) | null {
    const [first] = due;
    if (first === undefined) return null;
    if (first.kind === 'epoch') {
      return mayBegin(first, this.#limit) ? () => this.#applyEpoch(first) : null;
    }
    const portion = nextPortion(due, this.#position.at, this.#limit);
    return portion === null ? null : () => this.#applyPortion(portion);
  }

  async #applyPortion(portion: ApplyPortion): Promise<void> {
    const from = this.#position;
    const whole = wholeBatches(portion);
    const to = positionAfter(from, portion);
    const labelled = whole.map(({ point }) => point).filter(({ label }) => label !== null);
    const steps = this.#stepsOf(portion, { from: from.at, to: portion.stopAt });
    const unfinished = unfinishedDuring(from, portion);
    const mayLackBase = (id: RelationId): boolean => !this.exact || unfinished.has(id);
    const becomesExact = reachesHorizon(portion, this.#building?.horizon ?? null);
    const sequences = this.#sequences.all;
    const move = { from, to, labelled, sequences, mayLackBase, becomesExact };
    // rule: failed-batch-is-not-skipped
    const rows = await this.#applier.apply(steps, move);
    this.#sequences.saved(sequences);
    this.#position = to;
    if (becomesExact) {
      this.#building = null;
      this.#parts.onExact?.();
    }
    this.#waiting.splice(0, whole.length);
    this.#parts.onApplied(to, rows);
  }

  #stepsOf({ batches, large }: ApplyPortion, window: ApplyWindow): ApplySteps {
    if (large !== null) return () => stepsOfLarge(this.#parts, large, window);
    const steps = this.#fold(batches, window);
    return () => steps;
  }

  async #applyEpoch(aligned: AlignedEpoch): Promise<void> {
    const { client } = this.#parts;
    const { begin, checkpoint, appendMs } = aligned;
    const from = this.#position;
    requireBase(begin, from.at);
    const to = {
      ...from,
      at: checkpoint.at,
      checkpoint,
      appendMs,
      unfinished: relationsOf(begin.unfinished),
    };
    const sequences = this.#sequences.all;
    await inTransaction(client, async () => {
      await saveEpoch(client, begin);
      await client.query('UPDATE understudy.node SET epoch = $1', [begin.epoch]);
      await saveSequences(client, sequences);
      await movePosition(client, from, to);
    });
    this.#sequences.saved(sequences);
    this.#position = to;
    this.#waiting.shift();
    this.#parts.onEpoch(begin);
  }

  async #until(reached: () => boolean): Promise<void> {
    while (!reached()) {
      if (this.#failure !== null) throw this.#failure.error;
      if (this.#stopped) throw followerStopped();
      await this.#wakeUp.sleep();
    }
  }
}
