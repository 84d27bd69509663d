/**
 * Leaders of a log that is compacted, one after the other. Flows in: choices; flows out: batches in
 * the log, torn ones, epoch begins, rows that complete partial or voided ones, and the true
 * rows as of every checkpoint. A row has a value that changes and a large one that updates leave
 * out; a key has two spellings that are equal in Postgres. Some changes reach no record; the table
 * is under resnapshot then, over several batches.
 */
import type { Checkpoint, Point, UnfinishedTable } from '../../src/change/change.ts';
import { type EpochLsn, formatEpochLsn, pointPosition } from '../../src/change/position.ts';
import type { RowRecord } from '../../src/topic/records/stream-record.ts';
import { at, beginOf, lsn, place, pointOf, shapeOf } from '../support/builders.ts';
import type { CompactingLog } from './compacting-log.ts';

export interface ModelRow {
  readonly key: string;
  readonly small: string;
  readonly large: string;
}

/** By table and key in lower case. */
export type ModelRows = ReadonlyMap<string, ModelRow>;

export const tables: readonly string[] = ['public.t', 'public.u'];
const keys = ['a', 'b', 'c'];

export function rowId(table: string, key: string): string {
  return `${table} ${key.toLowerCase()}`;
}

export function showModelRows(rows: ModelRows, table: string): string {
  const own = [...rows].filter(([id]) => id.startsWith(`${table} `));
  const shown = own.map(([id, { key, small, large }]) => `${id} ${key}=${small}/${large}`);
  return shown.sort().join(', ');
}

type RowContent = Pick<RowRecord, 'unchanged' | 'was'> & { readonly value: string | null };

export class BootstrapLeader {
  readonly #log: CompactingLog;
  readonly #truth = new Map<string, ReadonlyMap<string, string>>();
  #rows = new Map<string, ModelRow>();
  #epoch = 1;
  #end = 10;
  #checkpoint: Checkpoint;
  #counts: number[];
  #ordinal = 0;
  #written = 0;
  /** By the bytes of their keys. */
  #unhealed = new Map<string, { readonly table: string; readonly key: string }>();
  #unhealedSince: Checkpoint | null = null;
  /** Of a torn batch that no epoch has voided yet. */
  #torn = false;
  /** The keys left of a table under resnapshot, and whether a point has named it. */
  readonly #reading = new Map<string, { left: string[]; isNamed: boolean }>();
  /** Tables with writes that were not published. */
  readonly #unpublished = new Set<string>();

  constructor(log: CompactingLog) {
    this.#log = log;
    this.#counts = this.#all().map(() => 0);
    this.#checkpoint = { at: at(1, 10), nextOffsets: [] };
    this.#beginEpoch(null);
  }

  /**
   * The rows at a checkpoint, of each table whose writes were published; undefined where no
   * checkpoint is.
   */
  truthAt(where: EpochLsn): ReadonlyMap<string, string> | undefined {
    return this.#truth.get(formatEpochLsn(where));
  }

  get hasUnpublished(): boolean {
    return this.#unpublished.size > 0;
  }

  step(what: number, how: number): void {
    if (this.#torn) {
      if (what % 3 === 0) this.failover();
      return;
    }
    if (what % 8 === 0) this.#tear(how);
    else if (what % 8 === 1) this.failover();
    else if (what % 8 === 2) this.reselect();
    else if (what % 16 === 3) this.#disturb(how);
    else this.#batch(how);
  }

