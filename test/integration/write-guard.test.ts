/**
 * The write guard on a real server: no ordinary session writes a row or a table past it, whatever
 * it had open before, and sessions of the agent do. Each way round it that was ever found is a test
 * here. Tests run in order, in one database; the last one removes the guard.
 */

import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Client } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import { installUnderstudySchema } from '../../src/catalog/understudy-schema.ts';
import type { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { armGuard, disarmGuard, guardState, removeGuard } from '../../src/follower/write-guard.ts';
import { createDatabaseOn, type OwnServer, ownServer } from '../support/stack.ts';

/** Of its own: a transaction that is held, or prepared, holds up every slot of its server. */
let server: OwnServer;
let url: string;
let own: Client;
let second: Client;
/** An ordinary session that was there before the guard and keeps its settings. */
let user: Client;

const replica = { applicationName: 'understudy test', replica: true };
const ordinary = { applicationName: 'application' };

test.before(async () => {
  server = await ownServer();
  url = await createDatabaseOn(server.server, 'guard');
  own = await connectPostgres(url, replica);
  second = await connectPostgres(url, replica);
  await installUnderstudySchema(own, {
    cluster: 'shop',
    name: 'b',
    streamId: 's1',
    role: 'follower',
    epoch: 1,
    startNumber: 0n,
  });
  await own.query(`
    CREATE SCHEMA other;
    CREATE TABLE public.t (id int PRIMARY KEY, n int);
    INSERT INTO public.t VALUES (1, 1);
    CREATE TABLE other."Root" (id int) PARTITION BY LIST (id);
    CREATE TABLE other.leaf PARTITION OF other."Root" FOR VALUES IN (1);
    CREATE VIEW public.v AS SELECT * FROM public.t;
    CREATE FUNCTION public.writes() RETURNS void LANGUAGE sql SECURITY DEFINER
      AS 'UPDATE public.t SET n = 9'`);
});

test.before.each(async () => {
  user = await connectPostgres(url, ordinary);
});

test.after.each(async () => {
  await user.end();
  // Where a test failed in the middle, what it held must not hide why.
  await own.query('ROLLBACK');
  const { rows } = await own.query<{ gid: string }>('SELECT gid FROM pg_prepared_xacts');
  for (const { gid } of rows) await own.query(`ROLLBACK PREPARED ${own.escapeLiteral(gid)}`);
  await disarmGuard(own);
});

test.after(async () => {
  await second?.end();
  await own?.end();
  await server?.close();
});

async function code(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'done',
    (error: { code: string }) => error.code,
  );
}

const refused = '25006';

const writes = [
  'INSERT INTO public.t VALUES (2, 2)',
  'INSERT INTO public.t VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET n = 2',
  'UPDATE public.t SET n = 2',
  'UPDATE public.t SET n = 2 WHERE false',
  'DELETE FROM public.t',
  'TRUNCATE public.t',
  'TRUNCATE other."Root"',
  'INSERT INTO other."Root" VALUES (1)',
  'INSERT INTO other.leaf VALUES (1)',
  'UPDATE public.v SET n = 2',
  'SELECT public.writes()',
  'WITH gone AS (DELETE FROM public.t RETURNING id) SELECT * FROM gone',
  'MERGE INTO public.t USING (SELECT 1 AS id) s ON s.id = t.id WHEN MATCHED THEN DELETE',
  'CREATE TABLE public.new (id int)',
  'CREATE TEMPORARY TABLE new (id int)',
  'SELECT 1 AS a INTO public.new',
  'CREATE TABLE public.new AS SELECT 1 AS a',
  'ALTER TABLE public.t ADD COLUMN x int',
  'ALTER TABLE public.t DISABLE TRIGGER ALL',
  'CREATE INDEX ON public.t (n)',
  'DROP TABLE public.t',
  'GRANT ALL ON public.t TO PUBLIC',
  `DO $$ BEGIN EXECUTE 'CREATE TABLE public.new (id int)'; END $$`,
];

