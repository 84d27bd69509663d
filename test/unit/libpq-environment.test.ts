/**
 * A program of libpq goes where our own sessions go by the same URL, as strictly, and its password
 * is in its environment only.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { libpqEnvironment } from '../../src/catalog/dump/libpq-environment.ts';

const own = { PATH: '/bin', PGHOST: 'elsewhere', PGSSLMODE: 'disable', PGPASSFILE: '/pass' };

async function environmentOf(url: string): Promise<Readonly<Record<string, string>>> {
  const { env } = await libpqEnvironment(url, 'understudy a schema', own);
  return env;
}

test('address and login are those of the URL, not of the environment', async () => {
  const url = 'postgres://some%20one:p%40ss%2Fw%25rd@db.example:5433/my%20shop?options=-c%20a%3Db';
  assert.equal(await environmentOf(url), {
    PATH: '/bin',
    PGPASSFILE: '/pass',
    PGHOST: 'db.example',
    PGPORT: '5433',
    PGUSER: 'some one',
    PGPASSWORD: 'p@ss/w%rd',
    PGDATABASE: 'my shop',
    PGOPTIONS: '-c a=b',
    PGSSLMODE: 'disable',
    PGAPPNAME: 'understudy a schema',
    PGCLIENTENCODING: 'UTF8',
  });
});

test('a socket is an address too', async () => {
  const { PGHOST, PGDATABASE } = await environmentOf('postgres://u@%2Frun%2Fpostgresql/shop');
  assert.equal([PGHOST, PGDATABASE], ['/run/postgresql', 'shop']);
});

const root = new URL('../../package.json', import.meta.url).pathname;

for (const [parameters, mode, file, bringsRoots] of [
  ['', 'disable', undefined, false],
  ['?sslmode=disable', 'disable', undefined, false],
  ['?sslmode=no-verify', 'require', undefined, false],
  ['?sslmode=verify-full', 'verify-full', undefined, true],
  ['?ssl=true', 'verify-full', undefined, true],
  [`?sslmode=verify-full&sslrootcert=${root}`, 'verify-full', root, false],
  [`?sslmode=verify-ca&sslrootcert=${root}`, 'verify-ca', root, false],
  [`?sslmode=require&sslrootcert=${root}`, 'verify-ca', root, false],
  ['?sslmode=require', 'require', undefined, false],
  ['?sslmode=prefer', 'require', undefined, false],
  ['?sslmode=verify-full&sslrootcert=system', 'verify-full', undefined, true],
] as const) {
  test(`TLS is as strict as a session’s: ${parameters || 'none'}`, async () => {
    const url = `postgres://u:p@db.example/shop${parameters}`;
    const { env, rootCertificates } = await libpqEnvironment(url, 'x', own);
    assert.is(env['PGSSLMODE'], mode);
    assert.is(env['PGSSLROOTCERT'], file);
    assert.is(rootCertificates !== null, bringsRoots);
    if (bringsRoots) assert.match(rootCertificates ?? '', /-----BEGIN CERTIFICATE-----/);
  });
}

test.run();
