/**
 * One walsender connection. Flows in: a slot, a publication and the exact LSN to begin at; flows
 * out: decoded messages and keepalives in WAL order, and upstream only what the caller confirms,
 * byte for byte. It never acknowledges by itself, so Postgres discards nothing that is not in the
 * log.
 *
 * pg-logical-replication brings the connection; its own acknowledging is switched off, because it
 * sends LSN + 1 (the next commit record may start exactly at the LSN) and the last received LSN.
 * The object lives for one connection: a used one would resume from what it last received.
 */
import type { Client, ClientConfig } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import { endNoTransaction } from '../../catalog/postgres-session.ts';
import { formatLsn, type Lsn, parseLsn } from '../../change/lsn.ts';
import { walsenderEnded, walsenderSilent } from '../../errors/unreachable.ts';
import { decodePgoutput } from './pgoutput-decoder.ts';
import type { WalEvent, WalSource } from './stages.ts';
import { standbyStatus } from './standby-status.ts';
import { WalsenderSilence } from './walsender-silence.ts';

interface WalSessionOptions {
  /** Connection settings with the fixed session settings among its `options`. */
  readonly connection: ClientConfig;
  readonly slot: string;
  readonly publication: string;
  /** Postgres silently starts later when its slot is ahead: the caller has checked the slot. */
  readonly startLsn: Lsn;
  /** The server's wal_sender_timeout; 0 when that is off. */
  readonly walSenderTimeoutMs: number;
}

/** Beyond this many undelivered bytes the socket is paused: Postgres waits, nothing is lost. */
const queuedBytesMax = 8 * 1024 * 1024;
/** What a decoded message costs besides its bytes: most of the memory of small rows. */
const eventBytes = 500;

interface PausableStream {
  pause(): void;
  resume(): void;
}

/** The parts of the service that its types hide. */
interface ServiceInternals {
  _connection: { stream: PausableStream; sendCopyFromChunk(chunk: Buffer): void } | null;
}

/**
 * Hands on the raw bytes and asks for pgoutput with messages: the library's own plugin does not.
 */
class PgoutputPlugin {
  readonly options = {};
  readonly name = 'pgoutput';
  readonly #publication: string;
  readonly #receive: (bytes: Buffer) => void;

  constructor(publication: string, receive: (bytes: Buffer) => void) {
    this.#publication = publication;
    this.#receive = receive;
  }

  async start(client: Client, slot: string, lsn: string): Promise<unknown> {
    await endNoTransaction(client);
    return client.query(
      `START_REPLICATION SLOT "${slot}" LOGICAL ${lsn} ` +
        `(proto_version '1', publication_names '"${this.#publication}"', messages 'true')`,
    );
  }

  parse(bytes: Buffer): void {
    this.#receive(bytes);
  }
}

export class WalSession implements WalSource {
  readonly #service: LogicalReplicationService;
  readonly #queue: WalEvent[] = [];
  #taken = 0;
  #queuedBytes = 0;
  #paused = false;
  #confirmedLsn: Lsn;
  #failure: unknown = null;
  readonly #ended = new AbortController();
  readonly #silence: WalsenderSilence;
  #closed = false;
  #wake: (() => void) | null = null;
  #statusTimer: NodeJS.Timeout | null = null;

  private constructor(options: WalSessionOptions) {
    this.#confirmedLsn = options.startLsn;
    this.#silence = new WalsenderSilence(options.walSenderTimeoutMs);
    this.#service = new LogicalReplicationService(options.connection, {
      acknowledge: { auto: false, timeoutSeconds: 0 },
    });
  }

  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Resolves when Postgres has begun to stream. */
  static async open(options: WalSessionOptions): Promise<WalSession> {
    const session = new WalSession(options);
    try {
      await session.#start(options);
      return session;
    } catch (error) {
      // A refused START_REPLICATION leaves its connection open, and with it a walsender.
      await session.close();
      throw error;
    }
  }

  async #start(options: WalSessionOptions): Promise<void> {
    const service = this.#service;
    const plugin = new PgoutputPlugin(options.publication, (bytes) => this.#receive(bytes));
    service.on('heartbeat', (lsn: string, _time: number, shouldRespond: boolean) => {
      this.#silence.heard();
      if (shouldRespond) this.#sendStatus();
      this.#push({ kind: 'keepalive', walEnd: parseLsn(lsn) }, 0);
    });
    await new Promise<void>((resolve, reject) => {
      service.on('start', resolve);
      service.on('error', (error) => {
        this.#fail(error);
        reject(error);
      });
      const ended = service.subscribe(plugin, options.slot, formatLsn(options.startLsn));
      ended.then(
        () => {
          this.#fail(walsenderEnded());
          reject(walsenderEnded());
        },
        (error: unknown) => {
          this.#fail(error);
          reject(error);
        },
      );
    });
    this.#statusTimer = setInterval(() => this.#statusDue(), this.#silence.statusEveryMs);
  }

  shift(): WalEvent | null {
    const event = this.#queue[this.#taken];
    if (event === undefined) {
      if (this.#failure !== null) throw this.#failure;
      return null;
    }
    this.#taken += 1;
    if (this.#taken === this.#queue.length) {
      this.#queue.length = 0;
      this.#taken = 0;
      this.#queuedBytes = 0;
      this.#resume();
    }
    return event;
  }

  onReadable(callback: () => void): void {
    this.#wake = callback;
    if (this.#taken < this.#queue.length || this.#failure !== null) this.#signal();
  }

  confirm(upto: Lsn): void {
    if (upto <= this.#confirmedLsn) return;
    this.#confirmedLsn = upto;
    this.#sendStatus();
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#statusTimer !== null) clearInterval(this.#statusTimer);
    this.#fail(walsenderEnded());
    this.#resume();
    await this.#service.destroy();
  }

  /** Runs inside the socket's handler: an error must fail this session, not the process. */
  #receive(bytes: Buffer): void {
    if (this.#failure !== null) return;
    this.#silence.heard();
    try {
      const message = decodePgoutput(bytes);
      // rule: receipt-moves-no-status
      if (message.kind !== 'ignored') this.#push({ kind: 'message', message }, bytes.length);
    } catch (error) {
      this.#fail(error);
    }
  }

  #push(event: WalEvent, bytes: number): void {
    this.#queue.push(event);
    this.#queuedBytes += bytes + eventBytes;
    if (!this.#paused && this.#queuedBytes > queuedBytesMax) {
      this.#paused = true;
      this.#connection()?.stream.pause();
    }
    this.#signal();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#connection()?.stream.resume();
  }

  #statusDue(): void {
    // While the socket is paused, what the server sends waits there.
    if (this.#paused) this.#silence.heard();
    const due = this.#silence.next();
    if (due === 'dead') this.#fail(walsenderSilent());
    else this.#sendStatus(due === 'request');
  }

  /** Write and flush are equal, else Postgres would stop sending where its WAL ends. */
  // rule: status-of-confirmed-lsn
  #sendStatus(requestsReply = false): void {
    if (this.#closed) return;
    const flush = this.#confirmedLsn;
    const apply = flush;
    const status = { flush, apply, nowMs: Date.now(), requestsReply };
    this.#connection()?.sendCopyFromChunk(standbyStatus(status));
  }

  #connection(): ServiceInternals['_connection'] {
    return (this.#service as unknown as ServiceInternals)._connection;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#ended.abort(this.#failure);
    this.#signal();
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}
