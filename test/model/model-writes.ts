/**
 * One table of a model Postgres, with what makes reading beside a stream hard: commits are decoded
 * before they are visible, in any order, and a row has one writer until its change is visible.
 * Takes transactions, and choices of the next; gives states, snapshots, and the changes that
 * pgoutput would send. Pure.
 */

import type { RowChange } from '../../src/change/change.ts';
import { type Lsn, toLsn } from '../../src/change/lsn.ts';
import type { ReadRow } from '../../src/leader/backfill/row-overlay.ts';
import type { Snapshot } from '../../src/leader/backfill/snapshot.ts';
import { shapeOf } from '../support/builders.ts';

export interface Row {
  readonly small: string;
  readonly large: string;
}

export type Write =
  | { readonly kind: 'small' | 'large' | 'insert'; readonly key: string; readonly row: Row }
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'move'; readonly key: string; readonly from: string; readonly row: Row }
  | { readonly kind: 'truncate' };

export interface Transaction {
  readonly xid: number;
  readonly commitLsn: Lsn;
  readonly writes: readonly Write[];
  readonly watermark: string | null;
  /** What it writes is not streamed. */
  readonly isSilent: boolean;
  /** It requests a resnapshot of the table. */
  readonly resnapshots: boolean;
  isSeen: boolean;
}

export const keys = ['k0', 'k1', 'k2'];
export const firstXid = 2 ** 32 - 6;
export const table = shapeOf('public.t', 'id text', 'small text', 'large text');
export const relationId = table.id;

const commitBytes = 10n;

/** Where the next transaction commits. */
export function endOf(commitLsn: Lsn): Lsn {
  return toLsn(commitLsn + commitBytes);
}

/** In the order of their commit records. */
export class ModelTransactions {
  readonly all: Transaction[] = [];
  nextLsn: Lsn;
  #nextXid = firstXid;

  constructor(firstLsn: Lsn) {
    this.nextLsn = firstLsn;
  }

  /** A text that only the next transaction writes. */
  get nextText(): string {
    return `${this.#nextXid}`;
  }

  commit(what: Partial<Transaction>): Transaction {
    const transaction: Transaction = {
      xid: this.#nextXid % 2 ** 32,
      commitLsn: this.nextLsn,
      ...{ writes: [], watermark: null, isSilent: false, resnapshots: false, isSeen: false },
      ...what,
    };
    this.#nextXid += 1;
    this.nextLsn = endOf(this.nextLsn);
    this.all.push(transaction);
    return transaction;
  }

  /** Any one of the commits that are not yet visible becomes visible. */
  see(how: number): void {
    const unseen = this.all.filter(({ isSeen }) => !isSeen);
    const one = unseen[how % Math.max(1, unseen.length)];
    if (one !== undefined) one.isSeen = true;
  }

  seeAll(): void {
    for (const transaction of this.all) transaction.isSeen = true;
  }
}

/** What a transaction may write next: rows without an open writer; null for nothing. */
export function writesOf(
  how: number,
  wal: readonly Transaction[],
  before: ReadonlyMap<string, Row>,
  text: string,
): readonly Write[] | null {
  const now = stateOf(wal, before);
  const busy = new Set(
    wal.filter(({ isSeen }) => !isSeen).flatMap(({ writes }) => writes.flatMap(keysOf)),
  );
  const isFree = (key: string): boolean => !busy.has(key) && !busy.has('*');
  const free = keys.filter(isFree);
  const key = free[how % Math.max(1, free.length)];
  if (key === undefined) return null;
  if (how % 29 === 0 && busy.size === 0) return [{ kind: 'truncate' }];
  const row = now.get(key);
  if (row === undefined) return [{ kind: 'insert', key, row: { small: text, large: text } }];
  const small: Write = { kind: 'small', key, row: { ...row, small: text } };
  const to = free.find((other) => !now.has(other));
  const move: Write | null =
    to === undefined ? null : { kind: 'move', key: to, from: key, row: { ...row, small: text } };
  const ways: readonly (readonly Write[])[] = [
    [small],
    [small],
    [small],
    [{ kind: 'large', key, row: { small: text, large: text } }],
    [{ kind: 'delete', key }],
    move === null ? [small] : [move],
    move === null ? [small] : [small, move],
    [
      { kind: 'delete', key },
      { kind: 'insert', key, row: { small: text, large: text } },
    ],
  ];
  return ways[Math.trunc(how / 7) % ways.length] ?? [];
}

function keysOf(write: Write): string[] {
  if (write.kind === 'truncate') return ['*'];
  return write.kind === 'move' ? [write.key, write.from] : [write.key];
}

/** `before` are rows that were there before the first transaction. */
export function stateOf(
  transactions: readonly Transaction[],
  before: ReadonlyMap<string, Row> = new Map(),
): Map<string, Row> {
  const state = new Map(before);
  for (const write of transactions.flatMap(({ writes }) => writes)) {
    if (write.kind === 'truncate') state.clear();
    else if (write.kind === 'delete') state.delete(write.key);
    else state.set(write.key, write.row);
    if (write.kind === 'move') state.delete(write.from);
  }
  return state;
}

export function readOf(state: ReadonlyMap<string, Row>, key: string): ReadRow | null {
  const row = state.get(key);
  return row === undefined ? null : { identity: [key], values: [key, row.small, row.large] };
}

/** As Postgres makes it: it ends behind the newest that has ended, and names who runs below. */
export function snapshotOf(wal: readonly Transaction[]): Snapshot {
  const ended = wal.filter(({ isSeen }) => isSeen).map(({ xid }) => wide(xid));
  const xmax = ended.reduce((a, b) => (b > a ? b : a), BigInt(firstXid) - 1n) + 1n;
  const unseen = wal.filter(({ isSeen }) => !isSeen).map(({ xid }) => wide(xid));
  const running = unseen.filter((xid) => xid < xmax);
  const xmin = running.reduce((a, b) => (b < a ? b : a), xmax);
  return { xmin, xmax, running: new Set(running) };
}

export function wide(xid: number): bigint {
  return xid >= firstXid ? BigInt(xid) : BigInt(xid) + (1n << 32n);
}

export function changesOf(write: Exclude<Write, { kind: 'truncate' }>): RowChange[] {
  const head = { kind: 'row', relation: table, unchanged: [], was: null } as const;
  const deleted = (key: string): RowChange => {
    return { ...head, op: 'd', identity: [key], values: null };
  };
  if (write.kind === 'delete') return [deleted(write.key)];
  const { key, row } = write;
  const identity = [key];
  if (write.kind === 'insert' || write.kind === 'large') {
    const op = write.kind === 'insert' ? 'c' : 'u';
    return [{ ...head, op, identity, values: [key, row.small, row.large] }];
  }
  const values = [key, row.small, null];
  const partial = { ...head, op: 'u', identity, values, unchanged: ['large'] } as const;
  if (write.kind !== 'move') return [partial];
  return [deleted(write.from), { ...partial, was: [write.from] }];
}
