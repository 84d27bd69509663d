/**
 * The HTTP server of `run --http`: GET /status answers with the JSON of `status`, GET /livez and
 * GET /readyz with 200 or 503, GET /metrics with the figures of the agents, any other path with
 * 404. Every answer comes within a bound, and concurrent requests share one read of the status. The
 * server binds to this machine unless another address is named, and answers no request that was
 * sent to the name of another site.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { statusFailed } from '../errors/bug.ts';
import { cannotListen } from '../errors/prerequisite.ts';
import { statusTimeout } from '../errors/timed-out.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import { invalidListenAddress, unusableRequest } from '../errors/usage.ts';
import { withTimeout } from '../waiting.ts';
import { isHostServed } from './host-header.ts';
import { metricsContentType, metricsText, type NodeFigures } from './metrics.ts';
import type { Readiness } from './readiness.ts';

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
  /** The object that GET /livez shows; it must be cheap, monitoring polls it often. */
  readonly health: () => Health;
  /** The object that GET /readyz shows; as cheap. */
  readonly readiness: () => Readiness;
  /** The figures that GET /metrics shows, one for each node; as cheap. */
  readonly figures: () => readonly NodeFigures[];
  /** Receives failures that the answer does not describe, for the log. */
  readonly onError: (error: unknown) => void;
  readonly answerWithinMs?: number;
}

export interface StatusServer {
  /** Where it listens, with the port the system chose. */
  readonly address: ListenAddress;
  stop(): Promise<void>;
}

/** Monitoring gives up after 10 s as a rule; before that it should receive an error. */
const defaultAnswerWithinMs = 5000;
/** No request has a body or long headers. */
const requestTimeoutMs = 10_000;
/** Only monitoring and people connect; more is a mistake or an attack. */
const maxConnections = 64;

/** /healthz is the former name of /livez. */
const paths: ReadonlySet<string> = new Set([
  '/status',
  '/livez',
  '/readyz',
  '/healthz',
  '/metrics',
]);

const loopback = '127.0.0.1';

/** Parses `8080`, `:8080`, `host:8080` and `[::1]:8080`. A port alone is of this machine only. */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[^\s:[\]/@]*):)?([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) {
    throw invalidListenAddress(text);
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
      reject(cannotListen(`${host}:${port}`, cause.code ?? 'unknown reason', cause));
    };
    server.once('error', onError);
    server.listen({ host, port }, () => {
      server.off('error', onError);
      const bound = server.address();
      resolve({ host, port: typeof bound === 'object' && bound !== null ? bound.port : port });
    });
  });
}

/** Connections that are kept alive would delay the end, so they are closed. */
function stop(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.close((error) => (error === undefined ? resolve() : reject(error)));
    server.closeAllConnections();
  });
}

/** Callers that come while an answer is being made get that answer. */
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
  if (!isHostServed(request.headers.host, options.listen.host)) {
    const hint =
      'Use its address, or name the host in --http: `understudy run <node> --http host:port`.';
    return refusal(421, 'the request names a host that this server does not serve', hint);
  }
  if (path === undefined || !paths.has(path)) {
    return refusal(404, 'no such page', 'There are /status, /livez, /readyz and /metrics.');
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return refusal(405, 'only GET is served', `Use GET ${path}.`);
  }
  try {
    if (path === '/livez' || path === '/healthz') {
      const health = options.health();
      return reply(health.ok ? 200 : 503, health);
    }
    if (path === '/readyz') {
      const readiness = options.readiness();
      return reply(readiness.ready ? 200 : 503, readiness);
    }
    if (path === '/metrics') {
      return { code: 200, text: metricsText(options.figures()), type: metricsContentType };
    }
    return reply(200, await inTime(options.status(), options.answerWithinMs));
  } catch (error) {
    if (error instanceof UnderstudyError) return reply(503, { error: error.toJSON() });
    // The text of an unknown error may hold a secret: it goes to the log, which redacts it.
    options.onError(error);
    return reply(500, { error: statusFailed().toJSON() });
  }
}

function refusal(code: number, message: string, hint: string): Reply {
  return reply(code, { error: unusableRequest(message, hint).toJSON() });
}

function inTime<T>(promise: Promise<T>, withinMs = defaultAnswerWithinMs): Promise<T> {
  return withTimeout(promise, withinMs, () => statusTimeout(withinMs));
}
