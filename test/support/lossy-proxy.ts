/**
 * A way to one Kafka broker on which answers get lost. Flows in: the broker's address and, at any
 * time, the API key whose next answer is lost. Flows out: an address that a client uses instead;
 * what brokers say of their own address is rewritten, so that all connections lead through here. A
 * lost answer was processed by the broker: its connection breaks before the answer is delivered.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export const apiKeys = { produce: 0, fetch: 1, addPartitions: 24, endTransaction: 26 } as const;

const rewritten = new Set([3, 10]);

export interface LossyProxy {
  readonly address: string;
  /** The next answer to this API is not delivered. */
  loseNext(apiKey: number): void;
  close(): Promise<void>;
}

export async function startLossyProxy(broker: string): Promise<LossyProxy> {
  const colon = broker.lastIndexOf(':');
  const target = { host: broker.slice(0, colon), port: Number(broker.slice(colon + 1)) };
  const lost = new Set<number>();
  const sockets = new Set<Socket>();
  const server: Server = createServer((client) => {
    const upstream = connect(target);
    const apiKeyOf = new Map<number, number>();
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    onFrames(client, (frame) => {
      apiKeyOf.set(frame.readInt32BE(8), frame.readInt16BE(4));
      upstream.write(frame);
    });
    onFrames(upstream, (frame) => {
      const apiKey = apiKeyOf.get(frame.readInt32BE(4)) ?? -1;
      if (lost.delete(apiKey)) {
        client.destroy();
        return;
      }
      const { port } = server.address() as AddressInfo;
      client.write(rewritten.has(apiKey) ? withPort(frame, target, port) : frame);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    address: `127.0.0.1:${port}`,
    loseNext: (apiKey) => lost.add(apiKey),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/** Calls back with whole frames, their length included. */
function onFrames(socket: Socket, take: (frame: Buffer) => void): void {
  let waiting = Buffer.alloc(0);
  socket.on('data', (bytes) => {
    waiting = Buffer.concat([waiting, bytes]);
    while (waiting.length >= 4 && waiting.length >= 4 + waiting.readInt32BE(0)) {
      const end = 4 + waiting.readInt32BE(0);
      take(waiting.subarray(0, end));
      waiting = waiting.subarray(end);
    }
  });
}

/** Puts another port behind the broker's host, wherever an answer names both. */
function withPort(frame: Buffer, from: { host: string; port: number }, port: number): Buffer {
  const named = Buffer.alloc(from.host.length + 4);
  named.write(from.host);
  named.writeInt32BE(from.port, from.host.length);
  const changed = Buffer.from(frame);
  for (let at = changed.indexOf(named); at >= 0; at = changed.indexOf(named, at + 1)) {
    changed.writeInt32BE(port, at + from.host.length);
  }
  return changed;
}
