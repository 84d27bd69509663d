/**
 * Reselect: which rows are published once more, and with what values. Flows in: every change of a
 * row as it is streamed, keys from elsewhere that need their row, and reads of this server's
 * tables; flows out: the keys to read next, and whole rows (or tombstones) for the position in the
 * WAL where a read left its watermark. Pure: no I/O and no clock.
 *
 * An update that leaves a large value alone is streamed without it: followers have the value, but
 * the topic, once compacted, does not. So the row is read and published whole. What was read is the
 * row at the read's snapshot, and its position in the stream is the watermark: in between are
 * changes that were streamed already, or become visible late, since commits do not become visible
 * in the order in which the WAL has them. A read counts for a key only when its snapshot sees the
 * last transaction that had changed the row when the read began; then it sees all before it too,
 * because a row has one writer at a time. Everything streamed since the read began is laid over
 * what was read. Laying a change over a row that has it already does no harm, and the newest comes
 * last: the result is the row as of the watermark, also for a row that is always being changed.
 */

import type { Checkpoint, RelationId, RowChange, RowKey } from '../../change/change.ts';
import { oldestCheckpoint } from '../../change/change.ts';
import { type EpochLsn, isCovered, type Position } from '../../change/position.ts';
import type { ReadableTable } from '../tables/known-tables.ts';
import { keyText, laidOver, type ReadRow, rowOf, tombstoneOf } from './row-overlay.ts';
import { type Snapshot, sees } from './snapshot.ts';

/** Keys of one table to read in one transaction. */
export interface ReadRound {
  readonly relationId: RelationId;
  readonly keys: readonly WantedRow[];
}

export interface WantedRow extends RowKey {
  /**
   * Reads must see all transactions below, because not all changes of the row were observed.
   * Unknown until it is set; null where any snapshot will do.
   */
  readonly horizon: bigint | 'unknown' | null;
}

interface Wanted extends WantedRow {
  /** The checkpoint before the record that made it wanted. */
  readonly since: Checkpoint;
  horizon: WantedRow['horizon'];
  /** The last streamed transaction that changed it since it is wanted. */
  lastXid: number | null;
  /** When to read it; null until `next` has seen it for the first time. */
  dueMs: number | null;
  /** While it is being read: what was streamed since. */
  overlay: RowChange | null;
  /** Whether a search of the topic found it. */
  isFound: boolean;
}

export type RoundTable = Pick<ReadableTable, 'shape' | 'hasOneSpelling'>;

interface Round {
  readonly table: RoundTable;
  readonly id: string;
  readonly wanted: Map<string, { readonly entry: Wanted; readonly seenBy: number | null }>;
  snapshot: Snapshot | null;
  /** By key; null where the table has no such row, absent where it was not read. */
  rows: ReadonlyMap<string, ReadRow | null>;
  /** Whether a key was added to the table since the read began. */
  hasNewKeys: boolean;
}

/** Collects the changes of a hot row; far below the time after which compaction may begin. */
const delayMs = 1_000;
const retryMs = 1_000;
export const roundKeysMax = 500;
/** Further ones are searched for in the topic, once there is room. */
const wantedMax = 50_000;

export class Reselect {
  /** In the order in which they became wanted. */
  readonly #wanted = new Map<string, Wanted>();
  readonly #wantedMax: number;
  /** From where the topic has to be searched for keys. */
  #searchFrom: Checkpoint | null;
  /** The last change that such a search has to find. */
  #searchTo: Position | null = null;
  /** From where the keys of a search are wanted, while the search or any of them is not done. */
  #foundSince: Checkpoint | null = null;
  #isSearching = false;
  #resnapshots = 0;
  #found = 0;
  #round: Round | null = null;
  /** The last streamed transaction that added a key, by relation. */
  readonly #keyAdders = new Map<RelationId, number>();

