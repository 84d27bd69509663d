/**
 * One walsender connection. Flows in: a slot, a publication and the exact LSN to begin at; flows
 * out: decoded messages and keepalives in WAL order, and upstream only what the caller confirms,
 * byte for byte. It never acknowledges by itself, so nothing that is not in the log is ever let go.
 *
 * pg-logical-replication brings the connection; its own acknowledging is switched off, because it
 * sends LSN + 1 (the next commit record may start exactly at the LSN) and the last received LSN.
 * The object lives for one connection: a used one would resume from what it last received.
 */
import type { Client, ClientConfig } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import { formatLsn, type Lsn, parseLsn } from '../../change/lsn.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { decodePgoutput, type PgoutputMessage } from './pgoutput-decoder.ts';
import { standbyStatus } from './standby-status.ts';

export type WalEvent =
  | { readonly kind: 'message'; readonly message: PgoutputMessage }
  | { readonly kind: 'keepalive'; readonly walEnd: Lsn };

interface WalSessionOptions {
  /** Connection settings with the fixed session settings among its `options`. */
  readonly connection: ClientConfig;
  readonly slot: string;
  readonly publication: string;
  /** Postgres starts later without a word when its slot is ahead: the caller has compared. */
  readonly startLsn: Lsn;
  /** A third of the server's wal_sender_timeout; 0 when that is off. */
  readonly statusEveryMs: number;
}

/** Beyond this many undelivered bytes the socket is paused: Postgres waits, nothing is lost. */
const queuedBytesMax = 8 * 1024 * 1024;
/** What a decoded message costs beside its bytes: of small rows it is most of it. */
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
 * Hands the raw bytes on and asks for pgoutput with messages: the library's own plugin does not.
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
    return client.query(
      `START_REPLICATION SLOT "${slot}" LOGICAL ${lsn} ` +
        `(proto_version '1', publication_names '"${this.#publication}"', messages 'true')`,
    );
  }

  parse(bytes: Buffer): void {
    this.#receive(bytes);
  }
}

export class WalSession {
  readonly #service: LogicalReplicationService;
  readonly #queue: WalEvent[] = [];
  #taken = 0;
  #queuedBytes = 0;
  #paused = false;
  #confirmed: Lsn;
  #failure: unknown = null;
  #closed = false;
  #wake: (() => void) | null = null;
  #statusTimer: NodeJS.Timeout | null = null;

  private constructor(options: WalSessionOptions) {
    this.#confirmed = options.startLsn;
    this.#service = new LogicalReplicationService(options.connection, {
      acknowledge: { auto: false, timeoutSeconds: 0 },
    });
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
          this.#fail(connectionEnded());
          reject(connectionEnded());
        },
        (error: unknown) => {
          this.#fail(error);
          reject(error);
        },
      );
    });
    if (options.statusEveryMs > 0) {
      this.#statusTimer = setInterval(() => this.#sendStatus(), options.statusEveryMs);
    }
  }

  /** The next event, or null when none is queued. Throws once the connection has failed. */
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

  /** Calls back once when `shift` has something to say, an event or the failure; at once if so. */
  onReadable(callback: () => void): void {
    this.#wake = callback;
    if (this.#taken < this.#queue.length || this.#failure !== null) this.#signal();
  }

  /** Lets Postgres discard WAL below `lsn`: only after Kafka has committed everything below it. */
  confirm(lsn: Lsn): void {
    if (lsn <= this.#confirmed) return;
    this.#confirmed = lsn;
    this.#sendStatus();
  }

  get confirmed(): Lsn {
    return this.#confirmed;
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#statusTimer !== null) clearInterval(this.#statusTimer);
    this.#fail(connectionEnded());
    this.#resume();
    await this.#service.destroy();
  }

  /** Runs inside the socket's handler: an error must fail this session, not the process. */
  #receive(bytes: Buffer): void {
    if (this.#failure !== null) return;
    try {
      const message = decodePgoutput(bytes);
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

  /** Write and flush are equal, else Postgres would stop telling where its WAL ends. */
  #sendStatus(): void {
    if (this.#closed) return;
    const status = { flush: this.#confirmed, apply: this.#confirmed, nowMs: Date.now() };
    this.#connection()?.sendCopyFromChunk(standbyStatus(status));
  }

  #connection(): ServiceInternals['_connection'] {
    return (this.#service as unknown as ServiceInternals)._connection;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#signal();
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}

function connectionEnded(): UnderstudyError {
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    'the replication connection to the leader ended',
    'Check that the leader’s Postgres runs: pg_isready.',
  );
}
