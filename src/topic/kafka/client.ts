/**
 * Connections to the brokers, each with sockets of its own: closing one ends its waits at once and
 * touches no other. kafkajs connects, negotiates TLS, logs in and reads metadata; requests are
 * ours, and each is sent exactly once: the caller knows what a request does, and decides whether to
 * retry it.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { Kafka, type KafkaConfig, type LogEntry, logLevel, type SASLOptions } from 'kafkajs';
import Cluster from 'kafkajs/src/cluster/index.js';
import loggers from 'kafkajs/src/loggers/index.js';
import { kafkaTimedOut } from '../../errors/unreachable.ts';
import type { Logger } from '../../logger.ts';
import { type Clock, systemClock, withTimeout } from '../../waiting.ts';
import {
  ClosedError,
  type ErrorContext,
  explain,
  isConnectionLost,
  KafkaAnswerError,
} from './errors.ts';
import { quietIdleTimers } from './kafkajs-timers.ts';
import type { KafkaRequest } from './wire.ts';

export interface KafkaSettings {
  readonly brokers: readonly string[];
  readonly ssl?: boolean | ConnectionOptions;
  readonly sasl?: SASLOptions;
  readonly clientId: string;
}

/** What a client logs: what it retries, and at warn what it cannot do. */
type KafkaLog = Pick<Logger, 'debug' | 'warn'>;

/** A broker that is up answers a SYN within milliseconds; this leaves room for a lost packet. */
const connectTimeoutMs = 5_000;
const loginTimeoutMs = 10_000;
/** Requests of kafkajs itself: metadata and versions. Ours carry their own. */
const metadataTimeoutMs = 15_000;
/** Metadata is also refreshed when a leader moved, so age alone is no reason to refresh often. */
const metadataAgeMs = 300_000;
const keepAliveMs = 60_000;
/** Connecting goes through the list of brokers; fewer rounds than this would miss a late one. */
const connectRoundsMin = 2;

/** Settings that every connection and the admin client share. */
function kafkajsOptions(settings: KafkaSettings, log: KafkaLog) {
  return {
    brokers: [...settings.brokers],
    clientId: settings.clientId,
    ssl: settings.ssl === true ? {} : settings.ssl === false ? null : (settings.ssl ?? null),
    sasl: settings.sasl ?? null,
    connectionTimeout: connectTimeoutMs,
    authenticationTimeout: loginTimeoutMs,
    requestTimeout: metadataTimeoutMs,
    enforceRequestTimeout: true,
    retry: {
      initialRetryTime: 50,
      maxRetryTime: 1_000,
      factor: 0.2,
      multiplier: 2,
      retries: Math.max(connectRoundsMin, settings.brokers.length),
    },
    logLevel: logLevel.INFO,
    // kafkajs logs an error for what it retries a moment later: all its lines go to debug, and
    // what does fail is thrown as an error of ours.
    logCreator:
      () =>
      ({ namespace, log: { message, timestamp: _, ...fields } }: LogEntry) =>
        log.debug({ ...fields, namespace }, message),
  };
}

/** One set of sockets to the brokers, for one topic. */
export class TopicConnection {
  readonly topic: string;
  readonly #cluster: Cluster;
  readonly #sockets = new Set<Socket>();
  #closed: ClosedError | null = null;

