/**
 * Reads of rows beside the stream: healing, and the rows that were there before it. Flows in:
 * choices; flows out: a topic, a follower that applies it point by point, and what was wrong on the
 * way. Reads take their snapshot, and their watermark, at any later time; what the leader remembers
 * is bounded, and a restart forgets all of it but what the last point says.
 */
import type { Snapshot } from '../../src/catalog/snapshot.ts';
import type { Mark, RowChange, UnfinishedTable } from '../../src/change/change.ts';
import { type Lsn, toLsn } from '../../src/change/lsn.ts';
import type { ChunkMerge, NextChunk } from '../../src/leader/chunk-merge.ts';
import type { Healing } from '../../src/leader/healing.ts';
import type { ReadRow, RowKey } from '../../src/leader/row-overlay.ts';
import type { FoundKeys } from '../../src/leader/row-search.ts';
import type { RowRecord } from '../../src/topic/stream-record.ts';
import { ModelFollower } from './model-follower.ts';
import {
  changesOf,
  firstXid,
  keys,
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

/** What a wrongly built leader does; the classes may be those of a module with a rule left out. */
export interface HealingRules {
  readonly Heal: typeof Healing;
  readonly Found: typeof FoundKeys;
  readonly Chunks: typeof ChunkMerge;
  /** What a restart makes of what the last point says. */
  readonly unfinishedAgain: (unfinished: readonly UnfinishedTable[]) => readonly UnfinishedTable[];
}

export type HealingChoice = readonly [what: number, how: number];

interface Read {
  readonly id: string;
  readonly keys: readonly RowKey[];
  /** One read, and then one watermark, which is waited for. */
  state: 'begun' | 'read' | 'committed';
}

interface Chunk {
  readonly next: NextChunk;
  readonly snapshot: Snapshot;
  readonly rows: readonly ReadRow[];
  readonly isLast: boolean;
}

export interface HealingBounds {
  /** How many keys a leader remembers. */
  readonly wantedMax: number;
  readonly changedMax: number;
  /** How many rows were there before the stream. */
  readonly rowsBefore: number;
}

const atFirst = { relation: relationId, after: null, rows: 0, estimate: null, since: null };

export class HealingWorld {
  readonly #rules: HealingRules;
  readonly #bounds: HealingBounds;
  readonly #before: ReadonlyMap<string, Row>;
  /** In the order of their commit records. */
  readonly #wal: Transaction[] = [];
  readonly #topic: RowRecord[] = [];
  readonly #follower = new ModelFollower();
  #streamed = 0;
  #healing: Healing;
  #chunks: ChunkMerge;
  #read: Read | null = null;
  #chunk: Chunk | null = null;
  #reads = 0;
  #nextXid = firstXid;
  #nextLsn = 100n;
  #nowMs = 0;
  /** Where what can be read of the topic ends, and what the point there says. */
  #readTo = toLsn(100n);
  #unfinished: readonly UnfinishedTable[];

  constructor(rules: HealingRules, bounds: HealingBounds) {
    this.#rules = rules;
    this.#bounds = bounds;
    const old = keys.slice(0, bounds.rowsBefore).map((key): [string, Row] => {
      return [key, { small: 'old', large: 'old' }];
    });
    this.#before = new Map(old);
    this.#unfinished = old.length === 0 ? [] : [atFirst];
    this.#follower.begin(this.#unfinished.length > 0);
    this.#healing = new rules.Heal(null, bounds);
    this.#chunks = new rules.Chunks(this.#unfinished, bounds);
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
    if (this.#before.size > 0)
      moves.push(
        () => this.#readChunk(how),
        () => this.#commitChunk(),
      );
    moves[what % moves.length]?.();
    this.#checkTopic();
  }

  finish(): void {
    for (let tries = 0; tries < 50; tries += 1) {
      this.#nowMs += 1_000;
      for (const transaction of this.#wal) transaction.isSeen = true;
      while (this.#streamed < this.#wal.length) this.#stream();
      this.#publish();
      if (this.#isAllSaid()) {
        this.#checkTopic();
        this.#follower.check(this.#truth());
        return;
      }
      this.#search();
      this.#begin();
      this.#takeRows();
      this.#commitRead();
      this.#readChunk(tries);
      this.#commitChunk();
    }
    throw new Error('some key is never healed');
  }

  #isAllSaid(): boolean {
    const { unhealed } = this.#healing;
    return unhealed === null && this.#chunks.unfinished(unhealed).length === 0;
  }

  #truth(): Map<string, Row> {
    return stateOf(this.#wal.slice(0, this.#streamed), this.#before);
  }

  /** A transaction writes, and leaves its commit record. */
  #write(how: number): void {
    const writes = writesOf(how, this.#wal, this.#before, `${this.#nextXid}`);
    // A chunk that is open has a lock that TRUNCATE waits for.
    if (writes === null || (this.#chunk !== null && isTruncate(writes))) return;
    this.#commit(writes, null);
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
    const states = this.#truth();
    for (const write of transaction.writes) {
      if (write.kind === 'truncate') {
        this.#healing.truncated(relationId);
        this.#topic.length = 0;
        this.#follower.streamed('truncate');
        continue;
      }
      for (const change of changesOf(write)) {
        const position = { epoch: 1, commitLsn: transaction.commitLsn, ordinal: 0 };
        this.#healing.row(change, transaction.xid, before, position);
        this.#chunks.row(change, transaction.xid, before);
        this.#append(change, transaction.commitLsn);
      }
    }
    this.#streamed += 1;
    if (transaction.watermark === null) return;
    const healed = this.#healing.take(transaction.watermark, this.#nowMs);
    const chunk = this.#chunks.take(transaction.watermark, before, this.#nowMs);
    for (const change of [...healed, ...(chunk?.rows ?? [])]) {
      const [key = ''] = change.identity;
      const truth = states.get(key);
      const wanted = truth === undefined ? null : [key, truth.small, truth.large];
      if (`${change.values}` !== `${wanted}`) {
        throw new Error(`${key} is published as ${change.values} and is ${wanted}`);
      }
      const position = { epoch: 1, commitLsn: transaction.commitLsn, ordinal: 0 };
      this.#healing.row(change, transaction.xid, before, position);
      this.#chunks.row(change, transaction.xid, before);
      this.#append(change, transaction.commitLsn);
    }
    if (transaction.watermark === this.#read?.id) this.#read = null;
  }

  #append(change: RowChange, commitLsn: Lsn): void {
    const { op, identity, values, unchanged, was } = change;
    this.#follower.streamed(change);
    this.#topic.push({
      ...{ kind: 'row', op, relationId, identity, was },
      ...{ partition: 0, offset: BigInt(this.#topic.length), timestampMs: 0 },
      ...{ position: { epoch: 1, commitLsn, ordinal: this.#topic.length }, commitTimeMicros: 0n },
      key: Buffer.from(identity.join()),
      value: values === null ? null : Buffer.from(JSON.stringify(values)),
      unchanged: unchanged.length === 0 ? null : unchanged,
    });
  }

  /** Kafka commits what was streamed, with a point: now it can be read. */
  #publish(): void {
    this.#readTo = this.#wal[this.#streamed]?.commitLsn ?? toLsn(this.#nextLsn);
    this.#unfinished = this.#chunks.unfinished(this.#healing.unhealed);
    this.#follower.point(this.#unfinished.length > 0);
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
    this.#read = { id: `${this.#reads}`, keys: [...round.keys], state: 'begun' };
    const shape = { shape: table, hasOneSpelling: true };
    this.#healing.begin(this.#read.id, shape, round.keys);
  }

  #takeRows(): void {
    const read = this.#read;
    if (read === null || read.state !== 'begun') return;
    const seen = this.#seen();
    const rows = read.keys.map((key) => ({ key, row: readOf(seen, key.identity[0] ?? '') }));
    this.#snapshot = snapshotOf(this.#wal);
    this.#rows = rows;
    read.state = 'read';
  }

  #snapshot: Snapshot = { xmin: 0n, xmax: 0n, running: new Set() };
  #rows: readonly { readonly key: RowKey; readonly row: ReadRow | null }[] = [];

  #seen(): Map<string, Row> {
    return stateOf(
      this.#wal.filter(({ isSeen }) => isSeen),
      this.#before,
    );
  }

  #commitRead(): void {
    const read = this.#read;
    if (read === null || read.state !== 'read') return;
    this.#healing.read(this.#snapshot, this.#rows);
    this.#commit([], read.id);
    read.state = 'committed';
  }

  #readChunk(how: number): void {
    const isLocked = this.#wal.some(({ writes, isSeen }) => !isSeen && isTruncate(writes));
    if (this.#chunk !== null || isLocked) return;
    if (this.#chunks.wantsHorizon) this.#chunks.setHorizon(wide(this.#commit([], null).xid));
    const next = this.#chunks.next();
    if (next === null) return;
    const seen = this.#seen();
    const after = next.after?.[0] ?? '';
    const all = [...seen.keys()].sort().filter((key) => key > after);
    const few = all.slice(0, 1 + (how % 2));
    const rows = few.flatMap((key) => readOf(seen, key) ?? []);
    const isLast = few.length < 1 + (how % 2);
    this.#chunk = { next, snapshot: snapshotOf(this.#wal), rows, isLast };
  }

  #commitChunk(): void {
    const chunk = this.#chunk;
    if (chunk === null) return;
    this.#chunk = null;
    this.#reads += 1;
    const id = `${this.#reads}`;
    const { snapshot, rows, isLast } = chunk;
    const read = { shape: table, snapshot, rows, isLast, estimate: null };
    if (this.#chunks.read(id, read)) this.#commit([], id);
  }

  /** All that was streamed is in the log, which says what is missing. */
  #restart(): void {
    this.#publish();
    const { Heal, Chunks, unfinishedAgain } = this.#rules;
    this.#healing = new Heal(this.#healing.unhealed, this.#bounds);
    this.#chunks = new Chunks(unfinishedAgain(this.#unfinished), this.#bounds);
    this.#read = null;
    this.#chunk = null;
  }

  /** Where nothing is said to be missing, the newest record of each key is its row. */
  #checkTopic(): void {
    if (!this.#isAllSaid()) return;
    const truth = this.#truth();
    for (const key of keys) {
      const newest = this.#topic.findLast(({ identity }) => identity[0] === key);
      const row = truth.get(key);
      const wanted = row === undefined ? null : [key, row.small, row.large];
      const held = newest?.value == null ? null : JSON.parse(newest.value.toString());
      if (`${held}` !== `${wanted}`) throw new Error(`the topic holds ${held}, not ${wanted}`);
    }
  }
}

function isTruncate(writes: readonly Write[]): boolean {
  return writes.some(({ kind }) => kind === 'truncate');
}
