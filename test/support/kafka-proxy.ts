/**
 * A way to Kafka brokers that knows where a request begins and ends. Flows in: the brokers'
 * addresses and, at any time, which request or answer of which API is held or lost; flows out:
 * addresses that a client uses instead. What brokers say of their own addresses is rewritten, so
 * that all connections lead through here. A lost answer was processed by the broker; a held request
 * has not reached it, and does so when it is released, although its sender has given up.
 */
import { type Protocol, TcpProxy, type Wire } from './tcp-proxy.ts';

export const apiKeys = {
  produce: 0,
  fetch: 1,
  listOffsets: 2,
  metadata: 3,
  findCoordinator: 10,
  initProducerId: 22,
  addPartitions: 24,
  endTransaction: 26,
} as const;

/** Refusals of a producer whose transactional id has a newer owner. */
export const fencedCodes: ReadonlySet<number> = new Set([47, 90]);

/** Of an answer of EndTxn or InitProducerId: behind correlation id and throttle time. */
export function errorCodeOf(answer: Buffer): number {
  return answer.readInt16BE(8);
}

/** An agent that waits before it tries again does so for 30 s; one that stopped sends no more. */
const caughtMaxMs = 90_000;

/** Whose answers name brokers. */
const namingBrokers: ReadonlySet<number> = new Set([apiKeys.metadata, apiKeys.findCoordinator]);

/** One request or answer that does not arrive for now. */
export interface Held {
  /** Resolves when it is there to be held; rejects when none came for long. */
  readonly caught: Promise<void>;
  /** Breaks the connection of whoever waits for it; the broker is not told. */
  giveUp(): void;
  /** Sends it on; resolves with the whole answer, without its length. */
  release(): Promise<Buffer>;
}

interface Rule {
  readonly apiKey: number;
  readonly what: 'hold request' | 'hold answer' | 'lose request' | 'lose answer' | 'spoil answer';
  readonly held: HeldFrame;
}

export class KafkaProxy {
  readonly #links: TcpProxy[] = [];
  readonly #ports = new Map<string, number>();
  readonly #rules: Rule[] = [];

  static async start(brokers: readonly string[]): Promise<KafkaProxy> {
    const proxy = new KafkaProxy();
    for (const broker of brokers) {
      const link = await TcpProxy.start(broker, (wire) => new KafkaWire(wire, proxy));
      proxy.#links.push(link);
      proxy.#ports.set(broker, link.port);
    }
    return proxy;
  }

  /** Instead of the brokers' own. */
  get addresses(): readonly string[] {
    return this.#links.map(({ address }) => address);
  }

  /** The cables, in the order of the brokers. */
  get links(): readonly TcpProxy[] {
    return this.#links;
  }

  /** The cable of the only broker, or of the first. */
  get link(): TcpProxy {
    const [link] = this.#links;
    if (link === undefined) throw new Error('a way to no broker');
    return link;
  }

  /** The next answer of this API is not delivered: its connection breaks. */
  loseAnswer(apiKey: number): Held {
    return this.#rule('lose answer', apiKey);
  }

  /** The next request of this API never arrives: its connection breaks. */
  loseRequest(apiKey: number): Held {
    return this.#rule('lose request', apiKey);
  }

  /** The next answer of this API arrives with a byte of its end changed: of a fetch, a record's. */
  spoilAnswer(apiKey: number): Held {
    return this.#rule('spoil answer', apiKey);
  }

  holdRequest(apiKey: number): Held {
    return this.#rule('hold request', apiKey);
  }

  holdAnswer(apiKey: number): Held {
    return this.#rule('hold answer', apiKey);
  }

  /** What is still waited for is forgotten; what is held stays held. */
  forget(): void {
    this.#rules.length = 0;
  }

  async close(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.close()));
  }

  /** The rule that a frame meets, which is used up by it. */
  match(apiKey: number, side: 'request' | 'answer'): Rule | null {
    const at = this.#rules.findIndex((rule) => rule.apiKey === apiKey && rule.what.endsWith(side));
    return at < 0 ? null : (this.#rules.splice(at, 1)[0] ?? null);
  }

  /** Puts our ports in the place of the brokers', wherever an answer names host and port. */
  rewritten(apiKey: number, frame: Buffer): Buffer {
    if (!namingBrokers.has(apiKey)) return frame;
    const changed = Buffer.from(frame);
    for (const [broker, port] of this.#ports) {
      const colon = broker.lastIndexOf(':');
      const named = Buffer.alloc(colon + 4);
      named.write(broker.slice(0, colon));
      named.writeInt32BE(Number(broker.slice(colon + 1)), colon);
      for (let at = frame.indexOf(named); at >= 0; at = frame.indexOf(named, at + 1)) {
        changed.writeInt32BE(port, at + colon);
      }
    }
    return changed;
  }

  #rule(what: Rule['what'], apiKey: number): Held {
    const held = new HeldFrame(`${what} of Kafka’s API ${apiKey}`);
    this.#rules.push({ what, apiKey, held });
    return held;
  }
}

