/**
 * Reads of rows beside the stream: reselect, backfill and resnapshots. Takes choices; gives a log
 * and a follower of it, and throws at the first violation. Reads take their snapshot, and write
 * their watermark, at any later time; what the leader remembers is bounded, and a restart forgets
 * all of it except for what the last point says. Some changes are not streamed, and some rows of
 * the follower are changed behind its back: a resnapshot repairs both.
 */

import type { Checkpoint, RowChange, RowKey, UnfinishedTable } from '../../src/change/change.ts';
import { toLsn } from '../../src/change/lsn.ts';
import type { BackfillMerge, NextChunk } from '../../src/leader/backfill/backfill-merge.ts';
import type { Reselect } from '../../src/leader/backfill/reselect.ts';
import type { ReadRow } from '../../src/leader/backfill/row-overlay.ts';
import type { Snapshot } from '../../src/leader/backfill/snapshot.ts';
import { StreamObserver } from '../../src/leader/backfill/stream-observer.ts';
import { BackfillLog } from './backfill-log.ts';
import type { BackfillBounds, BackfillRules } from './backfill-rules.ts';
import type { Rows } from './model-follower.ts';
import {
  changesOf,
  endOf,
  keys,
  ModelTransactions,
  type Row,
  readOf,
  relationId,
  snapshotOf,
  stateOf,
  type Transaction,
  table,
  type Write,
  wide,
  writesOf,
} from './model-writes.ts';

export type BackfillChoice = readonly [what: number, how: number];

interface Read {
  readonly id: string;
  readonly keys: readonly RowKey[];
  /** One read at a time, until its watermark is streamed. */
  state: 'begun' | 'read' | 'committed';
}

interface Chunk {
  readonly next: NextChunk;
  readonly snapshot: Snapshot;
  readonly rows: readonly ReadRow[];
  readonly isLast: boolean;
}

const firstLsn = toLsn(100n);
const atFirst = { relation: relationId, after: null, rows: 0, estimate: null, since: null };

export class BackfillWorld {
  readonly #rules: BackfillRules;
  readonly #bounds: BackfillBounds;
  readonly #before: Rows;
  readonly #wal = new ModelTransactions(firstLsn);
  readonly #log: BackfillLog;
  #streamed = 0;
  /** Whether something was written and not streamed, and no resnapshot has begun since. */
  #hasUnsent = false;
  #reselect: Reselect;
  #backfill: BackfillMerge;
  /** Both as production composes them. */
  #observer: StreamObserver;
  #read: Read | null = null;
  #chunk: Chunk | null = null;
  /** An answer of the server that has not arrived. */
  #horizon: { readonly nextXid: bigint; readonly forgotten: number } | null = null;
  #reads = 0;
  #nowMs = 0;
  #moments = 0;
  /** The end of what can be read of the topic, and what the point there says. */
  #readTo = firstLsn;
  #unhealed: Checkpoint | null = null;
  #unfinished: readonly UnfinishedTable[];

  constructor(rules: BackfillRules, bounds: BackfillBounds) {
    this.#rules = rules;
    this.#bounds = bounds;
    const old = keys.slice(0, bounds.rowsBefore).map((key): [string, Row] => {
      return [key, { small: 'old', large: 'old' }];
    });
    this.#before = new Map(old);
    this.#unfinished = old.length === 0 ? [] : [atFirst];
    this.#log = new BackfillLog(rules, firstLsn, this.#before);
    this.#reselect = new rules.Reselects(null, bounds);
    this.#backfill = new rules.Backfills(this.#unfinished, bounds);
    this.#observer = this.#observe();
  }

  #observe(): StreamObserver {
    return new StreamObserver(this.#reselect, this.#backfill, () => this.#nowMs);
  }