  /** `unhealed` is what the log says: since then keys are wanted, and have to be searched for. */
  constructor(unhealed: Checkpoint | null, limits: { readonly wantedMax?: number } = {}) {
    // rule: restart-searches-partial-rows
    this.#searchFrom = unhealed;
    this.#wantedMax = limits.wantedMax ?? wantedMax;
  }

  /** Since where rows of the topic are partial; null when none is. */
  get unhealed(): Checkpoint | null {
    const [first] = this.#wanted.values();
    return oldestCheckpoint([this.#foundSince, this.#searchFrom, first?.since ?? null]);
  }

  /** Whether a row that `want` returned is not yet published; not of one wanted again since. */
  isOpen(row: WantedRow): boolean {
    return this.#wanted.get(keyText(row)) === row;
  }

  /**
   * A change was streamed, by the transaction `xid`; `previous` is the checkpoint before its batch.
   */
  row(change: RowChange, xid: number, previous: Checkpoint, position: Position): void {
    const isPartial = change.unchanged.length > 0;
    if (!isPartial && this.#wanted.size === 0) return;
    if (change.op === 'c' || change.was !== null) this.#noteNewKey(change.relation.id, xid);
    const key = { relationId: change.relation.id, identity: change.identity };
    const text = keyText(key);
    if (!isPartial) {
      // The record is whole, or the row is deleted: the topic has what there is.
      this.#forget(text);
      return;
    }
    const known = this.#wanted.get(text);
    if (known !== undefined) {
      known.lastXid = xid;
      // rule: overlay-since-read-began
      if (this.#isBeingRead(text, known)) known.overlay = laidOver(change, known.overlay);
      return;
    }
    if (this.#wanted.size >= this.#wantedMax) {
      // rule: search-beyond-bound
      this.#searchFrom ??= previous;
      this.#searchTo = position;
      return;
    }
    const state = { since: previous, horizon: null, lastXid: xid, dueMs: null, overlay: null };
    this.#wanted.set(text, { ...key, ...state, isFound: false });
  }

  #noteNewKey(relationId: RelationId, xid: number): void {
    this.#keyAdders.set(relationId, xid);
    if (this.#round?.table.shape.id === relationId) this.#round.hasNewKeys = true;
  }

  truncated(relationId: RelationId): void {
    for (const [text, wanted] of this.#wanted) {
      // rule: truncate-ends-reselect
      if (wanted.relationId === relationId) this.#forget(text);
    }
  }

  /**
   * A resnapshot: changes of the table may not have been streamed, so a read has to see all
   * transactions that began before, and one under way does not count.
   */
  resnapshot(relationId: RelationId): void {
    this.#resnapshots += 1;
    for (const wanted of this.#wanted.values()) {
      // rule: resnapshot-outdates-reads
      if (wanted.relationId === relationId) wanted.horizon = 'unknown';
    }
  }

  /**
   * The rows of these keys have to be published as they are, or a tombstone where there is none:
   * the record in the topic may come from a change that was not observed here.
   */
  want(keys: readonly RowKey[], since: Checkpoint, nowMs: number): readonly WantedRow[] {
    return keys.map((key) => this.#want(key, since, nowMs, false));
  }

  /**
   * Begins a search of the topic, if one is needed, there is room for what it finds, and all of it
   * can be read: every partition was read back up to `readTo`. Returns where to search from.
   */
  takeSearch(readTo: EpochLsn): Checkpoint | null {
    if (this.#foundSince !== null || this.#searchFrom === null) return null;
    // rule: search-what-was-read-back
    if (this.#searchTo !== null && !isCovered(this.#searchTo, readTo)) return null;
    if (this.#wanted.size > this.#wantedMax / 2) return null;
    this.#isSearching = true;
    this.#foundSince = this.#searchFrom;
    this.#searchFrom = null;
    this.#searchTo = null;
    return this.#foundSince;
  }

  /** What a search found; `isAll` is false where it continues once these are done. */
  found(keys: readonly RowKey[], isAll: boolean, nowMs: number): void {
    if (this.#foundSince === null) return;
    this.#isSearching = !isAll;
    for (const key of keys) this.#want(key, this.#foundSince, nowMs, true);
    this.#endSearch();
  }

  /** Whether the keys that a search found so far are done, and the search is not. */
  get wantsMoreFound(): boolean {
    return this.#isSearching && this.#found === 0;
  }

  #want(key: RowKey, since: Checkpoint, nowMs: number, isFound: boolean): WantedRow {
    const text = keyText(key);
    const known = this.#wanted.get(text);
    if (known !== undefined) {
      known.horizon ??= 'unknown';
      if (isFound && !known.isFound) this.#found += 1;
      known.isFound ||= isFound;
      return known;
    }
    const state = {
      since,
      horizon: 'unknown',
      lastXid: null,
      dueMs: nowMs,
      overlay: null,
    } as const;
    const wanted: Wanted = { ...key, ...state, isFound };
    this.#wanted.set(text, wanted);
    if (isFound) this.#found += 1;
    return wanted;
  }

  /** There is nothing to publish for them. */
  drop(keys: readonly RowKey[]): void {
    for (const key of keys) this.#forget(keyText(key));
  }

  #forget(text: string): void {
    if (this.#wanted.get(text)?.isFound === true) this.#found -= 1;
    this.#wanted.delete(text);
    this.#endSearch();
  }

  #endSearch(): void {
    if (this.#found === 0 && !this.#isSearching) this.#foundSince = null;
  }

  /** The keys to read now, of one table; else when to ask again, or null: not before a change. */
  next(nowMs: number, keysMax = roundKeysMax): ReadRound | { readonly atMs: number | null } {
    let atMs: number | null = null;
    const due: Wanted[] = [];
    for (const wanted of this.#wanted.values()) {
      wanted.dueMs ??= nowMs + delayMs;
      if (wanted.dueMs > nowMs) {
        atMs = Math.min(atMs ?? wanted.dueMs, wanted.dueMs);
        continue;
      }
      if (due[0] !== undefined && due[0].relationId !== wanted.relationId) continue;
      if (due.push(wanted) === keysMax) break;
    }
    const [first] = due;
    return first === undefined ? { atMs } : { relationId: first.relationId, keys: due };
  }

  /** How many resnapshots began so far. */
  get resnapshots(): number {
    return this.#resnapshots;
  }

  /**
   * `nextXid` was the next transaction id at a time when the keys were wanted, and `resnapshots`
   * had this value.
   */
  setHorizon(keys: readonly RowKey[], nextXid: bigint, resnapshots: number): void {
    if (resnapshots !== this.#resnapshots) return;
    for (const key of keys) {
      const wanted = this.#wanted.get(keyText(key));
      if (wanted?.horizon === 'unknown') wanted.horizon = nextXid;
    }
  }

  /** A read of these keys begins: their changes are laid over what it will have read. */
  begin(id: string, table: RoundTable, keys: readonly RowKey[]): void {
    this.abandon();
    const wanted = new Map<string, { entry: Wanted; seenBy: number | null }>();
    for (const key of keys) {
      const text = keyText(key);
      const entry = this.#wanted.get(text);
      if (entry !== undefined) wanted.set(text, { entry, seenBy: entry.lastXid });
    }
    this.#round = { table, id, wanted, snapshot: null, rows: new Map(), hasNewKeys: false };
  }

  /** The read is done; its watermark is not yet written. Keys that were not read stay due. */
  read(
    snapshot: Snapshot,
    rows: readonly { readonly key: RowKey; readonly row: ReadRow | null }[],
  ) {
    const round = this.#round;
    if (round === null) return;
    round.snapshot = snapshot;
    round.rows = new Map(rows.map(({ key, row }) => [keyText(key), row]));
    for (const [text, { entry }] of round.wanted) {
      if (round.rows.has(text)) continue;
      entry.overlay = null;
      round.wanted.delete(text);
    }
  }

  /** Whether a read waits for its watermark. */
  get isReading(): boolean {
    return this.#round !== null;
  }

  /** They cannot be read before `untilMs`. */
  postpone(keys: readonly RowKey[], untilMs: number): void {
    for (const key of keys) {
      const wanted = this.#wanted.get(keyText(key));
      if (wanted !== undefined) wanted.dueMs = untilMs;
    }
  }

  /** The read failed, or its watermark is reached. */
  abandon(retryAtMs = 0): void {
    for (const { entry } of this.#round?.wanted.values() ?? []) {
      entry.overlay = null;
      entry.dueMs = Math.max(entry.dueMs ?? 0, retryAtMs);
    }
    this.#round = null;
  }

  /** The watermark is reached: what to publish at its position. */
  take(id: string, nowMs: number): RowChange[] {
    const round = this.#round;
    if (round === null || round.id !== id) return [];
    const { shape } = round.table;
    const mayDelete = this.#mayDelete(round);
    const whole: RowChange[] = [];
    const deleted: RowChange[] = [];
    const respelled: RowKey[] = [];
    for (const [text, { entry, seenBy }] of round.wanted) {
      const row = round.rows.get(text);
      // rule: forgotten-key-is-not-published
      if (this.#wanted.get(text) !== entry || row === undefined) continue;
      if (!isSeen(round.snapshot, entry, seenBy)) continue;
      if (row !== null && keyText({ ...entry, identity: row.identity }) !== text) {
        respelled.push(entry);
        continue;
      }
      if (row !== null) whole.push(rowOf(shape, row, entry.overlay));
      else if (entry.horizon !== null && entry.overlay === null && mayDelete) {
        deleted.push(tombstoneOf(shape, entry));
      } else continue;
      this.#forget(text);
    }
    deleted.push(...this.#respelled(round, respelled, whole, nowMs));
    this.abandon(nowMs + retryMs);
    return [...deleted, ...whole];
  }

  /**
   * Postgres takes two spellings for one key, so this spelling has no row of its own. On followers
   * its tombstone would delete the row of the other one, so the two go out together or not at all.
   */
  #respelled(
    round: Round,
    keys: readonly RowKey[],
    whole: readonly RowChange[],
    nowMs: number,
  ): RowChange[] {
    return keys.flatMap((key) => {
      const text = keyText(key);
      const entry = round.wanted.get(text)?.entry;
      const row = round.rows.get(text);
      if (entry === undefined || row == null || entry.horizon === null) return [];
      const actual = { ...key, identity: row.identity };
      const isOut = whole.some(({ identity }) => keyText({ ...key, identity }) === keyText(actual));
      if (!isOut) {
        this.want([actual], entry.since, nowMs);
        return [];
      }
      this.#forget(text);
      return [tombstoneOf(round.table.shape, key)];
    });
  }

  /**
   * A tombstone deletes whatever row has an equal key, and that may be a new one under another
   * spelling, which the read did not see.
   */
  #mayDelete({ table, snapshot, hasNewKeys }: Round): boolean {
    if (table.hasOneSpelling) return true;
    const adder = this.#keyAdders.get(table.shape.id);
    return !hasNewKeys && snapshot !== null && (adder === undefined || sees(snapshot, adder));
  }

  #isBeingRead(text: string, entry: Wanted): boolean {
    return this.#round?.wanted.get(text)?.entry === entry;
  }
}

function isSeen(snapshot: Snapshot | null, entry: Wanted, seenBy: number | null): boolean {
  if (snapshot === null || entry.horizon === 'unknown') return false;
  // rule: read-sees-unobserved-changes
  if (entry.horizon !== null && snapshot.xmin < entry.horizon) return false;
  // rule: read-sees-last-change
  return seenBy === null || sees(snapshot, seenBy);
}
