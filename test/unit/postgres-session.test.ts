/**
 * How a URL becomes a session: what is shown of it, which never is a password, and what it may not
 * change about a session of ours.
 */

import { Client } from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  connectPostgres,
  qualifiedName,
  redactUrl,
  sessionConfig,
} from '../../src/catalog/postgres-session.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

test('no password is shown, in malformed URLs neither', () => {
  assert.is(redactUrl('postgres://u:secret@h:5432/d'), 'postgres://u:***@h:5432/d');
  assert.is(
    redactUrl('postgres://u@h/d?sslmode=verify-full'),
    'postgres://u@h/d?sslmode=verify-full',
  );
  const malformed = [
    'postgres://u:sec/ret@h/d',
    'postgres://u:sec@ret@h/d',
    'postgresql://:secret@h/d',
    'postgres://h/d?user=u&password=secret&port=1',
    'postgres://h/d?sslpassword=secret',
  ];
  for (const url of malformed) assert.not.match(redactUrl(url), /sec|ret/, url);
});

test('the URL does not change the settings', () => {
  const url = 'postgres://u:p@h:1/d?options=-c%20geqo%3Doff&statement_timeout=5&application_name=x';
  const config = sessionConfig(url, { applicationName: 'understudy', replica: true });
  const client = new Client(config) as unknown as { getStartupConf(): Record<string, string> };
  const startup = client.getStartupConf();
  assert.is(startup.application_name, 'understudy');
  assert.is(startup.statement_timeout, undefined);
  assert.match(startup.options ?? '', /^-c geqo=off -c client_encoding=UTF8 /);
  assert.match(startup.options ?? '', / -c session_replication_role=replica$/);
  assert.match(startup.options ?? '', / -c default_transaction_isolation=read\\ committed /);
});

test('identifiers are quoted', () => {
  assert.is(qualifiedName('a"b', 'C d'), '"a""b"."C d"');
});

test('a server that is not there is named without the password', async () => {
  try {
    await connectPostgres('postgres://u:secret@127.0.0.1:1/d', { applicationName: 'test' });
    assert.unreachable();
  } catch (error) {
    assert.instance(error, UnderstudyError);
    const { code, message, hint } = error as UnderstudyError;
    assert.is(code, 'POSTGRES_UNREACHABLE');
    assert.match(message, /^cannot connect to 127\.0\.0\.1:1\/d as u: connect ECONNREFUSED/);
    assert.is(hint, 'Start Postgres at 127.0.0.1:1, or correct the URL.');
    assert.not.match(message + hint, /secret/);
  }
});

test('a malformed URL is refused without the password', async () => {
  try {
    await connectPostgres('postgres://u:secret@h:port/d', { applicationName: 'test' });
    assert.unreachable();
  } catch (error) {
    assert.is((error as UnderstudyError).code, 'CONFIG_INVALID');
    assert.not.match(String(error), /secret/);
  }
});

test.run();
