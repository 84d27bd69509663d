/**
 * The schema of one database is built in another from its dump alone, in a session as followers
 * have it: pg_dump prints the same of both. What a follower lacks is named.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Client } from 'pg';
import pg from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  dumpSchema,
  requireFittingDump,
  type SchemaDump,
} from '../../src/catalog/dump/schema-dump.ts';
import {
  decodeSchema,
  encodeSchema,
  type SchemaPayload,
} from '../../src/catalog/dump/schema-payload.ts';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import { readServer } from '../../src/catalog/read-catalog.ts';
import { installUnderstudySchema } from '../../src/catalog/understudy-schema.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  type BuildOptions,
  type BuildProgress,
  buildFromSchema,
  buildPostData,
  openBuild,
} from '../../src/follower/schema/schema-build.ts';
import { armGuard } from '../../src/follower/write-guard.ts';
import { type RichRoles, richSchema, wantedExtensions } from '../support/rich-schema.ts';
import { useStack } from '../support/stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const run = promisify(execFile);

const stack = await useStack({ postgres: 2 });
const check = await testWithDump(stack);
let roles: RichRoles;
const clients: pg.Client[] = [];
const databases: string[] = [];

test.before(async () => {
  roles = { owner: stack.uniqueName('Owner of "it" '), reader: stack.uniqueName('reader_') };
  for (const { superuserUrl } of stack.postgres) {
    await asSuperuser(
      superuserUrl,
      `CREATE ROLE ${sqlName(roles.owner)};
      CREATE ROLE ${sqlName(roles.reader)}`,
    );
  }
});

test.after(async () => {
  await Promise.all(clients.map((client) => client.end()));
  for (const { superuserUrl } of stack.postgres) {
    // Roles belong to the server, and cannot go while a database speaks of them.
    for (const name of databases) await asSuperuser(superuserUrl, `DROP DATABASE "${name}"`);
    await asSuperuser(superuserUrl, `DROP ROLE ${sqlName(roles.owner)}, ${sqlName(roles.reader)}`);
  }
  await stack.close();
});

function sqlName(name: string): string {
  return pg.escapeIdentifier(name);
}

async function asSuperuser(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

async function open(url: string): Promise<Client> {
  const client = await connectPostgres(url, { applicationName: 'understudy test', replica: true });
  clients.push(client);
  return client;
}

/** A follower as init leaves it before it has tables. */
async function openFollower(url: string): Promise<Client> {
  const client = await open(url);
  const name = { cluster: 'shop', name: 'b', streamId: 's', epoch: 1, startNumber: 0n };
  await installUnderstudySchema(client, { ...name, role: 'follower' });
  return client;
}

async function dumpOf(url: string): Promise<SchemaDump> {
  const client = await open(url);
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  const { rows } = await client.query<{ id: string }>('SELECT pg_export_snapshot() AS id');
  const { version } = await readServer(client);
  const snapshot = rows[0]?.id ?? '';
  return dumpSchema({ pgDump: 'pg_dump', url, node: 'a', snapshot, serverVersion: version });
}

/** As it travels: through the topic and back. */
function travelled(dump: SchemaDump): SchemaPayload {
  return decodeSchema(encodeSchema({ ...dump, relations: [] }));
}

/** All that pg_dump says of a database, but what is new in every dump. */
async function textOf(url: string): Promise<string> {
  const args = ['--schema-only', '--exclude-schema=understudy', `--dbname=${url}`];
  const { stdout } = await run('pg_dump', args, { maxBuffer: 64 * 1024 * 1024 });
  return stdout
    .replace(/^\\(un)?restrict .*$/gm, '')
    .replace(/^(CREATE|ALTER) EVENT TRIGGER understudy_[^;]*;$/gm, '')
    .replace(/^-- Name: understudy_.*$/gm, '')
    .replace(/^(--)?\n/gm, '');
}

