/**
 * One link between a client and a server, as a cable that a test can pull, cut, jam and slow down.
 * Flows in: the server's address; flows out: an address that a client uses instead, and verbs for
 * what happens on the way. Bytes keep their order and none is changed or left out while both ends
 * live: what is held up arrives later, as after a network that healed.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** Up leads from the client to the server. */
export type Direction = 'up' | 'down' | 'both';

/** What a protocol may do with one connection. */
export interface Wire {
  toServer(bytes: Buffer): void;
  toClient(bytes: Buffer): void;
  /** Breaks the client's side; the server's lives on while the protocol is not done with it. */
  cutClient(): void;
}

/** Stands between the two lanes of a connection; without one, bytes pass as they come. */
export interface Protocol {
  fromClient(bytes: Buffer): void;
  fromServer(bytes: Buffer): void;
  /** Whether the server's side is still needed although the client has gone. */
  needsServer(): boolean;
}

/** More than this waits in the kernel of the sender: a jam is felt there. */
const queuedBytesMax = 256 * 1024;
const sliceMs = 50;

interface Weather {
  blocked: boolean;
  delayMs: number;
  /** Infinity is as fast as the machine. */
  bytesPerSecond: number;
}

const fair = (): Weather => ({
  blocked: false,
  delayMs: 0,
  bytesPerSecond: Number.POSITIVE_INFINITY,
});

export class TcpProxy {
  readonly #target: { readonly host: string; readonly port: number };
  readonly #protocol: (wire: Wire) => Protocol;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();
  readonly #weather = { up: fair(), down: fair() };
  #refusing = false;

  private constructor(address: string, protocol: (wire: Wire) => Protocol) {
    const colon = address.lastIndexOf(':');
    this.#target = { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
    this.#protocol = protocol;
    this.#server = createServer((client) => this.#accept(client));
  }

  static async start(
    address: string,
    protocol: (wire: Wire) => Protocol = passing,
  ): Promise<TcpProxy> {
    const proxy = new TcpProxy(address, protocol);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Connections that the client holds open now. */
  get open(): number {
    return [...this.#connections].filter(({ clientIsThere }) => clientIsThere).length;
  }

  /** The same URL through this link. */
  through(url: string): string {
    const changed = new URL(url);
    changed.host = this.address;
    return changed.href;
  }

  /** Closes every connection in good order; new ones are let in. */
  drop(): void {
    for (const connection of this.#connections) connection.end('fin');
  }

  /** Resets every connection on both sides; new ones are let in. */
  reset(): void {
    for (const connection of this.#connections) connection.end('rst');
  }

  /** Resets what there is and what comes, until `heal`: nobody is at home. */
  refuse(): void {
    this.#refusing = true;
    this.reset();
  }

  /** Connections are accepted and nothing goes on, not even that one side has gone. */
  blackhole(direction: Direction = 'both'): void {
    this.#each(direction, (weather) => {
      weather.blocked = true;
    });
  }

  delay(delayMs: number, direction: Direction = 'both'): void {
    this.#each(direction, (weather) => {
      weather.delayMs = delayMs;
    });
  }

