/**
 * A Postgres as a leader sees it: WAL of transactions, a slot, and walsenders. Flows in: commits,
 * confirmations, crashes; flows out: pgoutput messages. It keeps the rules that were seen in real
 * servers: a commit record may start exactly where the previous one ended; a transaction is sent
 * when its commit record starts at or past the LSN where streaming began; a crash forgets what was
 * confirmed and not yet written to disk; inside of a transaction a keepalive says any LSN.
 */
import { type Lsn, toLsn } from '../../src/change/lsn.ts';
import type { PgoutputMessage } from '../../src/leader/stream/pgoutput-decoder.ts';
import type { WalEvent, WalSource } from '../../src/leader/stream/stages.ts';
import { streamId } from '../support/builders.ts';

export interface SourceTransaction {
  readonly commitLsn: Lsn;
  readonly commitEndLsn: Lsn;
  /** Null values are deletes. */
  readonly rows: readonly { readonly key: string; readonly value: string | null }[];
  readonly label: string | null;
}

const tableOid = 7;
const commitBytes = 2n;

export class ModelPostgres {
  readonly transactions: SourceTransaction[] = [];
  walEnd: Lsn;
  confirmed: Lsn;
  #persisted: Lsn;

  constructor(start: Lsn) {
    this.walEnd = start;
    this.confirmed = start;
    this.#persisted = start;
  }

  /** `gapBytes` is other WAL between the previous commit and this one. */
  commit(rows: SourceTransaction['rows'], label: string | null, gapBytes: number): void {
    const commitLsn = toLsn(this.walEnd + BigInt(gapBytes));
    const commitEndLsn = toLsn(commitLsn + commitBytes);
    this.transactions.push({ commitLsn, commitEndLsn, rows, label });
    this.walEnd = commitEndLsn;
  }

  /** WAL that holds no row of the publication. */
  move(bytes: number): void {
    this.walEnd = toLsn(this.walEnd + BigInt(bytes));
  }

  confirm(lsn: Lsn): void {
    if (lsn > this.confirmed) this.confirmed = lsn;
  }

  persist(): void {
    this.#persisted = this.confirmed;
  }

  crash(): void {
    this.confirmed = this.#persisted;
  }

  /** A slot that is ahead of the requested LSN silently starts later. */
  stream(asked: Lsn): ModelWalsender {
    return new ModelWalsender(this, asked > this.confirmed ? asked : this.confirmed);
  }
}

/** One connection; `shift`, `onReadable` and `confirm` are those of the real session. */
export class ModelWalsender implements WalSource {
  /** A connection of the model is closed, and does not fail. */
  readonly ended = new AbortController().signal;
  readonly #postgres: ModelPostgres;
  readonly #start: Lsn;
  readonly #queue: WalEvent[] = [];
  #sent = 0;
  #pending: PgoutputMessage[] = [];
  #described = false;
  #wake: (() => void) | null = null;
  #closed = false;

  constructor(postgres: ModelPostgres, start: Lsn) {
    this.#postgres = postgres;
    this.#start = start;
    this.#skip();
  }

  get hasMore(): boolean {
    return this.#pending.length > 0 || this.#sent < this.#postgres.transactions.length;
  }

  /** The next message goes out. */
  deliver(): void {
    if (this.#pending.length === 0) {
      const transaction = this.#postgres.transactions[this.#sent];
      if (transaction === undefined) return;
      this.#sent += 1;
      this.#pending = this.#messagesOf(transaction);
    }
    const message = this.#pending.shift();
    if (message !== undefined) this.#push({ kind: 'message', message });
    if (this.#pending.length === 0) this.#skip();
  }

  /** Outside of a transaction: up to where the next one's commit record starts at most. */
  keepalive(): void {
    const next = this.#pending.length > 0 ? undefined : this.#postgres.transactions[this.#sent];
    this.#push({ kind: 'keepalive', walEnd: next?.commitLsn ?? this.#postgres.walEnd });
  }

  shift(): WalEvent | null {
    return this.#queue.shift() ?? null;
  }

  onReadable(callback: () => void): void {
    this.#wake = callback;
    if (this.#queue.length > 0) this.#signal();
  }

  confirm(lsn: Lsn): void {
    if (this.#closed) throw new Error('a run that has ended confirms');
    this.#postgres.confirm(lsn);
  }

  close(): void {
    this.#closed = true;
  }

  #skip(): void {
    const { transactions } = this.#postgres;
    while ((transactions[this.#sent]?.commitLsn ?? this.#start) < this.#start) this.#sent += 1;
  }

  #messagesOf({ commitLsn, commitEndLsn, rows, label }: SourceTransaction): PgoutputMessage[] {
    const commitTimeMicros = commitLsn as bigint;
    const messages: PgoutputMessage[] = [{ kind: 'begin', commitLsn, commitTimeMicros, xid: 0 }];
    if (!this.#described) {
      const head = { kind: 'relation', oid: tableOid, schema: 'public', name: 't' } as const;
      messages.push({ ...head, replicaIdentity: 'd', columns: [] });
      this.#described = true;
    }
    for (const { key, value } of rows) {
      const old = { kind: 'K', values: [key, null] } as const;
      if (value === null) messages.push({ kind: 'delete', oid: tableOid, old });
      else messages.push({ kind: 'insert', oid: tableOid, values: [key, value] });
    }
    if (label !== null) {
      const head = { kind: 'message', transactional: true, prefix: 'understudy.point' } as const;
      messages.push({ ...head, content: `${streamId} ${label}` });
    }
    return [...messages, { kind: 'commit', commitLsn, commitEndLsn }];
  }

  #push(event: WalEvent): void {
    this.#queue.push(event);
    this.#signal();
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}
