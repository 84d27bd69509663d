/**
 * A new node that is built for a chosen LSN, while the log is written to and cleaned on.
 * Flows in: choices of what happens next, and the rules it follows; flows out: nothing, but
 * whenever the node says that it has arrived, its rows are the leader's of the checkpoint where it
 * began.
 */
import * as assert from 'uvu/assert';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../src/change/position.ts';
import { coalesce } from '../../src/follower/apply/coalesce.ts';
import type { AlignedBatch } from '../../src/follower/apply/stages.ts';
import { BootstrapRestart } from '../../src/follower/bootstrap/bootstrap-restart.ts';
import type * as placeRules from '../../src/follower/bootstrap/checkpoint-search.ts';
import { CompactedLog } from '../../src/follower/bootstrap/compacted-log.ts';
import { isTooSlow, movedPartitions } from '../../src/follower/bootstrap/horizon.ts';
import { TopicSurvey } from '../../src/follower/bootstrap/topic-survey.ts';
import { streamId } from '../support/builders.ts';
import { BootstrapLeader, showModelRows } from './bootstrap-leader.ts';
import { BootstrapTables } from './bootstrap-tables.ts';
import type { Choice } from './bootstrap-world.ts';
import { CompactingLog, type LogTimes } from './compacting-log.ts';

export type PlaceRules = typeof placeRules;

interface Reading {
  readonly start: placeRules.StartCheckpoint;
  readonly log: CompactedLog;
  readonly tables: BootstrapTables;
  readonly sinceMs: number;
  readonly pieces: AlignedBatch['partitions'][];
  servedBy: readonly (number | null)[];
}

export class PlaceWorld {
  readonly #rules: PlaceRules;
  readonly #times: LogTimes;
  readonly #log: CompactingLog;
  readonly #leader: BootstrapLeader;
  #until: EpochLsn = { epoch: 1, lsn: 10n as never };
  #reading: Reading | null = null;
  arrived = 0;

  constructor(rules: PlaceRules, partitions: number, times: LogTimes) {
    this.#rules = rules;
    this.#times = times;
    this.#log = new CompactingLog(partitions, times);
    this.#leader = new BootstrapLeader(this.#log);
  }

  step([what, how]: Choice): void {
    const partition = how % this.#log.partitions;
    const write = (): void => this.#leader.step(how % 1009, Math.trunc(how / 7) % 4096);
    const settle = (): void => this.#leader.settle();
    const clean = (): void => this.#log.clean(partition, how >> 3, how >> 5);
    const roll = (): void => this.#log.roll(partition);
    const wait = (): void => {
      this.#log.nowMs += how % 9;
    };
    const node = (): void => this.#node(how);
    const moves = [
      ...[write, write, write, settle, settle, roll, roll, clean, clean, clean, wait, wait],
      ...[node, node, node, node, node, node],
      () => this.#choose(),
      () => this.#log.moveLeader(partition),
    ];
    moves[what % moves.length]?.();
  }

  /** The newest checkpoint that is now: later writes are behind the place. */
  #choose(): void {
    const points = this.#log.read(0, 0n).records.filter(({ kind }) => kind === 'point');
    const newest = points.at(-1);
    if (newest?.kind !== 'point') return;
    this.#until = { epoch: newest.point.epoch, lsn: newest.point.upto };
    this.#reading = null;
  }

  #node(how: number): void {
    try {
      if (this.#reading === null) this.#survey();
      else this.#read(this.#reading, how);
    } catch (error) {
      if (!(error instanceof BootstrapRestart)) throw error;
      this.#reading = null;
    }
  }

  get #keptFromMs(): number {
    return this.#log.nowMs - this.#times.lagMs + 1;
  }

  #survey(): void {
    const search = new this.#rules.CheckpointSearch(this.#until, this.#keptFromMs);
    const survey = new TopicSurvey(streamId);
    for (const record of this.#log.read(0, 0n).records) {
      survey.take(record);
      search.take(record);
    }
    const { start } = search;
    if (start === null) return;
    assert.ok(compareEpochLsn(start.checkpoint.at, this.#until) <= 0, 'it begins past the place');
    const from = start.checkpoint.nextOffsets.map(() => 0n);
    const epochs = survey.epochsTo(start.checkpoint.at);
    const emptied = survey.emptiedBelow(start.checkpoint.at, epochs);
    const log = new CompactedLog(from, start.checkpoint.nextOffsets, epochs, emptied);
    const sinceMs = this.#log.nowMs;
    const servedBy = from.map(() => null);
    this.#reading = { start, log, tables: new BootstrapTables(), sinceMs, pieces: [], servedBy };
  }

  #read(reading: Reading, how: number): void {
    const { log, pieces } = reading;
    const wanted = [...log.wanted()];
    const one = wanted[how % Math.max(1, wanted.length)];
    if (one !== undefined && how % 5 !== 0) {
      const [partition, offset] = one;
      const { records, nextOffset, broker } = this.#log.read(partition, offset, 1 + (how % 4));
      const now = reading.servedBy.map((_, p) => (p === partition ? broker : null));
      if (movedPartitions(reading.servedBy, now).length > 0) throw new BootstrapRestart('it moved');
      reading.servedBy = reading.servedBy.map((before, p) => now[p] ?? before);
      log.push(partition, records, nextOffset);
      pieces.push(log.take());
      return;
    }
    this.#apply(reading);
    if (log.complete) this.#arrive(reading);
  }

  #apply({ pieces, tables }: Reading): void {
    const window = { from: { epoch: 0, lsn: 0n as never }, to: null };
    const batches = pieces.map((partitions) => ({ partitions }));
    const steps = coalesce(batches, window, () => true);
    for (const step of steps) tables.apply(step, () => true);
    pieces.length = 0;
  }

  #arrive({ start, tables, sinceMs }: Reading): void {
    this.#reading = null;
    const readMs = this.#log.nowMs - sinceMs;
    if (isTooSlow({ readMs, deleteRetentionMs: this.#times.retentionMs })) return;
    if (!this.#rules.isKept(start.appendMs, this.#keptFromMs)) return;
    this.arrived += 1;
    const { at } = start.checkpoint;
    for (const [table, rows] of this.#leader.truthAt(at) ?? []) {
      const held = showModelRows(tables.rows, table);
      assert.is(held, rows, `the rows are not those of ${formatEpochLsn(at)}`);
    }
  }
}