  step([what, how]: BackfillChoice): void {
    this.#nowMs += 400;
    const moves = [
      () => this.#write(how),
      () => this.#write(how),
      () => this.#wal.see(how),
      () => this.#stream(),
      () => this.#stream(),
      () => this.#search(),
      () => this.#begin(),
      () => this.#takeRows(),
      () => this.#commitRead(),
      () => this.#mayPublish(how),
      () => this.#mayPublish(how),
      () => (how % 8 === 0 ? this.#restart() : this.#stream()),
    ];
    if (this.#before.size > 0 || this.#bounds.resnapshots) {
      moves.push(
        () => this.#askHorizon(),
        () => this.#readChunk(how),
        () => this.#commitChunk(),
      );
    }
    if (this.#bounds.resnapshots) {
      moves.push(
        () => this.#disturb(how),
        () => this.#readOn(how),
      );
    }
    moves[what % moves.length]?.();
  }

  finish(): void {
    const { follower } = this.#log;
    for (let tries = 0; tries < 50; tries += 1) {
      this.#nowMs += 1_000;
      // WAL moves, so that there is another point.
      this.#wal.commit({});
      this.#wal.seeAll();
      while (this.#streamed < this.#wal.all.length) this.#stream();
      this.#publish(1);
      const isWrong = this.#hasUnsent || follower.isTampered;
      if (isWrong) this.#wal.commit({ resnapshots: true });
      if (!isWrong && this.#unhealed === null && this.#unfinished.length === 0) {
        follower.check(this.#truth());
        return;
      }
      this.#search();
      this.#begin();
      this.#takeRows();
      this.#commitRead();
      this.#askHorizon();
      this.#readChunk(tries);
      this.#commitChunk();
    }
    throw new Error('some row is never complete');
  }

  #truth(): Rows {
    return stateOf(this.#wal.all.slice(0, this.#streamed), this.#before);
  }

  /** All commits are visible and streamed, and some chunks come before anything else. */
  #readOn(how: number): void {
    for (let left = how % 5; left >= 0; left -= 1) {
      this.#wal.seeAll();
      this.#askHorizon();
      this.#readChunk(1);
      this.#commitChunk();
      while (this.#streamed < this.#wal.all.length) this.#stream();
    }
  }

  /** Something that only a resnapshot repairs, or one without a need. */
  #disturb(how: number): void {
    const rest = Math.trunc(how / 4);
    if (how % 4 === 0) this.#write(rest, true);
    else if (how % 4 === 1) {
      const key = [...keys, 'strange'][rest % 4] ?? '';
      const row = { small: 'strange', large: 'strange' };
      this.#log.follower.tamper(key, Math.trunc(rest / 4) % 2 === 0 ? row : null);
    } else this.#wal.commit({ resnapshots: true });
  }

  /** A transaction writes, and leaves its commit record. */
  #write(how: number, isSilent = false): void {
    const writes = writesOf(how, this.#wal.all, this.#before, this.#wal.nextText);
    // A chunk that is open has a lock that TRUNCATE waits for.
    if (writes === null || (this.#chunk !== null && isTruncate(writes))) return;
    this.#wal.commit({ writes, isSilent });
  }

  #stream(): void {
    const transaction = this.#wal.all[this.#streamed];
    if (transaction === undefined) return;
    this.#streamed += 1;
    const { commitLsn, resnapshots, isSilent } = transaction;
    const before = this.#log.checkpointAt(commitLsn);
    if (resnapshots) {
      this.#hasUnsent = false;
      this.#observer.resnapshot(relationId);
      this.#log.table('reread', commitLsn);
    }
    if (isSilent) this.#hasUnsent = true;
    else this.#publishWrites(transaction, before);
    if (transaction.watermark !== null)
      this.#publishRead(transaction, transaction.watermark, before);
    this.#log.ended(endOf(commitLsn), this.#hasUnsent ? null : this.#truth());
  }

  #publishWrites(transaction: Transaction, before: Checkpoint): void {
    for (const write of transaction.writes) {
      if (write.kind === 'truncate') {
        this.#observer.truncated(relationId);
        this.#log.table('truncate', transaction.commitLsn);
        continue;
      }
      for (const change of changesOf(write)) this.#append(change, transaction, before);
    }
  }

  /** What a read gives is the row as of its watermark. */
  #publishRead(transaction: Transaction, watermark: string, before: Checkpoint): void {
    const truths = this.#truth();
    for (const change of this.#observer.takeAt(watermark, before).rows) {
      const [key = ''] = change.identity;
      const truth = truths.get(key);
      const wanted = truth === undefined ? null : [key, truth.small, truth.large];
      if (!this.#hasUnsent && `${change.values}` !== `${wanted}`) {
        throw new Error(`${key} is published as ${change.values} and is ${wanted}`);
      }
      this.#append(change, transaction, before);
    }
    if (watermark === this.#read?.id) this.#read = null;
  }

  #append(change: RowChange, { xid, commitLsn }: Transaction, before: Checkpoint): void {
    this.#observer.row(change, xid, before, { epoch: 1, commitLsn, ordinal: 0 });
    this.#log.row(change, commitLsn);
  }

  #mayPublish(how: number): void {
    this.#moments += 1;
    if (this.#moments % this.#bounds.pointsEvery === 0) this.#publish(how);
  }

  /** Kafka commits what was streamed, with a point: now it can be read. */
  #publish(how: number): void {
    const readTo = this.#wal.all[this.#streamed]?.commitLsn ?? this.#wal.nextLsn;
    if (readTo !== this.#readTo) {
      this.#readTo = readTo;
      const { unhealed, unfinished } = this.#observer.takeForPoint();
      this.#unhealed = unhealed;
      this.#unfinished = unfinished;
      this.#log.point(readTo, unhealed, unfinished);
    }
    this.#log.follow(how);
  }