interface Heard {
  readonly options: BuildOptions;
  readonly progress: BuildProgress[];
  readonly missing: string[];
  readonly notValid: string[];
}

function listening(more: Partial<BuildOptions> = {}): Heard {
  const progress: BuildProgress[] = [];
  const missing: string[] = [];
  const notValid: string[] = [];
  const options: BuildOptions = {
    node: 'b',
    onProgress: (one) => progress.push(one),
    onMissingRoles: (names) => missing.push(...names),
    onNotValid: (foreignKeys) => notValid.push(...foreignKeys),
    nowMs: Date.now,
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    ...more,
  };
  return { options, progress, missing, notValid };
}

async function richDatabases(): Promise<readonly [string, string]> {
  const [from = '', to = ''] = await stack.createDatabases('schema');
  databases.push(new URL(from).pathname.slice(1));
  const client = await open(from);
  const { rows } = await client.query<{ name: string }>(
    'SELECT name FROM pg_available_extensions WHERE name = ANY ($1) ORDER BY name',
    [wantedExtensions],
  );
  const quoted = { owner: roles.owner.replaceAll('"', '""'), reader: roles.reader };
  const extensions = rows.map(({ name }) => name);
  await client.query(richSchema(quoted, extensions));
  return [from, to];
}

for (const inOpenTransaction of [false, true]) {
  const how = inOpenTransaction ? 'in one transaction' : 'statement by statement';
  check(`what is built ${how} is what was dumped`, async () => {
    const [from, to] = await richDatabases();
    const schema = travelled(await dumpOf(from));
    const follower = await openFollower(to);
    const { options, progress, missing } = listening({ inOpenTransaction });
    if (inOpenTransaction) await follower.query('BEGIN');
    await buildFromSchema(follower, schema, 'pre-data', options);
    const before = await openBuild(follower);
    assert.is(before?.phase, 'post-data');
    assert.is(before?.done, 0);
    assert.ok((before?.total ?? 0) > 10);
    // The agent finds it guarded, and continues by what its database holds.
    if (!inOpenTransaction) await armGuard(follower);
    await buildPostData(follower, options);
    if (inOpenTransaction) await follower.query('COMMIT');
    assert.is(await openBuild(follower), null);
    assert.equal(missing, []);
    const last = progress[progress.length - 1];
    assert.equal(last, { phase: 'post-data', done: before?.total, total: before?.total });
    const guardLines = /^(CREATE TRIGGER understudy_guard|ALTER TABLE .*understudy_guard).*\n/gm;
    const built = (await textOf(to)).replace(guardLines, '').replace(/^-- Name: .*guard.*\n/gm, '');
    const wanted = await textOf(from);
    for (const kind of ['TYPE', 'POLICY', 'RULE', 'AGGREGATE', 'TRIGGER', 'MATERIALIZED VIEW']) {
      assert.ok(wanted.includes(`\nCREATE ${kind} `), `a schema without a ${kind} is not rich`);
    }
    assert.fixture(built, wanted);
  });
}

/** A payload of one statement, on a follower of its own. */
async function follower(...preData: readonly string[]): Promise<readonly [Client, SchemaPayload]> {
  const [, to = ''] = await stack.createDatabases('schema');
  return [await openFollower(to), { serverVersion: 150000, preData, postData: [], relations: [] }];
}

async function refusal(client: Client, schema: SchemaPayload): Promise<UnderstudyError> {
  try {
    await buildFromSchema(client, schema, 'pre-data', listening().options);
  } catch (error) {
    if (error instanceof UnderstudyError) return error;
    throw error;
  }
  throw new Error('it was built');
}

