/**
 * Finds free TCP ports on 127.0.0.1, all different. They are below the ranges that Linux and macOS
 * use for outgoing connections: otherwise a restarted server would sometimes find its port in use
 * by a client. Another process can still bind one before its server starts; the start is then
 * retried with another port.
 */
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

const firstPort = 15_000;
/** Linux uses 32768 and up for outgoing connections, macOS 49152 and up. */
const endPort = 32_000;
/** A machine on which 200 random ports of 17,000 are in use has another problem. */
const triesMax = 200;

export async function freePorts(count: number): Promise<readonly number[]> {
  const found = new Set<number>();
  for (let tries = 0; found.size < count; tries += 1) {
    if (tries === triesMax) {
      throw new UnderstudyError(
        'PREREQUISITE',
        `no free TCP port on 127.0.0.1 between ${firstPort} and ${endPort}`,
        'Stop servers that are no longer needed (`ss -ltnp` lists them).',
      );
    }
    const port = randomInt(firstPort, endPort);
    if (!found.has(port) && (await canBind(port))) found.add(port);
  }
  return [...found];
}

function canBind(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      server.close(() => resolve(true));
    });
  });
}