async function content(): Promise<string> {
  const { rows } = await own.query<{ all: string }>(
    `SELECT (SELECT json_agg(t)::text FROM public.t t) || (SELECT count(*) FROM other."Root")
       || coalesce(to_regclass('public.new')::text, '') AS all`,
  );
  return rows[0]?.all ?? '';
}

test('every way of writing is refused, in a transaction that asks to write too', async () => {
  const before = await content();
  await armGuard(own);
  assert.is((await guardState(own)).armed, true);
  for (const write of writes) {
    assert.is(await code(user.query(write)), refused, write);
    await user.query('BEGIN READ WRITE');
    assert.is(await code(user.query(write)), refused, write);
    await user.query('ROLLBACK');
  }
  const copy = user.query(copyFrom('COPY public.t FROM STDIN'));
  assert.is(await code(pipeline(Readable.from(['2\t2\n']), copy)), refused);
  assert.is(await content(), before);
  const { rows } = await user.query('SELECT count(*) AS n FROM public.t');
  assert.is(rows[0]?.n, '1');
});

test('the refusal names the cluster and where to write', async () => {
  await armGuard(own);
  const thrown = await user.query('DELETE FROM public.t').catch((error) => error);
  assert.is(thrown.message, 'cannot DELETE public.t: this node follows shop');
  assert.match(thrown.hint, /target_session_attrs=read-write/);
});

test('sessions of the agent write, and new ordinary ones are read-only', async () => {
  await armGuard(own);
  await second.query('INSERT INTO public.t VALUES (5, 5)');
  await second.query('CREATE TABLE public.ours (id int)');
  await second.query('DROP TABLE public.ours');
  await second.query('DELETE FROM public.t WHERE id = 5');
  // Without the settings of ours, as an application connects.
  const { Client: PlainClient } = await import('pg');
  const application = new PlainClient(url);
  await application.connect();
  const { rows } = await application.query('SHOW transaction_read_only');
  await application.end();
  assert.is(rows[0]?.transaction_read_only, 'on');
});

test('disarming lets sessions write again, and both may be repeated', async () => {
  await armGuard(own);
  await armGuard(own);
  await disarmGuard(own);
  await disarmGuard(own);
  await user.query('UPDATE public.t SET n = 1');
  await user.query('CREATE TABLE public.made (id int)');
  const state = await guardState(own);
  assert.equal([state.armed, state.refusesDdl, state.readOnlyByDefault], [false, false, false]);
  await armGuard(own);
  assert.is(await code(user.query('INSERT INTO public.made VALUES (1)')), refused);
  await second.query('DROP TABLE public.made');
});

test('a snapshot older than the guard does not help', async () => {
  await user.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await user.query('SELECT * FROM public.t');
  await armGuard(own);
  assert.is(await code(user.query('INSERT INTO public.t VALUES (3, 3)')), refused);
  await user.query('ROLLBACK');
  await disarmGuard(own);
  await user.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await user.query('SELECT * FROM public.t');
  await armGuard(own);
  assert.is(await code(user.query('TRUNCATE public.t')), refused);
  await user.query('ROLLBACK');
});

test('an open transaction that does not know the event trigger does not help', async () => {
  // The first DDL fills the session's cache of event triggers; BEGIN refreshes it once more.
  await user.query('CREATE TABLE public.warm (id int); DROP TABLE public.warm');
  await user.query('BEGIN');
  await armGuard(own);
  assert.is(await code(user.query('CREATE TABLE public.slipped (id int)')), refused);
  await user.query('ROLLBACK');
});

test('arming waits for a transaction that created a table, and guards the table', async () => {
  await user.query('BEGIN');
  await user.query('CREATE TABLE public.racing (id int)');
  let armed = false;
  const arming = armGuard(own).then(() => {
    armed = true;
  });
  await second.query('SELECT pg_sleep(0.3)');
  assert.is(armed, false);
  await user.query('INSERT INTO public.racing VALUES (1)');
  await user.query('COMMIT');
  await arming;
  assert.is(await code(user.query('INSERT INTO public.racing VALUES (2)')), refused);
  await second.query('DROP TABLE public.racing');
});

