/**
 * The small HTTP server of `run --http`. Three functions flow in: what `status` says, whether the
 * agent is well, and its figures. GET /status answers with the JSON of the first, GET /healthz with
 * 200 or 503 by the second, GET /metrics with the text of the third, anything else with 404. Every
 * answer comes within a bound, and however many ask, at most one status is being looked up. It
 * binds to this machine unless another address is named.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { UnderstudyError } from '../errors/understudy-error.ts';
import { metricsContentType, metricsText, type NodeFigures } from './metrics.ts';

export interface ListenAddress {
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
}

interface Health {
  readonly ok: boolean;
}

export interface StatusServerOptions {
  readonly listen: ListenAddress;
  /** The object that GET /status shows. */
  readonly status: () => Promise<object>;
  /** The object that GET /healthz shows; it must be cheap, it is asked every few seconds. */
  readonly health: () => Health;
  /** What GET /metrics shows of each node; as cheap. */
  readonly figures: () => readonly NodeFigures[];
  /** Hears of failures that the answer does not describe, for the log. */
  readonly onError: (error: unknown) => void;
  readonly answerWithinMs?: number;
}

export interface StatusServer {
  /** Where it listens, with the port the system chose. */
  readonly address: ListenAddress;
  stop(): Promise<void>;
}

/** Monitoring gives up after 10 s as a rule; before that it should learn that we are slow. */
const defaultAnswerWithinMs = 5000;
/** Nobody sends us a body or long headers. */
const requestTimeoutMs = 10_000;
/** Only monitoring and people ask; more is a mistake or an attack. */
const maxConnections = 64;

const loopback = '127.0.0.1';

/** Parses `8080`, `:8080`, `host:8080` and `[::1]:8080`. A port alone is of this machine only. */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[^\s:[\]/@]*):)?([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) {
    throw new UnderstudyError(
      'USAGE',
      `${JSON.stringify(text)} is not an address to listen on`,
      'Write host:port or a port, such as 127.0.0.1:8080; 0.0.0.0:8080 is open to the network.',
    );
  }
  const host = (match[1] ?? '').replace(/^\[|\]$/g, '');
  return { host: host === '' ? loopback : host, port };
}

export async function startStatusServer(options: StatusServerOptions): Promise<StatusServer> {
  const status = sharedFlight(options.status);
  const server = createServer((request, response) => {
    void answer(request, response, { ...options, status });
  });
  server.requestTimeout = requestTimeoutMs;
  server.headersTimeout = requestTimeoutMs;
  server.maxConnections = maxConnections;
  const address = await listen(server, options.listen);
  server.on('error', options.onError);
  return { address, stop: () => stop(server) };
}

function listen(server: Server, { host, port }: ListenAddress): Promise<ListenAddress> {
  return new Promise((resolve, reject) => {
    const onError = (cause: NodeJS.ErrnoException): void => {
      reject(
        new UnderstudyError(
          'PREREQUISITE',
          `cannot listen on ${host}:${port} (${cause.code ?? 'unknown reason'})`,
          'Give --http an address of this machine and a port that nothing else uses.',
          cause,
        ),
      );
    };
    server.once('error', onError);
    server.listen({ host, port }, () => {
      server.off('error', onError);
      const bound = server.address();
      resolve({ host, port: typeof bound === 'object' && bound !== null ? bound.port : port });
    });
  });
}

/** Connections that are kept alive would hold the end up, so they are cut. */
function stop(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.close((error) => (error === undefined ? resolve() : reject(error)));
    server.closeAllConnections();
  });
}

/** All who ask while an answer is being looked up get that answer. */
function sharedFlight<T>(start: () => Promise<T>): () => Promise<T> {
  let flight: Promise<T> | null = null;
  return () => {
    flight ??= start().finally(() => {
      flight = null;
    });
    return flight;
  };
}

interface Reply {
  readonly code: number;
  readonly text: string;
  readonly type: string;
}

function reply(code: number, body: object): Reply {
  return { code, text: `${JSON.stringify(body)}\n`, type: 'application/json; charset=utf-8' };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: StatusServerOptions,
): Promise<void> {
  const { code, text, type } = await replyTo(request, options);
  response.writeHead(code, {
    'content-type': type,
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
  });
  response.end(request.method === 'HEAD' ? undefined : text);
}

async function replyTo(request: IncomingMessage, options: StatusServerOptions): Promise<Reply> {
  const path = (request.url ?? '/').split('?')[0];
  if (path !== '/status' && path !== '/healthz' && path !== '/metrics') {
    return refusal(404, 'no such page', 'There are /status, /healthz and /metrics.');
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return refusal(405, 'only GET is served', `Use GET ${path}.`);
  }
  try {
    if (path === '/healthz') {
      const health = options.health();
      return reply(health.ok ? 200 : 503, health);
    }
    if (path === '/metrics') {
      return { code: 200, text: metricsText(options.figures()), type: metricsContentType };
    }
    return reply(200, await inTime(options.status(), options.answerWithinMs));
  } catch (error) {
    if (error instanceof UnderstudyError) return reply(503, { error: error.toJSON() });
    // What an unknown error says may hold a secret: it goes to the log, which takes secrets out.
    options.onError(error);
    const bug = new UnderstudyError('BUG', 'no status could be made', 'See the log of the agent.');
    return reply(500, { error: bug.toJSON() });
  }
}

function refusal(code: number, message: string, hint: string): Reply {
  return reply(code, { error: new UnderstudyError('USAGE', message, hint).toJSON() });
}

async function inTime<T>(promise: Promise<T>, withinMs = defaultAnswerWithinMs): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const hint = 'Ask again, or run `understudy status`.';
      reject(new UnderstudyError('TIMED_OUT', `no status within ${withinMs} ms`, hint));
    }, withinMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
