/**
 * A schema registry that has bad days: a real HTTP server in front of the real registry. Flows in:
 * the registry's address and how it behaves now; flows out: an address that agents use instead, and
 * how often they asked. What it lets through is the registry's own answer.
 */
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Mood =
  | { readonly kind: 'well' }
  /** The connection breaks without an answer. */
  | { readonly kind: 'down' }
  | { readonly kind: 'slow'; readonly delayMs: number }
  | { readonly kind: 'status'; readonly status: 404 | 500 | 503 }
  /** Registering under a subject that matches is answered with this id. */
  | { readonly kind: 'other id'; readonly subject: RegExp; readonly id: number }
  /** Its data was made anew: every schema is there, and has another id. */
  | { readonly kind: 'renumbered'; readonly by: number };

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: Buffer;
}

export class FailingRegistry {
  readonly #url: URL;
  readonly #server = createServer((asked, answer) => {
    this.#requests += 1;
    this.#serve(asked, answer).catch(() => answer.destroy());
  });
  #mood: Mood = { kind: 'well' };
  #requests = 0;

  private constructor(registryUrl: string) {
    this.#url = new URL(registryUrl);
  }

  static async start(registryUrl: string): Promise<FailingRegistry> {
    const failing = new FailingRegistry(registryUrl);
    await new Promise<void>((resolve) => failing.#server.listen(0, '127.0.0.1', resolve));
    return failing;
  }

  get url(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${port}${this.#url.pathname}`;
  }

  /** Requests so far, also those that got no answer. */
  get requests(): number {
    return this.#requests;
  }

  behave(mood: Mood): void {
    this.#mood = mood;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    const mood = this.#mood;
    const body = await wholeOf(asked);
    if (mood.kind === 'down') {
      asked.socket.resetAndDestroy();
      return;
    }
    if (mood.kind === 'slow') await new Promise((resolve) => setTimeout(resolve, mood.delayMs));
    if (mood.kind === 'status') {
      const error = { error_code: mood.status, message: 'a bad day' };
      answer.writeHead(mood.status, { 'content-type': 'application/json' });
      answer.end(JSON.stringify(error));
      return;
    }
    const real = await this.#ask(asked, realPath(asked.url ?? '/', mood), body);
    answer.writeHead(real.status, { 'content-type': real.type });
    answer.end(asked.method === 'POST' ? withOtherId(real, asked.url ?? '/', mood) : real.body);
  }

  #ask(asked: IncomingMessage, path: string, body: Buffer): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const { method = 'GET', headers } = asked;
      const { hostname, port } = this.#url;
      const options = { hostname, port, method, path, agent: false as const };
      const { host: _, connection: __, ...kept } = headers;
      const forwarded = request({ ...options, headers: kept }, (response) => {
        wholeOf(response).then((whole) => {
          const type = response.headers['content-type'] ?? 'application/json';
          resolve({ status: response.statusCode ?? 500, type, body: whole });
        }, reject);
      });
      forwarded.once('error', reject);
      forwarded.end(body);
    });
  }
}

/** Where the real registry has what is asked for. */
function realPath(path: string, mood: Mood): string {
  if (mood.kind !== 'renumbered') return path;
  return path.replace(/(\/schemas\/ids\/)(\d+)/, (_, before: string, id: string) => {
    return `${before}${Number(id) - mood.by}`;
  });
}

function withOtherId(real: Answer, path: string, mood: Mood): Buffer {
  const subject = /\/subjects\/([^/]+)\/versions/.exec(path)?.[1];
  if (subject === undefined || real.status !== 200) return real.body;
  const answer = JSON.parse(real.body.toString()) as { id: number };
  const isOther = mood.kind === 'other id' && mood.subject.test(decodeURIComponent(subject));
  const shifted = mood.kind === 'renumbered' ? answer.id + mood.by : answer.id;
  return Buffer.from(JSON.stringify({ ...answer, id: isOther ? mood.id : shifted }));
}

async function wholeOf(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}
