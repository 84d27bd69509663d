/**
 * The TLS parameters of a node's URL, with the meaning that they have in libpq: `require` encrypts
 * and verifies nothing unless a root certificate is named, `verify-ca` verifies the CA,
 * `verify-full` the host too. It takes the parameters of a URL and gives those that the driver
 * reads; a mode or a file that cannot be used is refused by name before a connection is tried.
 *
 * `prefer` and `allow` of libpq go on without TLS where the server has none. `prefer` does not do
 * that here, as the driver cannot, and `allow` is refused.
 */
import { accessSync, constants } from 'node:fs';
import { rootCertificateNeeded, tlsFileUnreadable, unknownSslMode } from '../errors/tls.ts';

/** `no-verify` is the driver's own: `require` that ignores a root certificate. */
const modes = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full', 'no-verify'] as const;

const files = ['sslrootcert', 'sslcert', 'sslkey'] as const;

/** Trusts the CAs of the system, as libpq from 16 on; the driver does so without a name. */
export const systemRoots = 'system';

export function withLibpqTls(given: URLSearchParams): URLSearchParams {
  const parameters = new URLSearchParams(given);
  const mode = parameters.get('sslmode');
  if (mode !== null && !modes.some((known) => known === mode)) throw unknownSslMode(mode, modes);
  if (parameters.get('sslrootcert') === systemRoots) {
    parameters.delete('sslrootcert');
    // In libpq no weaker mode goes with the CAs of the system: anybody can have a certificate.
    parameters.set('sslmode', 'verify-full');
  }
  if (mode === 'disable') for (const name of files) parameters.delete(name);
  for (const name of files) requireReadable(name, parameters.get(name));
  if (mode === 'verify-ca' && !parameters.get('sslrootcert')) {
    if (given.get('sslrootcert') !== systemRoots) throw rootCertificateNeeded(mode);
  }
  // Without it the driver takes require and verify-ca for verify-full, and warns of that.
  if (mode !== null && mode !== 'no-verify') parameters.set('uselibpqcompat', 'true');
  return parameters;
}

function requireReadable(parameter: string, path: string | null): void {
  if (path === null || path === '') return;
  try {
    accessSync(path, constants.R_OK);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
    throw tlsFileUnreadable(parameter, path, code, error);
  }
}
