/**
 * A new node that reads a log while it is written to and compacted: the real reading, aligning,
 * folding and horizon, between a log in memory and tables that are maps. Flows in: choices of what
 * happens next: writes, time, cleaning, a fetch of any size, an apply, a kill. It checks the
 * rows whenever the node calls itself exact: they are the leader's at its position.
 */
import * as assert from 'uvu/assert';
import type { EpochBegin } from '../../src/change/change.ts';
import { compareEpochLsn, formatEpochLsn } from '../../src/change/position.ts';
import { Aligner } from '../../src/follower/apply/aligner.ts';
import {
  nextPortion,
  positionAfter,
  relationsOf,
  unfinishedDuring,
} from '../../src/follower/apply/apply-portion.ts';
import { coalesce } from '../../src/follower/apply/coalesce.ts';
import type { Aligned, AlignedBatch } from '../../src/follower/apply/stages.ts';
import { BootstrapRestart } from '../../src/follower/bootstrap/bootstrap-restart.ts';
import { CompactedLog } from '../../src/follower/bootstrap/compacted-log.ts';
import * as horizonRules from '../../src/follower/bootstrap/horizon.ts';
import { TopicSurvey } from '../../src/follower/bootstrap/topic-survey.ts';
import type { Emptied } from '../../src/follower/state/bootstrap-state.ts';
import * as exactnessRules from '../../src/follower/state/exactness.ts';
import type { FollowerPosition } from '../../src/follower/state/follower-state.ts';
import { findLogEnd, type LogEnd } from '../../src/topic/partition-tails.ts';
import { streamId } from '../support/builders.ts';
import { BootstrapLeader, showModelRows } from './bootstrap-leader.ts';
import { BootstrapTables } from './bootstrap-tables.ts';
import { CompactingLog, type LogTimes } from './compacting-log.ts';

/** What a new node does; the functions may be those of a module with a rule left out. */
export interface BootstrapRules {
  readonly Log: typeof CompactedLog;
  readonly Survey: typeof TopicSurvey;
  readonly Reader: typeof Aligner;
  readonly horizon: typeof horizonRules;
  readonly exactness: typeof exactnessRules;
  /** All partitions together, in the order of positions; else one after the other. */
  readonly inOrder: boolean;
}

export const rightRules: BootstrapRules = {
  Log: CompactedLog,
  Survey: TopicSurvey,
  Reader: Aligner,
  horizon: horizonRules,
  exactness: exactnessRules,
  inOrder: true,
};

export type Choice = readonly [what: number, how: number];

/** What the node's database holds of its bootstrap. */
interface Saved {
  readonly end: LogEnd;
  readonly epochs: readonly EpochBegin[];
  readonly emptied: Emptied;
  readonly beganMs: number;
  readonly offsets: readonly bigint[];
  readonly servedBy: readonly (number | null)[];
  readonly horizon: readonly bigint[] | null;
}

export class BootstrapWorld {
  readonly #rules: BootstrapRules;
  readonly #times: LogTimes;
  readonly #log: CompactingLog;
  readonly #leader: BootstrapLeader;
  // The node's database.
  #tables = new BootstrapTables();
  #saved: Saved | null = null;
  #position: FollowerPosition | null = null;
  exact = false;
  startedOver = 0;
  // Its agent's memory.
  #reading: { readonly log: CompactedLog; readonly pieces: AlignedBatch['partitions'][] } | null =
    null;
  #aligner: Aligner | null = null;
  #offsets: bigint[] = [];
  #waiting: Aligned[] = [];

  constructor(rules: BootstrapRules, partitions: number, times: LogTimes) {
    this.#rules = rules;
    this.#times = times;
    this.#log = new CompactingLog(partitions, times);
    this.#leader = new BootstrapLeader(this.#log);
  }

