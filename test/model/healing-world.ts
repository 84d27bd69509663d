/**
 * Healing between a model Postgres and a model topic. Flows in: choices; flows out: a topic, and
 * what was wrong on the way. Postgres here has what makes reading beside a stream hard: commits are
 * decoded before they are seen, in any order; a row has one writer until its change is seen; reads
 * take their snapshot, and their watermark, at any later time.
 */
import type { Snapshot } from '../../src/catalog/snapshot.ts';
import type { Mark, RowChange } from '../../src/change/change.ts';
import { type Lsn, toLsn } from '../../src/change/lsn.ts';
import type { Healing } from '../../src/leader/healing.ts';
import type { ReadRow, RowKey } from '../../src/leader/row-overlay.ts';
import type { FoundKeys } from '../../src/leader/row-search.ts';
import type { RowRecord } from '../../src/topic/stream-record.ts';
import { shapeOf } from '../support/builders.ts';

/** What a wrongly built leader does; the classes may be those of a module with a rule left out. */
export interface HealingRules {
  readonly Heal: typeof Healing;
  readonly Found: typeof FoundKeys;
}

export type HealingChoice = readonly [what: number, how: number];

interface Row {
  readonly small: string;
  readonly large: string;
}

type Write =
  | { readonly kind: 'small' | 'large' | 'insert'; readonly key: string; readonly row: Row }
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'move'; readonly key: string; readonly from: string; readonly row: Row }
  | { readonly kind: 'truncate' };

interface Transaction {
  readonly xid: number;
  readonly commitLsn: Lsn;
  readonly writes: readonly Write[];
  readonly watermark: string | null;
  isSeen: boolean;
}

interface Read {
  readonly id: string;
  readonly keys: readonly RowKey[];
  hasRead: boolean;
}

const keys = ['k0', 'k1', 'k2'];
const firstXid = 2 ** 32 - 6;
const table = shapeOf('public.t', 'id text', 'small text', 'large text');
const relationId = table.id;

export class HealingWorld {
  readonly #rules: HealingRules;
  readonly #wantedMax: number;
  /** In the order of their commit records. */
  readonly #wal: Transaction[] = [];
  readonly #topic: RowRecord[] = [];
  #streamed = 0;
  #healing: Healing;
  #read: Read | null = null;
  #reads = 0;
  #nextXid = firstXid;
  #nextLsn = 100n;
  #nowMs = 0;
  /** Where what can be read of the topic ends. */
  #readTo = toLsn(100n);

  /** `wantedMax` is how many keys a leader remembers. */
  constructor(rules: HealingRules, wantedMax: number) {
    this.#rules = rules;
    this.#wantedMax = wantedMax;
    this.#healing = new rules.Heal(null, { wantedMax: this.#wantedMax });
  }