test('tables created during arming are guarded, and none is created afterwards', async () => {
  const makers = await Promise.all([1, 2, 3].map(() => connectPostgres(url, ordinary)));
  let stopped = false;
  const made = makers.map(async (maker, who) => {
    for (let number = 0; ; number += 1) {
      const name = `public.made_${who}_${number}`;
      const ended = await code(
        maker.query(`BEGIN; CREATE TABLE ${name} (id int); INSERT INTO ${name} VALUES (1); COMMIT`),
      );
      if (ended === 'done') {
        assert.not.ok(stopped, `${name} was made behind the guard`);
        continue;
      }
      assert.is(ended, refused);
      return number;
    }
  });
  await second.query('SELECT pg_sleep(0.1)');
  await armGuard(own);
  stopped = true;
  const counts = await Promise.all(made);
  assert.ok(counts.some((count) => count > 0));
  assert.equal((await guardState(own)).unguarded, []);
  await Promise.all(makers.map((maker) => maker.end()));
});

test('a writer that does not end is named, and the guard can be armed later', async () => {
  await user.query('BEGIN');
  await user.query('UPDATE public.t SET n = n');
  const { rows } = await user.query('SELECT pg_backend_pid() AS pid');
  const thrown: UnderstudyError = await armGuard(own, { maxWaitMs: 200 }).then(
    () => assert.unreachable(),
    (error) => error,
  );
  assert.is(thrown.code, 'TIMED_OUT');
  assert.match(thrown.message, new RegExp(`the lock of public\\.t: pid ${rows[0]?.pid} of `));
  assert.is((await guardState(own)).armed, false);
  await user.query('COMMIT');
  await armGuard(own);
});

test('a session with a transaction id is named, a prepared transaction too', async () => {
  await user.query('BEGIN');
  await user.query('SELECT pg_current_xact_id()');
  const waited = (): Promise<string> =>
    armGuard(own, { maxWaitMs: 100 }).then(
      () => 'armed',
      (error: Error) => error.message,
    );
  assert.match(await waited(), /transactions that began before it: pid \d+ of /);
  await user.query(`PREPARE TRANSACTION 'held'`);
  assert.match(await waited(), /it: the prepared transaction 'held'/);
  await own.query(`ROLLBACK PREPARED 'held'`);
  assert.is(await waited(), 'armed');
});

test('the next arming completes one that crashed between its steps', async () => {
  await armGuard(own);
  await own.query('ALTER TABLE public.t DISABLE TRIGGER understudy_guard');
  assert.equal((await guardState(own)).unguarded, ['public.t']);
  await armGuard(own);
  assert.ok((await guardState(own)).armed);
  await own.query('ALTER EVENT TRIGGER understudy_guard_end DISABLE');
  assert.is((await guardState(own)).armed, false);
  await armGuard(own);
  assert.ok((await guardState(own)).armed);
});

test('an ordinary session cannot arm it, and without the watch it is not armed', async () => {
  assert.is(await code(armGuard(user)), 'BUG');
  assert.is(await code(disarmGuard(user)), 'BUG');
  await own.query('ALTER EVENT TRIGGER understudy_watch DISABLE');
  assert.is(await code(armGuard(own)), 'PREREQUISITE');
  await own.query('ALTER EVENT TRIGGER understudy_watch ENABLE');
});

test('removal leaves nothing', async () => {
  await armGuard(own);
  await removeGuard(own);
  await removeGuard(own);
  const { rows } = await own.query(
    `SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'understudy%') AS triggers,
            (SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE '%guard%') AS event_triggers,
            (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
             WHERE d.datname = current_database()) AS settings`,
  );
  assert.equal({ ...rows[0] }, { triggers: '0', event_triggers: '0', settings: '0' });
  await user.query('UPDATE public.t SET n = 1');
});

test.run();