  step([what, how]: Choice): void {
    const partition = how % this.#log.partitions;
    const write = (): void => this.#leader.step(how % 1009, Math.trunc(how / 7) % 4096);
    const clean = (): void => this.#log.clean(partition, how >> 3, how >> 5);
    const roll = (): void => this.#log.roll(partition);
    const wait = (): void => {
      this.#log.nowMs += how % 29;
    };
    const node = (): void => {
      this.#node(how);
    };
    const moves = [
      ...[write, write, write, write, roll, roll, clean, clean, clean, wait, wait],
      ...[node, node, node, node, node, node, node, node],
      () => {
        if (how % 4 === 0) this.#kill();
      },
      () => this.#log.moveLeader(partition),
      () => this.#moveUnderReading(partition, how),
      () => this.#cleanTorn(how),
      () => this.#expire(partition, how >> 3),
      () => this.#expire(partition, how >> 3),
    ];
    moves[what % moves.length]?.();
  }

  /** A partition moves to a replica that has long cleaned, while it is being read. */
  #moveUnderReading(partition: number, how: number): void {
    this.#log.nowMs += this.#times.lagMs;
    this.#expire(partition, this.#log.leaderOf(partition) + 1);
    for (let turn = 0; turn < how % 8; turn += 1) this.#node(turn + 1);
    this.#log.moveLeader(partition);
  }

  /** A batch is torn, and what it replaces is cleaned before anybody leads on. */
  #cleanTorn(how: number): void {
    this.#leader.step(0, how % 4096);
    this.#log.nowMs += this.#times.lagMs;
    for (let p = 0; p < this.#log.partitions; p += 1) {
      this.#log.roll(p);
      this.#log.clean(p, this.#log.leaderOf(p), 0);
    }
  }

  /** One replica cleans twice, with all tombstones expired in between; others may be behind. */
  #expire(partition: number, replica: number): void {
    this.#log.nowMs += this.#times.lagMs;
    this.#log.roll(partition);
    this.#log.clean(partition, replica, 0);
    this.#log.nowMs += this.#times.retentionMs;
    this.#log.clean(partition, replica, 0);
  }

  /** Nothing is written or cleaned any more; gives whether the log allows the node to be exact. */
  finish(leaderLives: boolean): boolean {
    if (leaderLives) this.#leader.settle();
    for (let turn = 0; turn < 1_000 && !this.#isAtEnd(); turn += 1) {
      if (!this.#node(turn)) this.#kill();
    }
    const end = findLogEnd(this.#log.tails());
    // A row with a new spelling that was not published is in the topic twice until a resnapshot.
    if (end?.checkpoint == null || this.#leader.hasUnpublished) return false;
    const target = this.#horizonOf(end, horizonRules);
    return exactnessRules.isExactAt(target, end.checkpoint, exactnessRules.isWholeAt(end));
  }

  #isAtEnd(): boolean {
    const end = findLogEnd(this.#log.tails());
    if (this.#position === null || end?.checkpoint == null || this.#reading !== null) return false;
    if (compareEpochLsn(this.#position.at, end.checkpoint.at) < 0) return false;
    return this.#saved?.horizon !== null;
  }

  /** One thing that the agent does; false when it waits for the log. */
  #node(how: number): boolean {
    try {
      if (this.#saved === null && this.#position === null) this.#survey();
      else if (this.#position === null) this.#read(how);
      else if (this.#saved !== null && this.#saved.horizon === null) this.#arrive();
      else return this.#follow(how);
      return true;
    } catch (error) {
      // By its name: the aligner may be one with a rule left out, whose errors are its own.
      const isGap = error instanceof Error && error.constructor.name === 'GapError';
      if (isGap && this.exact) {
        // It is too late, and is rebuilt.
        this.exact = false;
      } else if (!isGap && !(error instanceof BootstrapRestart)) throw error;
      this.startedOver += 1;
      this.#kill();
      this.#tables = new BootstrapTables();
      this.#saved = null;
      this.#position = null;
      return true;
    }
  }

  #kill(): void {
    this.#reading = null;
    this.#aligner = null;
    this.#waiting = [];
  }

  #survey(): void {
    const end = findLogEnd(this.#log.tails());
    if (end?.checkpoint == null) throw new BootstrapRestart('no checkpoint is common');
    const survey = new this.#rules.Survey(streamId);
    for (const record of this.#log.read(0, 0n).records) survey.take(record);
    const epochs = survey.epochsTo(end.checkpoint.at);
    const emptied = survey.emptiedBelow(end.checkpoint.at, epochs);
    const offsets = end.checkpoint.nextOffsets.map(() => 0n);
    const servedBy = offsets.map(() => null);
    const beganMs = this.#log.nowMs;
    this.#saved = { end, epochs, emptied, beganMs, offsets, servedBy, horizon: null };
  }

  #read(how: number): void {
    const saved = this.#saved;
    if (saved === null) return;
    this.#reading ??= { log: this.#openLog(saved), pieces: [] };
    const { log, pieces } = this.#reading;
    const wanted = [...log.wanted()];
    const one = wanted[how % Math.max(1, wanted.length)];
    if (one !== undefined && how % 5 !== 0) {
      const [partition, offset] = one;
      const { records, nextOffset, broker } = this.#log.read(partition, offset, 1 + (how % 2));
      const now = saved.servedBy.map((_, p) => (p === partition ? broker : null));
      if (this.#rules.horizon.movedPartitions(saved.servedBy, now).length > 0) {
        throw new BootstrapRestart('a partition has another leader');
      }
      const servedBy = saved.servedBy.map((before, p) => now[p] ?? before);
      this.#saved = { ...saved, servedBy };
      log.push(partition, records, nextOffset);
      pieces.push(log.take());
      return;
    }
    this.#applyRead(saved, log, pieces);
  }

  /** In one transaction: what was read, and the next offsets, or the position of the node. */
  #applyRead(saved: Saved, log: CompactedLog, pieces: AlignedBatch['partitions'][]): void {
    const window = { from: { epoch: 0, lsn: 0n as never }, to: null };
    const batches = pieces.map((partitions) => ({ partitions }));
    const steps = coalesce(batches, window, () => true);
    for (const step of steps) this.#tables.apply(step, () => true);
    this.#saved = { ...saved, offsets: this.#offsetsOf(saved, log) };
    pieces.length = 0;
    // Where partitions are read one after the other, the next one is another reading.
    if (log.complete) this.#reading = null;
    const { checkpoint } = saved.end;
    if (checkpoint === null) return;
    if (this.#saved.offsets.some((offset, p) => offset < (checkpoint.nextOffsets[p] ?? 0n))) return;
    const appendMs = checkpoint.nextOffsets.map(() => 0);
    const unfinished = relationsOf(saved.end.unfinished);
    this.#position = {
      streamId,
      at: checkpoint.at,
      checkpoint,
      appendMs,
      commitTimeMicros: 0n,
      unfinished,
    };
  }

  #openLog({ offsets, end, epochs, emptied }: Saved): CompactedLog {
    const ends = end.checkpoint?.nextOffsets ?? [];
    if (this.#rules.inOrder) return new this.#rules.Log(offsets, ends, epochs, emptied);
    const open = offsets.findIndex((offset, p) => offset < (ends[p] ?? 0n));
    const only = ends.map((to, p) => (p === open ? to : (offsets[p] ?? 0n)));
    return new this.#rules.Log(offsets, only, epochs, emptied);
  }

  #offsetsOf({ offsets }: Saved, log: CompactedLog): readonly bigint[] {
    return log.offsets.map((offset, p) =>
      offset > (offsets[p] ?? 0n) ? offset : (offsets[p] ?? 0n),
    );
  }

  #arrive(): void {
    const { horizon } = this.#rules;
    const saved = this.#saved;
    if (saved === null || this.#position === null) return;
    const readMs = this.#log.nowMs - saved.beganMs;
    if (horizon.isTooSlow({ readMs, deleteRetentionMs: this.#times.retentionMs })) {
      throw new BootstrapRestart('tombstones may have expired');
    }
    const end = findLogEnd(this.#log.tails());
    if (end === null) throw new BootstrapRestart('no checkpoint is common');
    this.#saved = { ...saved, horizon: this.#horizonOf(end, horizon) };
    this.#judge(this.#rules.exactness.isWholeAt(saved.end));
  }

  #horizonOf(end: LogEnd, { horizonOf }: typeof horizonRules): readonly bigint[] {
    const markOffset = (end.checkpoint?.nextOffsets[0] ?? 0n) - 1n;
    const [checkpoint] = this.#log.read(0, markOffset, 1).records;
    // Where the record of the checkpoint is removed, it may be of any age.
    const checkpointAgeMs =
      checkpoint?.offset === markOffset ? this.#log.nowMs - checkpoint.timestampMs : Infinity;
    const { lastStable } = this.#log;
    return horizonOf({ ...end, lastStable, checkpointAgeMs }, this.#times.retentionMs);
  }

  #currentPosition(): FollowerPosition {
    if (this.#position === null) throw new Error('the node has no position yet');
    return this.#position;
  }

  /** Whether the node is exact at its position. */
  #judge(isWhole: boolean): void {
    const { at, checkpoint, unfinished } = this.#currentPosition();
    const target = this.#saved?.horizon;
    if (target != null && this.#rules.exactness.isExactAt(target, checkpoint, isWhole)) {
      this.exact = true;
      this.#saved = null;
    }
    if (!this.exact) return;
    const truth = this.#leader.truthAt(at);
    assert.ok(truth, `the node is exact at ${formatEpochLsn(at)}, where no checkpoint is`);
    for (const [table, rows] of truth ?? []) {
      if (unfinished.includes(table)) continue;
      const held = showModelRows(this.#tables.rows, table);
      assert.is(held, rows, `the rows are not those of ${formatEpochLsn(at)}`);
    }
  }

  /** A node without an unpublished change would stop; the resnapshot comes before that. */
  #isPublished(table: string, from: FollowerPosition, batches: readonly AlignedBatch[]): boolean {
    const checkpoints = [from, ...batches.map(({ checkpoint }) => checkpoint)];
    return checkpoints.every(({ at }) => this.#leader.truthAt(at)?.has(table) === true);
  }

  #follow(how: number): boolean {
    const from = this.#currentPosition();
    if (this.#aligner === null) {
      this.#aligner = new this.#rules.Reader(streamId, from.checkpoint);
      this.#offsets = [...from.checkpoint.nextOffsets];
    }
    if (how % 3 === 0 && this.#applyAligned(from)) return true;
    const partition = how % this.#offsets.length;
    const asked = this.#offsets[partition] ?? 0n;
    const { records, nextOffset } = this.#log.read(partition, asked, 1 + (how % 7));
    this.#offsets[partition] = nextOffset;
    this.#aligner.push(partition, records);
    for (let next = this.#aligner.next(); next !== null; next = this.#aligner.next()) {
      this.#waiting.push(next);
    }
    return true;
  }

  #applyAligned(from: FollowerPosition): boolean {
    const [first] = this.#waiting;
    if (first === undefined) return false;
    if (first.kind === 'epoch') {
      const { begin, checkpoint, appendMs } = first;
      const unfinished = relationsOf(begin.unfinished);
      this.#position = { ...from, at: checkpoint.at, checkpoint, appendMs, unfinished };
      this.#waiting.shift();
      this.#judge(this.#rules.exactness.isWholeAt({ point: null, begin }));
      return true;
    }
    const portion = nextPortion(this.#waiting, from.at, { kind: 'none' });
    const last = portion?.batches.at(-1);
    if (portion === null || last === undefined) return false;
    const window = { from: from.at, to: null };
    const unfinished = unfinishedDuring(from, portion);
    const mayLack = (table: string): boolean => {
      return (
        !this.exact || unfinished.has(table) || !this.#isPublished(table, from, portion.batches)
      );
    };
    for (const step of coalesce(portion.batches, window, mayLack)) {
      this.#tables.apply(step, mayLack);
    }
    this.#position = positionAfter(from, portion);
    this.#tables.reached(this.#position);
    this.#waiting.splice(0, portion.batches.length);
    this.#judge(this.#rules.exactness.isWholePoint(last.point));
    return true;
  }
}
