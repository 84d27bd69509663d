/**
 * TLS to Postgres: what a node's URL says of it and cannot be used (CONFIG_INVALID), and what to do
 * when a server's certificate is refused. Paths and hosts are named; they are no secrets.
 */
import { UnderstudyError } from './understudy-error.ts';

export function unknownSslMode(mode: string, known: readonly string[]): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `sslmode=${mode} in the URL of a node is not known`,
    `Use one of ${known.join(', ')}.`,
    undefined,
    { sslmode: mode },
  );
}

export function rootCertificateNeeded(mode: string): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `sslmode=${mode} in the URL of a node needs the certificate of the CA`,
    `Name its file: ?sslmode=${mode}&sslrootcert=/path/to/ca.pem, or use sslmode=verify-full.`,
    undefined,
    { sslmode: mode },
  );
}

/** `parameter` is sslrootcert, sslcert or sslkey; `code` is that of the system. */
export function tlsFileUnreadable(
  parameter: string,
  path: string,
  code: string,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `cannot read the file ${path}, which ${parameter} in the URL of a node names (${code})`,
    `Correct ${parameter} in the URL, or create the file and let this user read it.`,
    cause,
    { parameter, path },
  );
}

const notVerified: ReadonlySet<string> = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_UNTRUSTED',
  'CERT_SIGNATURE_FAILURE',
]);

/** The driver gives a server without TLS no code of its own. */
export const noTlsCode = 'NO_TLS';

/** Null where the code is not about TLS. */
export function tlsHint(host: string, code: string): string | null {
  if (notVerified.has(code)) {
    return (
      'Name the CA that signed its certificate, in the URL: ' +
      '?sslmode=verify-full&sslrootcert=/path/to/ca.pem.'
    );
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return (
      `Use in the URL a host that its certificate names, instead of ${host}, or verify the CA ` +
      'alone: ?sslmode=verify-ca&sslrootcert=/path/to/ca.pem.'
    );
  }
  if (code === 'CERT_HAS_EXPIRED') return 'Renew the certificate of that server.';
  if (code === noTlsCode) {
    return 'Set ssl = on for that server, or write sslmode=disable in the URL.';
  }
  return null;
}