  step([what, how]: HealingChoice): void {
    this.#nowMs += 400;
    const moves = [
      () => this.#write(how),
      () => this.#write(how),
      () => this.#see(how),
      () => this.#stream(),
      () => this.#stream(),
      () => this.#search(),
      () => this.#begin(),
      () => this.#takeRows(),
      () => this.#commitRead(),
      () => this.#publish(),
      () => this.#publish(),
      () => (how % 8 === 0 ? this.#restart() : this.#stream()),
    ];
    moves[what % moves.length]?.();
    this.#checkTopic();
  }

  finish(): void {
    for (let tries = 0; tries < 50; tries += 1) {
      this.#nowMs += 1_000;
      for (const transaction of this.#wal) transaction.isSeen = true;
      while (this.#streamed < this.#wal.length) this.#stream();
      this.#publish();
      if (this.#healing.unhealed === null) {
        this.#checkTopic();
        return;
      }
      this.#search();
      this.#begin();
      this.#takeRows();
      this.#commitRead();
    }
    throw new Error('some key is never healed');
  }

  /** A transaction writes rows that nobody else has in hand, and leaves its commit record. */
  #write(how: number): void {
    const now = stateOf(this.#wal);
    const busy = new Set(
      this.#wal.filter(({ isSeen }) => !isSeen).flatMap(({ writes }) => writes.flatMap(keysOf)),
    );
    const isFree = (key: string): boolean => !busy.has(key) && !busy.has('*');
    const free = keys.filter(isFree);
    const key = free[how % Math.max(1, free.length)];
    if (key === undefined) return;
    if (how % 29 === 0 && busy.size === 0) {
      this.#commit([{ kind: 'truncate' }], null);
      return;
    }
    const row = now.get(key);
    const text = `${this.#nextXid}`;
    if (row === undefined) {
      this.#commit([{ kind: 'insert', key, row: { small: text, large: text } }], null);
      return;
    }
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
    this.#commit(ways[Math.trunc(how / 7) % ways.length] ?? [], null);
  }

  #commit(writes: readonly Write[], watermark: string | null): Transaction {
    const transaction: Transaction = {
      xid: this.#nextXid % 2 ** 32,
      commitLsn: toLsn(this.#nextLsn),
      ...{ writes, watermark, isSeen: false },
    };
    this.#nextXid += 1;
    this.#nextLsn += 10n;
    this.#wal.push(transaction);
    return transaction;
  }

  /** What was committed becomes seen, whichever of those that wait. */
  #see(how: number): void {
    const unseen = this.#wal.filter(({ isSeen }) => !isSeen);
    const one = unseen[how % Math.max(1, unseen.length)];
    if (one !== undefined) one.isSeen = true;
  }

  #stream(): void {
    const transaction = this.#wal[this.#streamed];
    if (transaction === undefined) return;
    const before: Mark = {
      at: { epoch: 1, lsn: transaction.commitLsn },
      nextOffsets: [BigInt(this.#topic.length)],
    };
    const states = stateOf(this.#wal.slice(0, this.#streamed));
    for (const write of transaction.writes) {
      if (write.kind === 'truncate') {
        this.#healing.truncated(relationId);
        this.#topic.length = 0;
        continue;
      }
      for (const change of changesOf(write)) {
        const position = { epoch: 1, commitLsn: transaction.commitLsn, ordinal: 0 };
        this.#healing.row(change, transaction.xid, before, position);
        this.#append(change, transaction.commitLsn);
      }
    }
    this.#streamed += 1;
    if (transaction.watermark === null) return;
    for (const change of this.#healing.take(transaction.watermark, this.#nowMs)) {
      const [key = ''] = change.identity;
      const truth = states.get(key);
      const wanted = truth === undefined ? null : [key, truth.small, truth.large];
      if (`${change.values}` !== `${wanted}`) {
        throw new Error(`${key} is published as ${change.values} and is ${wanted}`);
      }
      this.#append(change, transaction.commitLsn);
    }
    this.#read = null;
  }

  #append(change: RowChange, commitLsn: Lsn): void {
    const { op, identity, values, unchanged, was } = change;
    this.#topic.push({
      ...{ kind: 'row', op, relationId, identity, was },
      ...{ partition: 0, offset: BigInt(this.#topic.length), timestampMs: 0 },
      ...{ position: { epoch: 1, commitLsn, ordinal: this.#topic.length }, commitTimeMicros: 0n },
      key: Buffer.from(identity.join()),
      value: values === null ? null : Buffer.from(JSON.stringify(values)),
      unchanged: unchanged.length === 0 ? null : unchanged,
    });
  }

  /** Kafka commits what was streamed: now it can be read. */
  #publish(): void {
    this.#readTo = this.#wal[this.#streamed]?.commitLsn ?? toLsn(this.#nextLsn);
  }

  #search(): void {
    const from = this.#healing.nextSearch({ epoch: 1, lsn: this.#readTo });
    if (from === null) return;
    const found = new this.#rules.Found([{ epoch: 1, base: null }]);
    for (const record of this.#topic) {
      if (record.position.commitLsn < this.#readTo) found.take(record);
    }
    this.#healing.found(found.keys, true, this.#nowMs);
  }

  #begin(): void {
    if (this.#read !== null) return;
    const round = this.#healing.next(this.#nowMs);
    if ('atMs' in round) return;
    if (round.keys.some(({ horizon }) => horizon === 'unknown')) {
      const { xid } = this.#commit([], null);
      this.#healing.setHorizon(round.keys, wide(xid));
    }
    this.#reads += 1;
    this.#read = { id: `${this.#reads}`, keys: [...round.keys], hasRead: false };
    const shape = { shape: table, hasOneSpelling: true };
    this.#healing.begin(this.#read.id, shape, round.keys);
  }

  #takeRows(): void {
    const read = this.#read;
    if (read === null || read.hasRead) return;
    const seen = stateOf(this.#wal.filter(({ isSeen }) => isSeen));
    const rows = read.keys.map((key) => ({ key, row: readOf(seen, key.identity[0] ?? '') }));
    this.#snapshot = snapshotOf(this.#wal);
    this.#rows = rows;
    read.hasRead = true;
  }

  #snapshot: Snapshot = { xmin: 0n, xmax: 0n, running: new Set() };
  #rows: readonly { readonly key: RowKey; readonly row: ReadRow | null }[] = [];

  #commitRead(): void {
    const read = this.#read;
    if (read === null || !read.hasRead) return;
    this.#healing.read(this.#snapshot, this.#rows);
    this.#commit([], read.id);
    this.#read = { ...read, hasRead: false };
  }

  /** All that was streamed is in the log, which says since when keys lack values. */
  #restart(): void {
    this.#publish();
    this.#healing = new this.#rules.Heal(this.#healing.unhealed, { wantedMax: this.#wantedMax });
    this.#read = null;
  }

  /** Where nothing is said to be unhealed, the newest record of each key is its row. */
  #checkTopic(): void {
    if (this.#healing.unhealed !== null) return;
    const truth = stateOf(this.#wal.slice(0, this.#streamed));
    for (const key of keys) {
      const newest = this.#topic.findLast(({ identity }) => identity[0] === key);
      const row = truth.get(key);
      const wanted = row === undefined ? null : [key, row.small, row.large];
      const held = newest?.value == null ? null : JSON.parse(newest.value.toString());
      if (`${held}` !== `${wanted}`) throw new Error(`the topic holds ${held}, not ${wanted}`);
    }
  }
}

function keysOf(write: Write): string[] {
  if (write.kind === 'truncate') return ['*'];
  return write.kind === 'move' ? [write.key, write.from] : [write.key];
}

function stateOf(transactions: readonly Transaction[]): Map<string, Row> {
  const state = new Map<string, Row>();
  for (const write of transactions.flatMap(({ writes }) => writes)) {
    if (write.kind === 'truncate') state.clear();
    else if (write.kind === 'delete') state.delete(write.key);
    else state.set(write.key, write.row);
    if (write.kind === 'move') state.delete(write.from);
  }
  return state;
}

function readOf(state: ReadonlyMap<string, Row>, key: string): ReadRow | null {
  const row = state.get(key);
  return row === undefined ? null : { identity: [key], values: [key, row.small, row.large] };
}

/** As Postgres makes it: it ends behind the newest that has ended, and names who runs below. */
function snapshotOf(wal: readonly Transaction[]): Snapshot {
  const ended = wal.filter(({ isSeen }) => isSeen).map(({ xid }) => wide(xid));
  const xmax = ended.reduce((a, b) => (b > a ? b : a), BigInt(firstXid) - 1n) + 1n;
  const unseen = wal.filter(({ isSeen }) => !isSeen).map(({ xid }) => wide(xid));
  const running = unseen.filter((xid) => xid < xmax);
  const xmin = running.reduce((a, b) => (b < a ? b : a), xmax);
  return { xmin, xmax, running: new Set(running) };
}

function wide(xid: number): bigint {
  return xid >= firstXid ? BigInt(xid) : BigInt(xid) + (1n << 32n);
}

function changesOf(write: Exclude<Write, { kind: 'truncate' }>): RowChange[] {
  const head = { kind: 'row', relation: table, unchanged: [], was: null } as const;
  const gone = (key: string): RowChange => {
    return { ...head, op: 'd', identity: [key], values: null };
  };
  if (write.kind === 'delete') return [gone(write.key)];
  const { key, row } = write;
  const identity = [key];
  if (write.kind === 'insert' || write.kind === 'large') {
    const op = write.kind === 'insert' ? 'c' : 'u';
    return [{ ...head, op, identity, values: [key, row.small, row.large] }];
  }
  const values = [key, row.small, null];
  const partial = { ...head, op: 'u', identity, values, unchanged: ['large'] } as const;
  if (write.kind !== 'move') return [partial];
  return [gone(write.from), { ...partial, was: [write.from] }];
}