  /** What a leader does soon: it voids a torn batch, and publishes partial rows whole. */
  settle(): void {
    if (this.#torn) this.failover();
    for (const table of this.#unpublished) this.#resnapshot(table);
    while (this.#reading.size > 0) this.reselect();
    this.reselect();
  }

  /** Something that only a reading makes up for, or one without a need. */
  #disturb(how: number): void {
    const rest = Math.trunc(how / 2);
    const table = tables[rest % 2] ?? '';
    const key = keys[Math.trunc(rest / 2) % 3] ?? '';
    if (how % 2 === 0) {
      this.#unpublished.add(table);
      this.#written += 1;
      const text = String(this.#written);
      const spelled = rest % 5 === 0 ? key.toUpperCase() : key;
      if (rest % 3 > 0) this.#rows.delete(rowId(table, key));
      else this.#rows.set(rowId(table, key), { key: spelled, small: text, large: text });
      return;
    }
    this.#resnapshot(table);
    this.#point();
  }

  #resnapshot(table: string): void {
    this.#ordinal = 0;
    const position = place(this.#epoch, this.#end, this.#ordinal);
    this.#everywhere((placed) => ({ kind: 'reread', ...placed, position, relationId: table }));
    this.#reading.set(table, { left: [...keys], isNamed: false });
    this.#unpublished.delete(table);
    this.#end += 1;
  }

  /** The next row of each table under resnapshot, as it is now. */
  #readOn(): void {
    this.#ordinal = 0;
    for (const [table, { left }] of this.#reading) {
      const row = this.#rows.get(rowId(table, left.shift() ?? ''));
      if (row !== undefined) this.#whole(table, row);
    }
    this.#end += 1;
  }

  #unfinished(): UnfinishedTable[] {
    for (const [table, reading] of this.#reading) {
      const isOver = reading.isNamed && reading.left.length === 0 && this.#unhealedSince === null;
      reading.isNamed = true;
      if (isOver) this.#reading.delete(table);
    }
    const unread = { after: null, rows: 0, estimate: null, since: null };
    return [...this.#reading.keys()].map((relation) => ({ relation, ...unread }));
  }

  #all(): number[] {
    return Array.from({ length: this.#log.partitions }, (_, partition) => partition);
  }

  #batch(how: number): void {
    for (let left = how; ; left = Math.trunc(left / 64)) {
      this.#transaction(left % 64);
      if (left < 64) break;
    }
    if (how % 3 > 0) this.#readOn();
    this.#point();
  }

  #transaction(how: number): void {
    this.#ordinal = 0;
    const table = tables[how % 2] ?? '';
    const key = keys[Math.trunc(how / 2) % 3] ?? '';
    const upper = Math.trunc(how / 6) % 2 === 1;
    const spelled = upper ? key.toUpperCase() : key;
    const old = this.#rows.get(rowId(table, key));
    // After a lost change no other is published before the resnapshot of the table.
    if (this.#unpublished.has(table)) return;
    const kind = Math.trunc(how / 12);
    if (kind === 0) this.#truncate(table);
    else if (kind === 1 && old !== undefined) this.#delete(table, old);
    else if (kind === 2) this.#relation(table);
    else this.#write(table, spelled, old, kind >= 4);
    this.#end += 1;
  }

  #write(table: string, key: string, old: ModelRow | undefined, partial: boolean): void {
    this.#written += 1;
    const small = String(this.#written);
    const moves = old !== undefined && old.key !== key;
    const id = rowId(table, key);
    const isPartial = partial && old !== undefined;
    const large = isPartial ? old.large : small;
    if (moves) this.#put(table, old.key, { value: null, unchanged: null, was: null });
    const was = moves ? [old.key] : null;
    const unchanged = isPartial ? ['large'] : null;
    this.#put(table, key, { value: `${small}/${isPartial ? '' : large}`, unchanged, was });
    if (isPartial) {
      this.#unhealedSince ??= this.#checkpoint;
      this.#unhealed.set(`${table} ${key}`, { table, key });
    }
    this.#rows.set(id, { key, small, large });
  }

  #delete(table: string, { key }: ModelRow): void {
    this.#put(table, key, { value: null, unchanged: null, was: null });
    this.#rows.delete(rowId(table, key));
  }

  #truncate(table: string): void {
    const position = place(this.#epoch, this.#end, this.#ordinal);
    this.#everywhere((placed) => ({ kind: 'truncate', ...placed, position, relationId: table }));
    for (const id of [...this.#rows.keys()]) if (id.startsWith(`${table} `)) this.#rows.delete(id);
  }

  #relation(table: string): void {
    const relation = shapeOf(table, 'id text', 'small text', 'large text');
    const position = place(this.#epoch, this.#end, this.#ordinal);
    this.#everywhere((placed) => ({ kind: 'relation', ...placed, position, relation }));
  }

  #put(
    table: string,
    key: string,
    content: RowContent,
    only: readonly number[] = this.#all(),
  ): void {
    const partition = key.charCodeAt(0) % this.#log.partitions;
    const position = place(this.#epoch, this.#end, this.#ordinal);
    this.#ordinal += 1;
    if (!only.includes(partition)) return;
    this.#log.append({
      kind: 'row',
      ...this.#placed(partition),
      position,
      op: content.value === null ? 'd' : 'u',
      relationId: table,
      identity: [key],
      key: Buffer.from(`${table} ${key}`),
      ...content,
      value: content.value === null ? null : Buffer.from(content.value),
    });
    this.#counts[partition] = (this.#counts[partition] ?? 0) + 1;
  }

  #everywhere(
    record: (
      placed: ReturnType<BootstrapLeader['placedFor']>,
    ) => Parameters<CompactingLog['append']>[0],
    only = this.#all(),
  ): void {
    this.#ordinal += 1;
    for (const partition of only) {
      this.#log.append(record(this.#placed(partition)));
      this.#counts[partition] = (this.#counts[partition] ?? 0) + 1;
    }
  }