  constructor(settings: KafkaSettings, log: KafkaLog, topic: string) {
    this.topic = topic;
    const { logCreator, logLevel: level, ...options } = kafkajsOptions(settings, log);
    this.#cluster = new Cluster({
      ...options,
      logger: loggers.createLogger({ level, logCreator }),
      socketFactory: (target) => this.#openSocket(target),
      metadataMaxAge: metadataAgeMs,
      allowAutoTopicCreation: false,
      maxInFlightRequests: 1,
    });
  }

  /** Resolves when a broker accepted the login. */
  async connect(): Promise<void> {
    await this.#cluster.connect();
  }

  /** Connects and reads which brokers lead the partitions of the topic. */
  async open(): Promise<void> {
    await this.#cluster.connect();
    await this.#cluster.addTargetTopic(this.topic);
  }

  async refreshMetadata(): Promise<void> {
    await this.#cluster.refreshMetadata();
  }

  /** Node ids of leaders by partition, as last learned. */
  leaders(): ReadonlyMap<number, number> {
    const leaders = new Map<number, number>();
    for (const { partitionId, leader } of this.#cluster.findTopicPartitionMetadata(this.topic)) {
      leaders.set(partitionId, leader);
    }
    return leaders;
  }

  /** Sends once, connecting first where the broker closed an idle connection. */
  async request<T>(nodeId: number, request: KafkaRequest<T>): Promise<T> {
    if (this.#closed !== null) throw this.#closed;
    const broker = await this.#cluster.findBroker({ nodeId: String(nodeId) });
    const range = broker.versions[request.apiKey];
    const { apiKey, apiVersion, apiName, body } = request;
    if (range === undefined || apiVersion < range.minVersion || apiVersion > range.maxVersion) {
      throw new KafkaAnswerError(unsupportedVersion, apiName);
    }
    return broker.connectionPool.send<T>({
      request: { apiKey, apiVersion, apiName, encode: async () => ({ buf: body, buffer: body }) },
      response: {
        decode: async (payload) => request.decode(payload),
        parse: async (value) => value,
      },
      requestTimeout: request.timeoutMs,
      logResponseError: false,
    });
  }

  /** Sends to one broker after the other until one answers, for what every broker knows. */
  async requestAny<T>(request: KafkaRequest<T>): Promise<T> {
    let failure: unknown = new Error('no broker is known');
    for (const nodeId of this.#cluster.getNodeIds()) {
      try {
        return await this.request(Number(nodeId), request);
      } catch (error) {
        if (!isConnectionLost(error)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /** Closes all sockets now; every wait for an answer rejects. */
  close(): void {
    if (this.#closed !== null) return;
    this.#closed = new ClosedError(`the connection to ${this.topic}`);
    for (const socket of this.#sockets) socket.destroy(this.#closed);
  }

  #openSocket(target: {
    readonly host: string;
    readonly port: number;
    readonly ssl: ConnectionOptions | null;
    readonly onConnect: () => void;
  }): Socket {
    if (this.#closed !== null) throw this.#closed;
    const { host, port, ssl, onConnect } = target;
    const servername = isIP(host) ? {} : { servername: host };
    const socket =
      ssl === null
        ? connectTcp({ host, port }, onConnect)
        : connectTls({ host, port, ...servername, ...ssl }, onConnect);
    socket.setKeepAlive(true, keepAliveMs);
    socket.setNoDelay(true);
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    return socket;
  }
}

const unsupportedVersion = 35;

/** What producers, readers and the admin functions take. */
export interface KafkaClient {
  readonly brokers: readonly string[];
  readonly log: KafkaLog;
  readonly clock: Clock;
  /** A new set of connections; nothing is connected before its open(). */
  connection(topic: string): TopicConnection;
  /** kafkajs with the same settings, for its admin client. */
  readonly kafkajs: Kafka;
  explain(error: unknown, context: Omit<ErrorContext, 'brokers'>): Error;
}

/** The client connects lazily. `probeKafka` checks whether brokers answer. */
export function connectKafka(
  settings: KafkaSettings,
  log: KafkaLog,
  clock: Clock = systemClock,
): KafkaClient {
  if (!quietIdleTimers()) {
    log.warn({}, 'unknown version of kafkajs: its idle timers are not replaced');
  }
  const { ssl, sasl, ...options } = kafkajsOptions(settings, log);
  const config = { ...options, ...(ssl && { ssl }), ...(sasl && { sasl }) } satisfies KafkaConfig;
  return {
    brokers: settings.brokers,
    log,
    clock,
    connection: (topic) => new TopicConnection(settings, log, topic),
    kafkajs: new Kafka(config),
    explain: (error, context) => explain(error, { ...context, brokers: settings.brokers }),
  };
}

/** Resolves when a broker accepts the login, else rejects with KAFKA_UNREACHABLE. */
export async function probeKafka(client: KafkaClient, withinMs: number): Promise<void> {
  const connection = client.connection('the probe');
  try {
    await withTimeout(connection.connect(), withinMs, () =>
      kafkaTimedOut(client.brokers, withinMs),
    );
  } catch (error) {
    throw client.explain(error, { action: 'connect', topic: null, transactionalId: null });
  } finally {
    connection.close();
  }
}
