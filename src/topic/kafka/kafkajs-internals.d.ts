/**
 * Types of the parts of kafkajs 2.2.4 that are used below its public API: connections, metadata and
 * request queues. They exist because the public producer and consumer retry, roll sequences back
 * and reset offsets by themselves. The version is pinned exactly; nothing else may be imported from
 * inside the package.
 */
declare module 'kafkajs/src/cluster/index.js' {
  import type { Socket } from 'node:net';
  import type { ConnectionOptions } from 'node:tls';

  interface WireRequest {
    readonly apiKey: number;
    readonly apiVersion: number;
    readonly apiName: string;
    /** Resolves with what kafkajs takes for one of its encoders: both members are read. */
    readonly encode: () => Promise<{ readonly buf: Buffer; readonly buffer: Buffer }>;
  }

  interface ProtocolRequest<T> {
    readonly request: WireRequest;
    readonly response: {
      readonly decode: (payload: Buffer) => Promise<T>;
      readonly parse: (decoded: T) => Promise<T>;
    };
    readonly requestTimeout: number;
    readonly logResponseError: boolean;
  }

  interface Broker {
    readonly versions: Readonly<Record<number, { minVersion: number; maxVersion: number }>>;
    readonly connectionPool: { send<T>(request: ProtocolRequest<T>): Promise<T> };
  }

  interface PartitionMetadata {
    readonly partitionId: number;
    readonly leader: number;
  }

  export default class Cluster {
    constructor(options: {
      readonly logger: unknown;
      readonly socketFactory: (options: {
        readonly host: string;
        readonly port: number;
        readonly ssl: ConnectionOptions | null;
        readonly onConnect: () => void;
      }) => Socket;
      readonly brokers: readonly string[];
      readonly ssl: unknown;
      readonly sasl: unknown;
      readonly clientId: string;
      readonly connectionTimeout: number;
      readonly authenticationTimeout: number;
      readonly requestTimeout: number;
      readonly enforceRequestTimeout: boolean;
      readonly metadataMaxAge: number;
      readonly retry: Readonly<Record<string, number>>;
      readonly allowAutoTopicCreation: boolean;
      readonly maxInFlightRequests: number;
    });
    connect(): Promise<void>;
    disconnect(): Promise<void>;
    refreshMetadata(): Promise<void>;
    addTargetTopic(topic: string): Promise<void>;
    getNodeIds(): string[];
    findBroker(options: { readonly nodeId: string }): Promise<Broker>;
    findTopicPartitionMetadata(topic: string): readonly PartitionMetadata[];
  }
}

declare module 'kafkajs/src/loggers/index.js' {
  import type { logCreator } from 'kafkajs';

  const loggers: {
    createLogger(options: { readonly level: number; readonly logCreator: logCreator }): unknown;
  };
  export default loggers;
}

declare module 'kafkajs/src/network/requestQueue/index.js' {
  export default class RequestQueue {
    scheduleCheckPendingRequests(): void;
  }
}
