/**
 * A follower without its database: the real aligner, apply limit and folding between a log and a
 * table that is a map. Flows in: the records of each partition, and choices of what happens next: a
 * fetch of any size, an apply, another limit, a restart from the position row. It checks the
 * rows after every apply: they are those of the position, no more and no less.
 */
import * as assert from 'uvu/assert';
import type { RelationId } from '../../src/change/change.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../src/change/position.ts';
import { Aligner } from '../../src/follower/apply/aligner.ts';
import {
  type ApplyLimit,
  type ApplyPortion,
  mayBegin,
  nextPortion,
  positionAfter,
  wholeBatches,
} from '../../src/follower/apply/apply-portion.ts';
import { coalesce } from '../../src/follower/apply/coalesce.ts';
import type { Aligned, ApplyStep } from '../../src/follower/apply/stages.ts';
import type { FollowerPosition } from '../../src/follower/state/follower-state.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { at, streamId } from '../support/builders.ts';
import { type AlignHistory, firstLsn, showRows } from './align-histories.ts';
import { applyRows, type ModelStore } from './model-tables.ts';

/** What a follower does; the functions may be those of a module with a rule left out. */
export interface AlignRules {
  readonly Reader: typeof Aligner;
  readonly mayBegin: typeof mayBegin;
  readonly nextPortion: typeof nextPortion;
  readonly positionAfter: typeof positionAfter;
  readonly coalesce: typeof coalesce;
  readonly deletesLast: boolean;
}

export const rightRules: AlignRules = {
  Reader: Aligner,
  mayBegin,
  nextPortion,
  positionAfter,
  coalesce,
  deletesLast: false,
};

export type Choice = readonly [what: number, how: number];

export class AlignWorld {
  readonly #rules: AlignRules;
  readonly #history: AlignHistory;
  #partitions: readonly (readonly StreamRecord[])[];
  readonly #rows = new Map<string, { readonly key: string; readonly value: string }>();
  #position: FollowerPosition;
  #aligner: Aligner;
  #offsets: bigint[] = [];
  #waiting: Aligned[] = [];
  #limit: ApplyLimit = { kind: 'none' };

  constructor(rules: AlignRules, history: AlignHistory) {
    this.#rules = rules;
    this.#history = history;
    this.#partitions = history.partitions;
    const checkpoint = { at: at(1, firstLsn), nextOffsets: history.partitions.map(() => 1n) };
    const appendMs = history.partitions.map(() => 0);
    const place = { at: checkpoint.at, commitTimeMicros: 0n, checkpoint, appendMs };
    this.#position = { streamId, ...place, unfinished: [] };
    this.#aligner = new rules.Reader(streamId, checkpoint);
    this.#restart();
  }

  get at(): EpochLsn {
    return this.#position.at;
  }

  /** The broker has lost, doubled or compacted records. */
  replaceLog(partitions: readonly (readonly StreamRecord[])[]): void {
    this.#partitions = partitions;
  }

  step([what, how]: Choice): void {
    const fetch = (): void => this.#fetch(how % this.#offsets.length, 1 + (how % 7));
    const apply = (): boolean => this.#apply();
    const moves = [
      ...[fetch, fetch, fetch, fetch, fetch, apply, apply, apply],
      () => this.#restart(),
      () => this.#setLimit(how),
    ];
    moves[what % moves.length]?.();
  }

  /** Reads and applies all that the limit lets through. */
  goTo(limit: ApplyLimit): void {
    this.#limit = limit;
    for (let p = 0; p < this.#offsets.length; p += 1) this.#fetch(p, Number.POSITIVE_INFINITY);
    while (this.#apply());
  }

  #setLimit(how: number): void {
    const { commits } = this.#history;
    const commit = commits[how % Math.max(1, commits.length)];
    if (commit === undefined || how % 5 === 0) {
      this.#limit = { kind: how % 2 === 0 ? 'none' : 'hold' };
      return;
    }
    // At a commit record, right behind it, or before it.
    const lsn = Number(commit.commitLsn) + ((how >> 4) % 3) - 1;
    this.#limit = { kind: 'to', at: at(commit.epoch, Math.max(0, lsn)) };
  }

  #restart(): void {
    const { checkpoint } = this.#position;
    this.#aligner = new this.#rules.Reader(streamId, checkpoint);
    this.#offsets = [...checkpoint.nextOffsets];
    this.#waiting = [];
  }

  #fetch(partition: number, count: number): void {
    const from = this.#offsets[partition] ?? 0n;
    const all = this.#partitions[partition] ?? [];
    const records = all.filter(({ offset }) => offset >= from).slice(0, count);
    const last = records[records.length - 1];
    if (last === undefined) return;
    this.#offsets[partition] = last.offset + 1n;
    this.#aligner.push(partition, records);
    for (let next = this.#aligner.next(); next !== null; next = this.#aligner.next()) {
      this.#waiting.push(next);
    }
  }

  /** One transaction of the applier; false when there is nothing to do or the limit is reached. */
  #apply(): boolean {
    const [first] = this.#waiting;
    const from = this.#position;
    if (first?.kind === 'epoch') {
      if (!this.#rules.mayBegin(first, this.#limit)) return false;
      const { begin, checkpoint, appendMs } = first;
      assert.equal(begin.base, from.at, 'an epoch begins elsewhere than at its base');
      this.#moved(from, { ...from, at: checkpoint.at, checkpoint, appendMs });
      this.#waiting.shift();
      return true;
    }
    const portion = this.#rules.nextPortion(this.#waiting, from.at, this.#limit);
    if (portion === null) return false;
    this.#applyPortion(from, portion);
    return true;
  }

  #applyPortion(from: FollowerPosition, portion: ApplyPortion): void {
    const window = { from: from.at, to: portion.stopAt };
    for (const step of this.#rules.coalesce(portion.batches, window)) this.#applyStep(step);
    this.#moved(from, this.#rules.positionAfter(from, portion));
    this.#waiting.splice(0, wholeBatches(portion).length);
  }

  #moved(from: FollowerPosition, to: FollowerPosition): void {
    this.#position = to;
    const where = formatEpochLsn(to.at);
    assert.ok(compareEpochLsn(to.at, from.at) >= 0, `it moves back to ${where}`);
    if (this.#limit.kind === 'to') {
      const limit = formatEpochLsn(this.#limit.at);
      assert.ok(compareEpochLsn(to.at, this.#limit.at) <= 0, `${where} is past the limit ${limit}`);
    }
    const rows = this.#history.rowsAt(to.at);
    assert.equal(showRows(this.#rows), rows, `the rows are not those of ${where}`);
  }

  #applyStep(step: ApplyStep): void {
    if (step.kind === 'relation' || step.kind === 'reread') return;
    if (step.kind === 'truncate') {
      for (const id of [...this.#rows.keys()]) {
        if (step.relationIds.some((table) => id.startsWith(`${table} `))) this.#rows.delete(id);
      }
      return;
    }
    const store: ModelStore = {
      values: ({ identity, value }) => [identity[0] ?? '', value.toString()],
      read: () => null,
      delete: (table, key) => this.#rows.delete(rowId(table, key)),
      write: (table, [key, value]) => {
        this.#rows.set(rowId(table, key ?? ''), { key: key ?? '', value: value ?? '' });
      },
    };
    const { deletesLast } = this.#rules;
    applyRows(store, { tables: step.tables, columns: ['id', 'v'], deletesLast });
  }
}

/** Spellings that differ in bytes are one key to Postgres. */
function rowId(relationId: RelationId, key: string): string {
  return `${relationId} ${key.toLowerCase()}`;
}
