/**
 * Free TCP ports on 127.0.0.1. Flows in: how many. Flows out: ports that could be bound a moment
 * ago, all different. They lie below the ranges from which Linux and macOS take the ports of
 * outgoing connections: a server that is killed and started again would else now and then find its
 * port held by some client. Another process can still take one in between; starters try again then.
 */
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

const firstPort = 15_000;
/** Linux hands out 32768 and up to outgoing connections, macOS 49152 and up. */
const endPort = 32_000;
/** A machine on which 200 random ports of 17,000 are taken has another problem. */
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
