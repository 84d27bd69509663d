/**
 * TLS to Postgres has the meaning that it has in libpq, against a server whose certificate is its
 * own CA and names the host localhost alone. What cannot be used says which parameter, file or mode
 * it is, and nothing is written to stderr. Tests run in order: the server has no TLS at first.
 */
import { execFileSync } from 'node:child_process';
import { chownSync, copyFileSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { cleanUp } from '../support/clean-up.ts';
import { type OwnServer, ownServer } from '../support/stack.ts';

const directory = mkdtempSync(join(tmpdir(), 'understudy-tls-'));
const warnings: Error[] = [];
const onWarning = (warning: Error): void => void warnings.push(warning);
let own: OwnServer;

function certificate(name: string): string {
  const file = join(directory, `${name}.crt`);
  const key = join(directory, `${name}.key`);
  const what = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost'];
  const made = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2'];
  execFileSync('openssl', [...made, ...what, '-keyout', key, '-out', file], { stdio: 'ignore' });
  return file;
}

test.before(async () => {
  process.on('warning', onWarning);
  own = await ownServer();
});

test.after(async () => {
  process.off('warning', onWarning);
  await own.close();
  await cleanUp('the certificates', async () => rmSync(directory, { recursive: true }));
});

/** Whether the session was encrypted. */
async function encrypted(parameters: string, host = '127.0.0.1'): Promise<boolean> {
  const url = `${own.server.url().replace('127.0.0.1', host)}?${parameters}`;
  const client = await connectPostgres(url, { applicationName: 'understudy test tls' });
  try {
    const { rows } = await client.query<{ ssl: string }>(
      'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
    );
    return rows[0]?.ssl === 't';
  } finally {
    await client.end();
  }
}

async function refused(parameters: string, message: RegExp, hint: RegExp): Promise<string> {
  try {
    await encrypted(parameters);
  } catch (error) {
    assert.instance(error, UnderstudyError, String(error));
    const refusal = error as UnderstudyError;
    assert.match(refusal.message, message);
    assert.match(refusal.hint, hint);
    return refusal.code;
  }
  return assert.unreachable(`${parameters} was accepted`) as never;
}

test('a server without TLS is named as the reason', async () => {
  const noTls = /does not support SSL/;
  assert.is(await refused('sslmode=require', noTls, /ssl = on/), 'POSTGRES_UNREACHABLE');
});

test('the modes verify what they verify in libpq', async () => {
  const { dataDir } = own.server;
  const { uid, gid } = statSync(dataDir);
  const root = certificate('server');
  for (const kind of ['crt', 'key']) {
    const file = join(dataDir, `server.${kind}`);
    copyFileSync(join(directory, `server.${kind}`), file);
    chownSync(file, uid, gid);
  }
  await own.server.configure({ ssl: 'on' });
  const other = certificate('other');

  assert.is(await encrypted('sslmode=disable'), false);
  assert.is(await encrypted('sslmode=require'), true);
  assert.is(await encrypted('sslmode=no-verify'), true);
  assert.is(await encrypted(`sslmode=require&sslrootcert=${root}`), true);
  assert.is(await encrypted(`sslmode=verify-ca&sslrootcert=${root}`), true);
  assert.is(await encrypted(`sslmode=verify-full&sslrootcert=${root}`, 'localhost'), true);

  const namesRoot = /sslrootcert=/;
  for (const parameters of [
    'sslmode=verify-full',
    'sslmode=verify-full&sslrootcert=system',
    `sslmode=verify-full&sslrootcert=${other}`,
    `sslmode=verify-ca&sslrootcert=${other}`,
    `sslmode=require&sslrootcert=${other}`,
  ]) {
    const code = await refused(parameters, /certificate/, namesRoot);
    assert.is(code, 'POSTGRES_UNREACHABLE', parameters);
  }
  await refused(`sslmode=verify-full&sslrootcert=${root}`, /altnames/, /sslmode=verify-ca/);
  assert.equal(warnings, []);
});

test('what cannot be used is named before a connection is tried', async () => {
  const missing = join(directory, 'missing.pem');
  const named = new RegExp(`${missing}.*sslrootcert.*ENOENT`);
  const parameters = `sslmode=verify-full&sslrootcert=${missing}`;
  assert.is(await refused(parameters, named, /create the file/), 'CONFIG_INVALID');
  await refused(`sslmode=require&sslkey=${missing}`, /sslkey/, /sslkey/);
  await refused('sslmode=verify-ca', /needs the certificate of the CA/, /sslrootcert=/);
  await refused('sslmode=allow', /sslmode=allow .* not known/, /verify-full/);
});

test.run();
