/**
 * The environment in which a program that uses libpq connects to the server of a node's URL as our
 * own sessions do: the same address and login, TLS as strict. It is derived from the URL and from
 * the environment of this process. None of it is in the program's arguments, which every user of
 * the machine can read.
 */
import { readFile } from 'node:fs/promises';
import { rootCertificates } from 'node:tls';
import { Client } from 'pg';
import { sessionConfig } from '../postgres-session.ts';
import { systemRoots } from '../tls-parameters.ts';

interface LibpqEnvironment {
  readonly env: Readonly<Record<string, string>>;
  /**
   * The certificates that Node trusts, where the URL names none: libpq trusts none by itself. The
   * caller writes them to a file and sets PGSSLROOTCERT to it.
   */
  readonly rootCertificates: string | null;
}

/** Node's defaults for a URL that leaves them out are libpq's too, but for these. */
const keptVariables = ['PGPASSFILE'];

type Tls = boolean | { rejectUnauthorized?: boolean; checkServerIdentity?: unknown };

export async function libpqEnvironment(
  url: string,
  applicationName: string,
  own: Readonly<Record<string, string | undefined>>,
): Promise<LibpqEnvironment> {
  const client = new Client(sessionConfig(url, { applicationName }));
  const tls = (client as unknown as { ssl: Tls }).ssl;
  const parameters = parametersOf(url);
  const named = parameters.get('sslrootcert');
  const rootFile = named === systemRoots ? null : named;
  const isVerified = tls === true || (tls !== false && tls.rejectUnauthorized !== false);
  const given: Record<string, string | null | undefined> = {
    PGHOST: client.host,
    PGPORT: String(client.port),
    PGUSER: client.user,
    PGDATABASE: client.database,
    PGPASSWORD: client.password,
    PGOPTIONS: parameters.get('options'),
    PGSSLMODE: sslMode(tls),
    PGSSLROOTCERT: isVerified ? rootFile : null,
    PGSSLCERT: parameters.get('sslcert'),
    PGSSLKEY: parameters.get('sslkey'),
    PGSSLNEGOTIATION: parameters.get('sslnegotiation'),
    PGAPPNAME: applicationName,
    PGCLIENTENCODING: 'UTF8',
  };
  const env = { ...withoutLibpq(own), ...withoutAbsent(given) };
  const isTrustedByNode = isVerified && rootFile === null;
  return { env, rootCertificates: isTrustedByNode ? await trustedByNode(own) : null };
}

function parametersOf(url: string): URLSearchParams {
  const mark = url.indexOf('?');
  return new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1));
}

/** As the driver reads the URL. */
function sslMode(tls: Tls): string {
  if (tls === false) return 'disable';
  if (tls === true) return 'verify-full';
  if (tls.rejectUnauthorized === false) return 'require';
  return tls.checkServerIdentity === undefined ? 'verify-full' : 'verify-ca';
}

/** Variables for another server in this environment must not be combined with the URL. */
function withoutLibpq(own: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const kept = Object.entries(own).filter(([name]) => {
    return !name.startsWith('PG') || keptVariables.includes(name);
  });
  return withoutAbsent(Object.fromEntries(kept));
}

function withoutAbsent(
  values: Readonly<Record<string, string | null | undefined>>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).filter((entry): entry is [string, string] => {
      return entry[1] !== null && entry[1] !== undefined && entry[1] !== '';
    }),
  );
}

async function trustedByNode(own: Readonly<Record<string, string | undefined>>): Promise<string> {
  const extra = own['NODE_EXTRA_CA_CERTS'] ?? '';
  const more = extra === '' ? '' : await readFile(extra, 'utf8');
  return [...rootCertificates, more].join('\n');
}
