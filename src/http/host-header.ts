/**
 * Which Host a request to the HTTP server may name. A page of another site can have its own name
 * resolve to this machine and then read what is served here (DNS rebinding); its requests carry
 * that name. Accepted are the names of the loopback interface, the address that was configured, and
 * IP addresses where the server listens on all of them: no other site has an address as its name.
 * Pure.
 */
import { isIP } from 'node:net';

const wildcards: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** `header` is undefined in HTTP/1.0 alone, which no browser speaks. */
export function isHostServed(header: string | undefined, listenHost: string): boolean {
  if (header === undefined) return true;
  const host = nameOf(header);
  if (host === null) return false;
  if (host === listenHost.toLowerCase() || isLoopback(host)) return true;
  return wildcards.has(listenHost) && isIP(host) !== 0;
}

/** Without the port and the brackets of an IPv6 address; null where it is malformed. */
function nameOf(header: string): string | null {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^\s:@/[\]]+))(?::[0-9]{1,5})?$/.exec(header.toLowerCase());
  return match === null ? null : (match[1] ?? match[2] ?? null);
}

function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true;
  return isIP(host) === 4 && host.startsWith('127.');
}
