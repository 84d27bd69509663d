/**
 * The `understudy` schema on a real server: installed once or several times, refused where it must
 * be, and its functions as an ordinary role without any grant calls them. Tests run in order, in
 * one database.
 */
import { readFile } from 'node:fs/promises';
import type { Client } from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import {
  dropUnderstudySchema,
  installUnderstudySchema,
  type NodeIdentity,
  readNode,
  upgradeUnderstudySchema,
  writeNode,
} from '../../src/catalog/understudy-schema.ts';
import type { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let url: string;
/** Our own session. */
let own: Client;
/** An application's, of a role that was granted nothing. */
let user: Client;
let role: string;

const leader: NodeIdentity = {
  cluster: 'shop',
  name: 'a',
  streamId: 's1',
  role: 'leader',
  epoch: 4,
  startNumber: 7n,
};

test.before(async () => {
  stack = await useStack({ postgres: 1 });
  url = (await stack.createDatabases('schema'))[0] ?? '';
  role = stack.uniqueName('user');
  own = await connectPostgres(url, { applicationName: 'understudy test', replica: true });
  await own.query(`CREATE ROLE ${role}`);
  user = await connectPostgres(url, { applicationName: 'application' });
  await user.query(`SET ROLE ${role}`);
});

test.after(async () => {
  await user?.end();
  await own?.query(`DROP OWNED BY ${role}`);
  await own?.query(`DROP ROLE ${role}`);
  await own?.end();
  await stack?.close();
});

async function one(client: Client, text: string, values: unknown[] = []): Promise<string | null> {
  const { rows } = await client.query<(string | null)[]>({ text, values, rowMode: 'array' });
  return rows[0]?.[0] ?? null;
}

/** The SQLSTATE and the first words of the refusal. */
async function refusal(client: Client, text: string, values: unknown[] = []): Promise<string> {
  try {
    await client.query(text, values);
  } catch (error) {
    const { code, message, hint } = error as { code: string; message: string; hint?: string };
    if (code !== '42501') assert.ok(hint, `no hint: ${message}`);
    return `${code} ${message}`;
  }
  return 'no error';
}

test('installing is done once and may be repeated', async () => {
  assert.is(await readNode(own), null);
  await installUnderstudySchema(own, leader);
  assert.equal(await readNode(own), leader);
  const since = await one(own, 'SELECT watched_since FROM understudy.node');
  assert.ok(since);
  await installUnderstudySchema(own, { ...leader, epoch: 5 });
  assert.is((await readNode(own))?.epoch, 5);
  assert.is(await one(own, 'SELECT watched_since FROM understudy.node'), since);
  await writeNode(own, leader);
});

async function refusedWith(code: string, node = leader): Promise<void> {
  const thrown = await installUnderstudySchema(own, node).catch((error: UnderstudyError) => error);
  assert.is((thrown as UnderstudyError | undefined)?.code, code);
}

test('another node, a newer format and a foreign schema are refused', async () => {
  await refusedWith('ALREADY_INITIALISED', { ...leader, cluster: 'other' });
  await refusedWith('ALREADY_INITIALISED', { ...leader, name: 'b' });
  await own.query('UPDATE understudy.node SET format = 3');
  await refusedWith('FORMAT_TOO_NEW');
  await own.query('UPDATE understudy.node SET format = 2');
  await own.query('ALTER TABLE understudy.node RENAME TO node_hidden');
  await refusedWith('PREREQUISITE');
  await own.query('ALTER TABLE understudy.node_hidden RENAME TO node');
  assert.equal(await readNode(own), leader);
});

/** Everything of the schema, as text that two databases have in common. */
const wholeSchema = `
  SELECT string_agg(line, E'\\n' ORDER BY line COLLATE "C") FROM (
    SELECT concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
      a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, c.relacl) AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'understudy'::regnamespace AND NOT a.attisdropped
    UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'understudy'::regnamespace
    UNION ALL SELECT concat_ws(' ', oid::regprocedure, pg_get_functiondef(oid), proacl)
    FROM pg_proc WHERE pronamespace = 'understudy'::regnamespace
    UNION ALL SELECT concat_ws(' ', evtname, evtevent, evtfoid::regproc, evtenabled)
    FROM pg_event_trigger) AS lines (line)`;

test('the schema of an older version is upgraded on a follower, with what it holds', async () => {
  const fixture = new URL('../support/understudy-schema-format-1.sql', import.meta.url);
  const [olderUrl = ''] = await stack.createDatabases('older');
  const open = (): Promise<Client> => {
    return connectPostgres(olderUrl, { applicationName: 'understudy test', replica: true });
  };
  const before = await open();
  await before.query(await readFile(fixture, 'utf8'));
  await before.query(`
    INSERT INTO understudy.node VALUES (true, 'shop', 'a', 's1', 'follower', 4, 7, now(), 1);
    INSERT INTO understudy.position VALUES
      (true, 's1', 4, '0/20', 5, 4, '0/10', '{3}', '{6}', 1);
    INSERT INTO understudy.relations VALUES ('public.t', 1, 'public', 't', '{id}', false);
    CREATE VIEW public.theirs AS SELECT understudy.token();
    DO $$ BEGIN
      EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',
        current_database());
    END $$`);
  await before.end();
  const older = await open();
  try {
    assert.equal(await readNode(older), { ...leader, role: 'follower' });
    assert.is(await upgradeUnderstudySchema(older), 1);
    assert.is(await one(older, wholeSchema), await one(own, wholeSchema));
    assert.is(await upgradeUnderstudySchema(older), null);
    assert.equal(await readNode(older), { ...leader, role: 'follower' });
    const kept =
      'SELECT upto, unfinished, detached, entered_lsn ' +
      'FROM understudy.position, understudy.relations';
    assert.equal((await older.query(kept)).rows, [
      { upto: '0/20', unfinished: '{}', detached: 'f', entered_lsn: null },
    ]);
    await older.query('SELECT understudy.begin_to_lead()');
  } finally {
    await older.end();
  }
});

test('an upgrade that fails changes nothing, and a newer schema is refused', async () => {
  const fixture = new URL('../support/understudy-schema-format-1.sql', import.meta.url);
  const [olderUrl = ''] = await stack.createDatabases('older');
  const older = await connectPostgres(olderUrl, {
    ...{ applicationName: 'understudy test', replica: true },
  });
  try {
    await older.query(await readFile(fixture, 'utf8'));
    await older.query(`
      INSERT INTO understudy.node VALUES (true, 'shop', 'a', 's1', 'follower', 4, 7, now(), 1);
      CREATE VIEW public.theirs AS SELECT * FROM understudy.types_of_tables()`);
    const was = await one(older, wholeSchema);
    const failed = await upgradeUnderstudySchema(older).catch((error: Error) => error.message);
    assert.match(String(failed), /cannot drop function understudy.types_of_tables/);
    assert.is(await one(older, wholeSchema), was);
    assert.is(await one(older, 'SELECT format FROM understudy.node'), '1');
    await older.query('UPDATE understudy.node SET format = 3');
    const newer = await upgradeUnderstudySchema(older).catch((error: UnderstudyError) => error);
    assert.equal(
      [(newer as UnderstudyError).code, (newer as UnderstudyError).exit],
      ['FORMAT_TOO_NEW', 4],
    );
  } finally {
    await older.end();
  }
});

test('an ordinary role may call three functions and read nothing', async () => {
  const tables = ['node', 'position', 'epochs', 'relations', 'columns', 'points'];
  for (const table of tables) {
    assert.match(await refusal(user, `TABLE understudy.${table}`), /^42501/);
  }
  const covers = `SELECT understudy.covers(1, '0/1')`;
  assert.match(await refusal(user, covers), /^42501/);
  assert.match((await one(user, 'SELECT understudy.token()')) ?? '', /^4:[0-9A-F]+\/[0-9A-F]+$/);
});

test('a token is past the commits before it, and reached on the leader itself', async () => {
  await own.query('CREATE TABLE public.t (id int)');
  await own.query(`GRANT ALL ON public.t TO ${role}`);
  for (let id = 0; id < 20; id += 1) {
    await user.query('INSERT INTO public.t VALUES ($1)', [id]);
    const before = await one(own, 'SELECT pg_current_wal_insert_lsn()');
    const token = await one(user, 'SELECT understudy.token()');
    const lsn = token?.split(':')[1];
    assert.is(await one(own, 'SELECT $1::pg_lsn >= $2::pg_lsn', [lsn, before]), 't');
    assert.is(await one(user, `SELECT understudy.wait_for($1, '1s')`, [token]), 't');
  }
  const ahead = `SELECT understudy.wait_for('4:FFFFFFFF/0', '10ms')`;
  assert.is(await one(user, ahead), 'f');
});

test('a point leaves a label and a message, a rollback neither', async () => {
  await user.query(`SELECT understudy.point('before-x.1')`);
  const twice = await refusal(user, `SELECT understudy.point('before-x.1')`);
  assert.is(twice, '23505 the point before-x.1 exists already');
  await user.query(`BEGIN; SELECT understudy.point('never'); ROLLBACK`);
  assert.equal((await own.query('SELECT label FROM understudy.points')).rows, [
    { label: 'before-x.1' },
  ]);
  for (const label of ['', '1a', 'A', 'a b', 'é', 'a'.repeat(64), 'a\n', null]) {
    const said = await refusal(user, 'SELECT understudy.point($1)', [label]);
    assert.match(said, /^22023 not a label/, String(label));
  }
  await user.query('SELECT understudy.point($1)', ['a'.repeat(63)]);
});

test('the message of a point is in the WAL once, inside its transaction', async () => {
  const slot = stack.uniqueName('slot');
  await own.query(`SELECT pg_create_logical_replication_slot($1, 'test_decoding')`, [slot]);
  await user.query(`BEGIN; SELECT understudy.point('rolled-back'); ROLLBACK`);
  await user.query(`SELECT understudy.point('kept')`);
  const messages = await own.query<{ data: string }>(
    `SELECT data FROM pg_logical_slot_get_changes($1, NULL, NULL) WHERE data LIKE 'message:%'`,
    [slot],
  );
  await own.query('SELECT pg_drop_replication_slot($1)', [slot]);
  const content = `${leader.streamId} kept`;
  assert.equal(
    messages.rows.map((row) => row.data),
    [
      'message: transactional: 1 prefix: understudy.point, ' +
        `sz: ${content.length} content:${content}`,
    ],
  );
  assert.match(await refusal(user, 'SELECT stream_id FROM understudy.node'), /^42501/);
});

test('no more than a hundred points are created within a minute', async () => {
  const { rows } = await own.query<{ n: string }>('SELECT count(*) AS n FROM understudy.points');
  for (let made = Number(rows[0]?.n); made < 100; made += 1) {
    await user.query('SELECT understudy.point($1)', [`many-${made}`]);
  }
  const said = await refusal(user, `SELECT understudy.point('one-too-many')`);
  assert.is(said, '54000 100 points were created within a minute');
  await own.query(`UPDATE understudy.points SET created_at = created_at - interval '1 minute'`);
  await user.query(`SELECT understudy.point('a-minute-later')`);
});

test('a follower gives no tokens and creates no points', async () => {
  await writeNode(own, { ...leader, role: 'follower' });
  for (const call of ['understudy.token()', `understudy.point('x')`]) {
    assert.is(await refusal(user, `SELECT ${call}`), '55000 this node does not lead shop');
  }
});

/**
 * Reigns: 1 and 2 on server A (a restart), 4 on B from 2:0/200, 5 on B on another timeline from
 * 4:0/50, 6 by another node of the very same server and timeline from 5:0/90. Epoch 3 was void.
 */
async function standAt(epoch: number, upto: string): Promise<void> {
  await own.query(`
    DELETE FROM understudy.epochs;
    DELETE FROM understudy.position;
    INSERT INTO understudy.epochs VALUES
      (1, 'a', 'A', 1, NULL, NULL, '0/10'), (2, 'a', 'A', 1, 1, '0/100', '0/100'),
      (4, 'b', 'B', 1, 2, '0/200', '0/7'), (5, 'b', 'B', 2, 4, '0/50', '0/50'),
      (6, 'c', 'B', 2, 5, '0/90', '0/95')`);
  await own.query('DELETE FROM understudy.epochs WHERE epoch > $1', [epoch]);
  await own.query(
    `INSERT INTO understudy.position
       (stream_id, epoch, upto, commit_time_us, mark_epoch, mark_upto, next_offsets,
        last_append_ms, format)
     VALUES ('s1', $1, $2, 0, $1, $2, '{0}', '{0}', 1)`,
    [epoch, upto],
  );
}

const lost = 'lost';
const judgements: readonly (readonly [number, string, string, string])[] = [
  [1, '0/80', '1:0/80', 't'],
  [1, '0/80', '1:0/81', 'f'],
  [1, '0/80', '2:0/1', 'f'],
  // A restart discards nothing: what was past the base of epoch 2 came again in it.
  [2, '0/150', '1:0/150', 't'],
  [2, '0/150', '1:0/151', 'f'],
  // Another server went on from 2:0/200: the rest of epoch 2 is lost, of epoch 1 too.
  [4, '0/9', '2:0/200', 't'],
  [4, '0/9', '1:0/200', 't'],
  [4, '0/9', '2:0/201', lost],
  [4, '0/9', '1:0/201', lost],
  [4, '0/9', '3:0/1', lost],
  [4, '0/9', '4:0/A', 'f'],
  // Another timeline of the same server.
  [5, '0/FFFF', '4:0/50', 't'],
  [5, '0/FFFF', '4:0/51', lost],
  // Another node beside it on the same server shares LSNs, but not what was written.
  [6, '0/FFFF', '5:0/90', 't'],
  [6, '0/FFFF', '5:0/91', lost],
  [6, '0/FFFF', '1:0/200', 't'],
];

test('tokens of every epoch are judged by the history', async () => {
  for (const [epoch, upto, token, wanted] of judgements) {
    await standAt(epoch, upto);
    const call = `SELECT understudy.wait_for('${token}', '5ms')`;
    const name = `${token} at ${epoch}:${upto}`;
    if (wanted === lost) assert.match(await refusal(user, call), /^UN001 lost: /, name);
    else assert.is(await one(user, call), wanted, name);
  }
});

test('waiting sees the position move, also to an end', async () => {
  await standAt(1, '0/80');
  const waiting = one(user, `SELECT understudy.wait_for('1:0/90', '10s')`);
  await own.query('SELECT pg_sleep(0.1)');
  const began = Date.now();
  await own.query(`UPDATE understudy.position SET upto = '0/90'`);
  assert.is(await waiting, 't');
  assert.ok(Date.now() - began < 1_000);

  await standAt(2, '0/200');
  const doomed = refusal(user, `SELECT understudy.wait_for('2:0/300', '10s')`);
  await own.query('SELECT pg_sleep(0.05)');
  await standAt(4, '0/9');
  assert.match(await doomed, /^UN001 lost: epoch 2 ended at 0\/200/);
});

test('a node without a position waits, and a foreign database is refused', async () => {
  await own.query('DELETE FROM understudy.position');
  const call = `SELECT understudy.wait_for('1:0/1', '5ms')`;
  assert.is(await one(user, call), 'f');
  await own.query('DELETE FROM understudy.node');
  assert.is(await refusal(user, call), '55000 this database is not a node of a cluster');
  await writeNode(own, leader);
});

test('a wait that can never succeed is an error at once', async () => {
  for (const token of ['', '0/90', '1:0/', '0:0/1', '1:0/123456789', '1:x/1', '1:0/1\n', null]) {
    const said = await refusal(user, `SELECT understudy.wait_for($1, '1s')`, [token]);
    assert.match(said, /^22023 not a token/, String(token));
  }
  const withoutTimeout = await refusal(user, `SELECT understudy.wait_for('1:0/1', NULL)`);
  assert.is(withoutTimeout, '22004 the timeout is null');
  await user.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  const said = await refusal(user, `SELECT understudy.wait_for('1:0/1', '1s')`);
  await user.query('ROLLBACK');
  assert.is(said, '25000 wait_for works in READ COMMITTED transactions only');
});

test('an uninstalled schema leaves nothing behind', async () => {
  await dropUnderstudySchema(own);
  await dropUnderstudySchema(own);
  assert.is(await one(own, `SELECT to_regnamespace('understudy')`), null);
  assert.is(await one(own, 'SELECT count(*) FROM pg_event_trigger'), '0');
});

test.run();