  #search(): void {
    const from = this.#reselect.takeSearch({ epoch: 1, lsn: this.#readTo });
    if (from === null) return;
    const found = new this.#rules.Found([{ epoch: 1, base: null }]);
    for (const record of this.#log.records) {
      if (record.position.commitLsn < this.#readTo) found.take(record);
    }
    this.#reselect.found(found.keys, true, this.#nowMs);
  }

  #begin(): void {
    if (this.#read !== null) return;
    const round = this.#reselect.next(this.#nowMs);
    if ('atMs' in round) return;
    if (round.keys.some(({ horizon }) => horizon === 'unknown')) {
      const { xid } = this.#wal.commit({});
      this.#reselect.setHorizon(round.keys, wide(xid), this.#reselect.resnapshots);
    }
    this.#reads += 1;
    this.#read = { id: `${this.#reads}`, keys: [...round.keys], state: 'begun' };
    const shape = { shape: table, hasOneSpelling: true };
    this.#reselect.begin(this.#read.id, shape, round.keys);
  }

  #takeRows(): void {
    const read = this.#read;
    if (read === null || read.state !== 'begun') return;
    const seen = this.#seen();
    const rows = read.keys.map((key) => ({ key, row: readOf(seen, key.identity[0] ?? '') }));
    this.#snapshot = snapshotOf(this.#wal.all);
    this.#rows = rows;
    read.state = 'read';
  }

  #snapshot: Snapshot = { xmin: 0n, xmax: 0n, running: new Set() };
  #rows: readonly { readonly key: RowKey; readonly row: ReadRow | null }[] = [];

  #seen(): Map<string, Row> {
    return stateOf(
      this.#wal.all.filter(({ isSeen }) => isSeen),
      this.#before,
    );
  }

  #commitRead(): void {
    const read = this.#read;
    if (read === null || read.state !== 'read') return;
    this.#reselect.read(this.#snapshot, this.#rows);
    this.#wal.commit({ watermark: read.id });
    read.state = 'committed';
  }

  #askHorizon(): void {
    const { wantsHorizon, forgotten } = this.#backfill;
    if (wantsHorizon) this.#horizon = { nextXid: wide(this.#wal.commit({}).xid), forgotten };
  }

  #readChunk(how: number): void {
    const isLocked = this.#wal.all.some(({ writes, isSeen }) => !isSeen && isTruncate(writes));
    if (this.#chunk !== null || isLocked) return;
    if (this.#horizon !== null) {
      this.#backfill.setHorizon(this.#horizon.nextXid, this.#horizon.forgotten);
    }
    this.#horizon = null;
    const next = this.#backfill.next();
    if (next === null) return;
    const seen = this.#seen();
    const after = next.after?.[0] ?? '';
    const all = [...seen.keys()].sort().filter((key) => key > after);
    const few = all.slice(0, 1 + (how % 2));
    const rows = few.flatMap((key) => readOf(seen, key) ?? []);
    const isLast = few.length < 1 + (how % 2);
    this.#chunk = { next, snapshot: snapshotOf(this.#wal.all), rows, isLast };
  }

  #commitChunk(): void {
    const chunk = this.#chunk;
    if (chunk === null) return;
    this.#chunk = null;
    this.#reads += 1;
    const id = `${this.#reads}`;
    const { snapshot, rows, isLast } = chunk;
    const read = { shape: table, snapshot, rows, isLast, estimate: null };
    if (this.#backfill.read(id, read)) this.#wal.commit({ watermark: id });
  }

  /** All that was streamed is in the log, which says what is missing. */
  #restart(): void {
    this.#publish(1);
    const { Reselects, Backfills, unfinishedAgain } = this.#rules;
    this.#reselect = new Reselects(this.#unhealed, this.#bounds);
    this.#backfill = new Backfills(unfinishedAgain(this.#unfinished), this.#bounds);
    this.#observer = this.#observe();
    this.#read = null;
    this.#chunk = null;
    this.#horizon = null;
  }
}

function isTruncate(writes: readonly Write[]): boolean {
  return writes.some(({ kind }) => kind === 'truncate');
}