class HeldFrame implements Held {
  readonly caught: Promise<void>;
  readonly #answered: Promise<Buffer>;
  #catch: () => void = () => undefined;
  #answer: (answer: Buffer) => void = () => undefined;
  #cut: (() => void) | null = null;
  #goOn: (() => void) | null = null;

  constructor(what: string) {
    this.caught = new Promise((resolve, reject) => {
      const late = new Error(`${what}: none came in ${caughtMaxMs} ms; does the agent still run?`);
      const timer = setTimeout(() => reject(late), caughtMaxMs).unref();
      this.#catch = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    // Not every test waits for it.
    this.caught.catch(() => undefined);
    this.#answered = new Promise((resolve) => {
      this.#answer = resolve;
    });
  }

  takes(cut: () => void, goOn: () => void): void {
    this.#cut = cut;
    this.#goOn = goOn;
    this.#catch();
  }

  answeredBy(frame: Buffer): void {
    this.#answer(frame.subarray(4));
  }

  giveUp(): void {
    if (this.#cut === null) throw new Error('nothing was caught');
    this.#cut();
  }

  release(): Promise<Buffer> {
    if (this.#goOn === null) throw new Error('nothing was caught');
    this.#goOn();
    return this.#answered;
  }
}

/** One connection to one broker. */
class KafkaWire implements Protocol {
  readonly #wire: Wire;
  readonly #proxy: KafkaProxy;
  readonly #requests = new FrameCutter();
  readonly #answers = new FrameCutter();
  readonly #apiKeyOf = new Map<number, number>();
  /** By correlation id: requests whose answer belongs to a held or lost frame. */
  readonly #awaited = new Map<number, HeldFrame>();

  constructor(wire: Wire, proxy: KafkaProxy) {
    this.#wire = wire;
    this.#proxy = proxy;
  }

  needsServer(): boolean {
    return this.#awaited.size > 0;
  }

  fromClient(bytes: Buffer): void {
    for (const frame of this.#requests.cut(bytes)) this.#request(frame);
  }

  fromServer(bytes: Buffer): void {
    for (const frame of this.#answers.cut(bytes)) this.#answer(frame);
  }

  #request(frame: Buffer): void {
    const apiKey = frame.readInt16BE(4);
    const correlation = frame.readInt32BE(8);
    this.#apiKeyOf.set(correlation, apiKey);
    const rule = this.#proxy.match(apiKey, 'request');
    if (rule === null) {
      this.#wire.toServer(frame);
      return;
    }
    if (rule.what === 'lose request') {
      rule.held.takes(this.#cut, () => undefined);
      this.#wire.cutClient();
      return;
    }
    this.#awaited.set(correlation, rule.held);
    rule.held.takes(this.#cut, () => this.#wire.toServer(frame));
  }

  #answer(frame: Buffer): void {
    const correlation = frame.readInt32BE(4);
    const apiKey = this.#apiKeyOf.get(correlation) ?? -1;
    this.#apiKeyOf.delete(correlation);
    this.#awaited.get(correlation)?.answeredBy(frame);
    this.#awaited.delete(correlation);
    const goOn = (): void => this.#wire.toClient(this.#proxy.rewritten(apiKey, frame));
    const rule = this.#proxy.match(apiKey, 'answer');
    if (rule === null) {
      goOn();
      return;
    }
    if (rule.what === 'spoil answer') {
      const place = frame.length - 3;
      frame.writeUInt8(frame.readUInt8(place) ^ 1, place);
      goOn();
      return;
    }
    rule.held.takes(this.#cut, goOn);
    rule.held.answeredBy(frame);
    if (rule.what === 'lose answer') this.#wire.cutClient();
  }

  readonly #cut = (): void => this.#wire.cutClient();
}

/** Cuts a stream of bytes into frames, their length included. */
class FrameCutter {
  #waiting = Buffer.alloc(0);

  cut(bytes: Buffer): Buffer[] {
    const frames: Buffer[] = [];
    this.#waiting = Buffer.concat([this.#waiting, bytes]);
    while (this.#waiting.length >= 4) {
      const end = 4 + this.#waiting.readInt32BE(0);
      if (this.#waiting.length < end) break;
      frames.push(this.#waiting.subarray(0, end));
      this.#waiting = this.#waiting.subarray(end);
    }
    return frames;
  }
}