  #placed(partition: number) {
    return this.placedFor(partition);
  }

  placedFor(partition: number) {
    const offset = this.#log.next(partition);
    return { partition, offset, timestampMs: this.#log.nowMs, commitTimeMicros: 0n };
  }

  #point(changes: Partial<Point> = {}): void {
    const upto = this.#end;
    const point = pointOf({
      epoch: this.#epoch,
      upto: lsn(upto),
      previous: this.#checkpoint,
      counts: [...this.#counts],
      unhealed: this.#unhealedSince,
      unfinished: this.#unfinished(),
      ...changes,
    });
    const position = pointPosition(at(this.#epoch, upto));
    for (const p of this.#all()) {
      this.#log.append({ kind: 'point', ...this.#placed(p), position, point });
    }
    this.#checkpointAt(at(this.#epoch, upto));
  }

  #checkpointAt(where: EpochLsn): void {
    this.#checkpoint = { at: where, nextOffsets: this.#all().map((p) => this.#log.next(p)) };
    for (const partition of this.#all()) this.#log.checkpoint(partition);
    this.#counts = this.#all().map(() => 0);
    const known = tables.filter((table) => !this.#unpublished.has(table));
    const truth = new Map(known.map((table) => [table, showModelRows(this.#rows, table)]));
    this.#truth.set(formatEpochLsn(where), truth);
  }

  #beginEpoch(base: EpochLsn | null): void {
    const startLsn = lsn(this.#end);
    const unfinished = this.#unfinished();
    const begin = beginOf({ epoch: this.#epoch, startLsn, base, unfinished });
    const position = pointPosition(at(this.#epoch, this.#end));
    for (const p of this.#all()) {
      this.#log.append({ kind: 'epoch', ...this.#placed(p), position, begin });
    }
    this.#checkpointAt(at(this.#epoch, this.#end));
  }

  /** Half a batch reaches the log: rows, or a truncate or a resnapshot, in some partitions. */
  #tear(how: number): void {
    const before = new Map(this.#rows);
    const { partitions } = this.#log;
    const only = this.#all().filter((p) => partitions === 1 || ((how >> p) & 1) === 1);
    const table = tables[how % 2] ?? '';
    this.#ordinal = 0;
    const kind = Math.trunc(how / 8) % 4 === 0 ? 'truncate' : 'reread';
    if (Math.trunc(how / 8) % 4 < 2) {
      const position = place(this.#epoch, this.#end, 0);
      this.#everywhere((placed) => {
        return { kind, ...placed, position, relationId: table };
      }, only);
      this.#end += 1;
    }
    this.#ordinal = 0;
    const key = keys[Math.trunc(how / 2) % 3] ?? '';
    const spelled = how % 5 === 0 ? key.toUpperCase() : key;
    this.#written += 1;
    const value = how % 3 === 0 ? null : `${this.#written}/${this.#written}`;
    this.#put(table, spelled, { value, unchanged: null, was: null }, only);
    this.#unhealed.set(`${table} ${spelled}`, { table, key: spelled });
    this.#end += 1;
    for (const partition of only) this.#log.checkpoint(partition);
    this.#rows = before;
    this.#torn = true;
  }

  /** The next leader begins at the checkpoint that all partitions hold. */
  failover(): void {
    const base = this.#checkpoint;
    this.#epoch += 1;
    this.#end += 1;
    // What a torn batch put over valid records has to be published once more.
    if (this.#unhealed.size > 0) this.#unhealedSince ??= base;
    this.#torn = false;
    this.#beginEpoch(base.at);
  }

  /** Publishes the whole row, or the tombstone, of every partial or voided key. */
  reselect(): void {
    this.#ordinal = 0;
    for (const { table, key } of this.#unhealed.values()) {
      const row = this.#rows.get(rowId(table, key));
      if (row?.key === key) continue;
      // An equal key may have a row: its record comes after the tombstone.
      this.#put(table, key, { value: null, unchanged: null, was: null });
      if (row !== undefined) this.#whole(table, row);
    }
    for (const { table, key } of this.#unhealed.values()) {
      const row = this.#rows.get(rowId(table, key));
      if (row?.key === key) this.#whole(table, row);
    }
    this.#unhealed = new Map();
    this.#unhealedSince = null;
    this.#end += 1;
    this.#readOn();
    this.#point();
  }

  #whole(table: string, { key, small, large }: ModelRow): void {
    this.#put(table, key, { value: `${small}/${large}`, unchanged: null, was: null });
  }
}