  slow(bytesPerSecond: number, direction: Direction = 'both'): void {
    this.#each(direction, (weather) => {
      weather.bytesPerSecond = bytesPerSecond;
    });
  }

  /** What was held up goes on; connections are let in again. */
  heal(): void {
    this.#refusing = false;
    Object.assign(this.#weather.up, fair());
    Object.assign(this.#weather.down, fair());
    for (const connection of this.#connections) connection.moveOn();
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const connection of this.#connections) connection.end('fin');
    await closed;
  }

  #each(direction: Direction, change: (weather: Weather) => void): void {
    if (direction !== 'down') change(this.#weather.up);
    if (direction !== 'up') change(this.#weather.down);
  }

  #accept(client: Socket): void {
    if (this.#refusing) {
      client.on('error', () => undefined);
      client.resetAndDestroy();
      return;
    }
    const connection = new Connection(client, connect(this.#target), this.#weather, this.#protocol);
    this.#connections.add(connection);
    connection.onClosed(() => this.#connections.delete(connection));
  }
}

const passing = (wire: Wire): Protocol => ({
  fromClient: (bytes) => wire.toServer(bytes),
  fromServer: (bytes) => wire.toClient(bytes),
  needsServer: () => false,
});

class Connection {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #up: Lane;
  readonly #down: Lane;
  readonly #protocol: Protocol;

  constructor(
    client: Socket,
    server: Socket,
    weather: { readonly up: Weather; readonly down: Weather },
    protocol: (wire: Wire) => Protocol,
  ) {
    this.#client = client;
    this.#server = server;
    this.#up = new Lane(client, server, weather.up);
    this.#down = new Lane(server, client, weather.down);
    this.#protocol = protocol({
      toServer: (bytes) => this.#up.put(bytes),
      toClient: (bytes) => this.#down.put(bytes),
      cutClient: () => client.resetAndDestroy(),
    });
    client.on('data', (bytes) => {
      this.#protocol.fromClient(bytes);
      this.#up.feel();
    });
    server.on('data', (bytes) => {
      this.#protocol.fromServer(bytes);
      this.#down.feel();
      if (client.destroyed && !this.#protocol.needsServer()) this.#up.finish();
    });
    // Whatever broke a socket: it is closed, and that is what goes on to the other side.
    for (const socket of [client, server]) socket.on('error', () => undefined);
    client.once('close', () => {
      if (!this.#protocol.needsServer()) this.#up.finish();
    });
    server.once('close', () => this.#down.finish());
  }

  /** Calls back once both sides are gone. */
  onClosed(callback: () => void): void {
    this.#client.once('close', () => this.#server.closed && callback());
    this.#server.once('close', () => this.#client.closed && callback());
  }

  get clientIsThere(): boolean {
    return !this.#client.destroyed;
  }

  end(how: 'fin' | 'rst'): void {
    for (const socket of [this.#client, this.#server]) {
      if (how === 'rst') socket.resetAndDestroy();
      else socket.destroy();
    }
  }

  moveOn(): void {
    this.#up.moveOn();
    this.#down.moveOn();
  }
}

/** One direction of one connection. */
class Lane {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #weather: Weather;
  readonly #queue: { readonly bytes: Buffer; readonly dueMs: number }[] = [];
  #queuedBytes = 0;
  #finished = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(from: Socket, to: Socket, weather: Weather) {
    this.#from = from;
    this.#to = to;
    this.#weather = weather;
    to.once('close', () => this.#stop());
  }

  put(bytes: Buffer): void {
    if (this.#to.destroyed) return;
    this.#queue.push({ bytes, dueMs: Date.now() + this.#weather.delayMs });
    this.#queuedBytes += bytes.length;
    this.moveOn();
  }

  /** The sender has gone; the receiver hears of it after all that was sent. */
  finish(): void {
    this.#finished = true;
    this.moveOn();
  }

  /** Lets the sender feel a jam, and its end. */
  feel(): void {
    if (this.#queuedBytes > queuedBytesMax) this.#from.pause();
    else this.#from.resume();
  }

  moveOn(): void {
    if (this.#timer !== null) return;
    while (!this.#weather.blocked && !this.#to.destroyed) {
      const [next] = this.#queue;
      if (next === undefined) {
        if (this.#finished) this.#to.end(() => this.#to.destroy());
        break;
      }
      const waitMs = next.dueMs - Date.now();
      if (waitMs > 0) {
        this.#lookAgainIn(waitMs);
        break;
      }
      if (this.#send(next.bytes, next.dueMs)) break;
    }
    if (!this.#from.destroyed) this.feel();
  }

  /** True when a slow lane has used up its share of this moment. */
  #send(bytes: Buffer, dueMs: number): boolean {
    const share = Math.max(1, Math.floor((this.#weather.bytesPerSecond * sliceMs) / 1_000));
    const part = bytes.subarray(0, share);
    this.#queue.shift();
    if (part.length < bytes.length) this.#queue.unshift({ bytes: bytes.subarray(share), dueMs });
    this.#queuedBytes -= part.length;
    this.#to.write(part);
    if (this.#weather.bytesPerSecond === Number.POSITIVE_INFINITY) return false;
    this.#lookAgainIn(Math.ceil((part.length * 1_000) / this.#weather.bytesPerSecond));
    return true;
  }

  #lookAgainIn(delayMs: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.moveOn();
    }, delayMs);
  }

  #stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#queue.length = 0;
    this.#queuedBytes = 0;
  }
}
