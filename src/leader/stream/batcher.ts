/**
 * Decides what goes into one Kafka transaction and when it ends. Flows in: encoded records, ends of
 * source transactions, keepalives, the outcome of Kafka's commits; flows out: one action at a time
 * for the publish loop. It holds no I/O and no clock.
 *
 * A batch is whole source transactions and ends in one point. It is committed as soon as Kafka is
 * free and no source transaction is open in it: under load batches grow by themselves while the
 * previous one is in flight. A transaction larger than the bound goes out in pieces inside of its
 * batch. A named point ends its batch: `accepts` turns false until it is committed.
 */
import type { Checkpoint, Point } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import type { OutgoingRecord } from '../../topic/log.ts';
import type { BatchAction, BatchPolicy, RowObserver } from './stages.ts';

export interface BatcherOptions {
  readonly streamId: string;
  readonly epoch: number;
  readonly partitions: number;
  /** Records that may wait for Kafka before the WAL is no longer read. */
  readonly recordsMax: number;
  readonly bytesMax: number;
  /** Idle points directly after a change of WAL, so that tokens become visible. */
  readonly idleSoonMs: number;
  /** Idle points while only WAL of other tables and databases moves. */
  readonly idleEveryMs: number;
  /** The checkpoint that the first point of this run continues. */
  readonly start: Checkpoint;
  readonly lastCommit: Lsn;
  readonly lastCommitTimeMicros: bigint;
  /** Says what each point does, about the open batch too. */
  readonly observer: Pick<RowObserver, 'takeForPoint'>;
}

export class Batcher implements BatchPolicy {
  readonly #options: BatcherOptions;
  #records: OutgoingRecord[] = [];
  #bytes = 0;
  #counts: number[];
  #openTransaction = false;
  #label: string | null = null;
  #previous: Checkpoint;
  /** What the next point will say; moves only at the end of a source transaction. */
  #upto: Lsn;
  #commit: Lsn;
  #commitTimeMicros: bigint;
  #pendingCommit: Lsn;
  #pendingCommitTimeMicros: bigint;
  #walEnd: Lsn;
  #uncovered: readonly string[] = [];
  #lastPointMs = Number.NEGATIVE_INFINITY;
  #idlePointsInARow = 0;

  constructor(options: BatcherOptions) {
    this.#options = options;
    this.#counts = new Array(options.partitions).fill(0);
    this.#previous = options.start;
    this.#upto = options.start.at.lsn;
    this.#walEnd = options.start.at.lsn;
    this.#commit = options.lastCommit;
    this.#pendingCommit = options.lastCommit;
    this.#commitTimeMicros = options.lastCommitTimeMicros;
    this.#pendingCommitTimeMicros = options.lastCommitTimeMicros;
  }

  get accepts(): boolean {
    // rule: label-ends-batch
    if (this.#label !== null && !this.#openTransaction) return false;
    return this.#records.length < this.#options.recordsMax && this.#bytes < this.#options.bytesMax;
  }

  begin(commitLsn: Lsn, commitTimeMicros: bigint): void {
    this.#openTransaction = true;
    this.#pendingCommit = commitLsn;
    this.#pendingCommitTimeMicros = commitTimeMicros;
  }

  add(records: readonly OutgoingRecord[]): void {
    for (const record of records) {
      this.#records.push(record);
      this.#bytes += record.key.length + (record.value?.length ?? 0);
      this.#counts[record.partition] = (this.#counts[record.partition] ?? 0) + 1;
    }
  }

  get previous(): Checkpoint {
    return this.#previous;
  }

  label(label: string): void {
    this.#label = label;
  }

  end(commitEndLsn: Lsn): void {
    this.#openTransaction = false;
    this.#upto = commitEndLsn;
    this.#walEnd = commitEndLsn > this.#walEnd ? commitEndLsn : this.#walEnd;
    this.#commit = this.#pendingCommit;
    this.#commitTimeMicros = this.#pendingCommitTimeMicros;
  }

  /** Inside of a transaction a keepalive says nothing: the rows of its commit are not yet read. */
  keepalive(walEnd: Lsn): void {
    // rule: keepalive-outside-transaction
    if (!this.#openTransaction && walEnd > this.#walEnd) this.#walEnd = walEnd;
  }

  /** Every point from now on names these tables; returns whether they differ from before. */
  setUncovered(tables: readonly string[]): boolean {
    if (tables.join() === this.#uncovered.join()) return false;
    this.#uncovered = tables;
    return true;
  }

  /** Adds one, at once. */
  addUncovered(table: string): void {
    if (!this.#uncovered.includes(table)) this.#uncovered = [...this.#uncovered, table];
  }

  next(nowMs: number): BatchAction {
    // rule: batch-of-whole-transactions
    if (!this.#openTransaction && this.#hasTransactions()) return this.#takeCommit(false, nowMs);
    if (this.#openTransaction) return this.#insideTransaction();
    if (this.#walEnd <= this.#upto) return { kind: 'wait', atMs: null };
    const { idleSoonMs, idleEveryMs } = this.#options;
    // The first idle points follow soon, so that a reader's token is covered; many in a row mean
    // that only WAL of other tables and databases moves.
    const soon = this.#idlePointsInARow * idleSoonMs < idleEveryMs;
    const atMs = this.#lastPointMs + (soon ? Math.min(idleSoonMs, idleEveryMs) : idleEveryMs);
    return nowMs >= atMs ? this.#takeCommit(true, nowMs) : { kind: 'wait', atMs };
  }

  committed(checkpoint: Checkpoint): void {
    this.#previous = checkpoint;
  }

  /** A transaction larger than the bound goes out in pieces. */
  #insideTransaction(): BatchAction {
    if (this.accepts) return { kind: 'wait', atMs: null };
    return { kind: 'send', records: this.#takeRecords() };
  }

  #hasTransactions(): boolean {
    return this.#upto > this.#previous.at.lsn;
  }

  #takeCommit(idle: boolean, nowMs: number): BatchAction {
    // Everything below the last keepalive is in this batch too, except for a named point: it is
    // directly after its transaction.
    if (this.#label === null) this.#upto = this.#walEnd;
    const { streamId, epoch, partitions, observer } = this.#options;
    const point: Point = {
      streamId,
      label: this.#label,
      epoch,
      commit: this.#commit,
      upto: this.#upto,
      commitTimeMicros: this.#commitTimeMicros,
      counts: this.#counts,
      previous: this.#previous,
      uncovered: this.#uncovered,
      ...observer.takeForPoint(),
    };
    // rule: counts-start-at-zero
    this.#counts = new Array(partitions).fill(0);
    this.#label = null;
    this.#lastPointMs = nowMs;
    this.#idlePointsInARow = idle ? this.#idlePointsInARow + 1 : 0;
    return { kind: 'commit', records: this.#takeRecords(), point };
  }

  #takeRecords(): OutgoingRecord[] {
    const records = this.#records;
    this.#records = [];
    this.#bytes = 0;
    return records;
  }
}