test('an extension that the server lacks is named; then the build continues', async () => {
  const wanted = 'CREATE EXTENSION IF NOT EXISTS no_such_thing WITH SCHEMA public';
  const [client, schema] = await follower('CREATE TABLE public.t (id int)', wanted);
  const { code, message, hint } = await refusal(client, schema);
  assert.is(code, 'SCHEMA_BUILD_FAILED');
  assert.match(message, /node b refuses CREATE EXTENSION IF NOT EXISTS no_such_thing/);
  assert.match(hint, /postgresql-contrib.*no_such_thing/);
  assert.equal(await openBuild(client), { phase: 'pre-data', done: 1, total: 2, refused: [] });
  // As if it had been installed: the table that is there already is not created a second time.
  await client.query(`UPDATE understudy.schema_build SET statement = 'SELECT 1' WHERE ordinal = 1`);
  const installed = { ...schema, preData: [schema.preData[0] ?? '', 'SELECT 1'] };
  await buildFromSchema(client, installed, 'pre-data', listening().options);
  assert.is(await openBuild(client), null);
});

test('of a role that is missing, owners and privileges are left out, a policy is not', async () => {
  const [client, schema] = await follower(
    'CREATE TABLE public.t (id int)',
    'ALTER TABLE public.t OWNER TO "nobody; here"',
    'GRANT SELECT ON TABLE public.t TO nobody_else',
    'SET SESSION AUTHORIZATION "nobody; here"',
    'GRANT SELECT ON TABLE public.t TO nobody_else',
    'RESET SESSION AUTHORIZATION',
    'GRANT SELECT ON TABLE public.t TO PUBLIC',
  );
  const { options, missing } = listening();
  await buildFromSchema(client, schema, 'pre-data', options);
  assert.equal(missing, ['nobody; here', 'nobody_else']);
  const [other, policies] = await follower(
    'CREATE TABLE public.t (id int)',
    'CREATE POLICY p ON public.t TO nobody_else USING (true)',
  );
  const { message, hint } = await refusal(other, policies);
  assert.match(message, /CREATE POLICY p ON public\.t TO nobody_else USING: .*nobody_else/);
  assert.match(hint, /Create what is missing on the server of node b/);
});

test('a privilege that fails for another reason is no missing role', async () => {
  const [client, schema] = await follower('GRANT USAGE ON TYPE public.no_such_type TO PUBLIC');
  const { message } = await refusal(client, schema);
  assert.match(message, /no_such_type/);
});

test('another schema than the one that was begun is refused', async () => {
  const [client, schema] = await follower('CREATE TABLE public.t (id int)');
  await buildFromSchema(client, schema, 'pre-data', listening().options);
  const other = { ...schema, preData: ['CREATE TABLE public.u (id int)'] };
  assert.match((await refusal(client, other)).message, /has begun to build another schema/);
});

check('a pg_dump that is older than the server is refused, a newer one is not', async () => {
  await requireFittingDump('pg_dump', 90_000);
  await requireFittingDump('pg_dump', 990_000).then(
    () => assert.unreachable('version 99 is not out yet'),
    (error: unknown) => {
      assert.instance(error, UnderstudyError);
      assert.match(
        (error as UnderstudyError).message,
        /has version \d+, the server has version 99/,
      );
      assert.match((error as UnderstudyError).hint, /PostgreSQL 99 or newer.*pgDump.*ddl: manual/);
    },
  );
});

check('no error shows a password', async () => {
  const [from = ''] = await stack.createDatabases('schema');
  const client = await open(from);
  const { version } = await readServer(client);
  const url = new URL(from);
  url.password = 'not%20the%20pass%3Bword';
  const options = { pgDump: 'pg_dump', node: 'a', snapshot: 'no-such', serverVersion: version };
  for (const wrong of [from, url.href]) {
    const failed = await dumpSchema({ ...options, url: wrong }).then(
      () => null,
      (error: unknown) => error,
    );
    assert.instance(failed, UnderstudyError);
    const shown = JSON.stringify(failed) + String((failed as UnderstudyError).stack);
    assert.match(shown, /SCHEMA_DUMP_FAILED/);
    assert.not.match(shown, /not the pass|not%20the/);
  }
});

test.run();
