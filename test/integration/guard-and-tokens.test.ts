/**
 * What an application may rely on: on a follower it cannot write, by any statement; a token makes
 * its own writes visible to its next statement; a named point follows its transaction directly.
 * Tests run in order, on one fleet.
 */
import type pg from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

const readOnly = '25006';
const rounds = 100;
const walPage = 8192;
/** Of each there may be a record of the server's own in between. */
const pageTriesMax = 100;

let stack: Stack;
/** The leader's: no other session writes WAL there. */
let own: OwnServer;
let fleet: Fleet;
/** A session with a snapshot that is older than everything the agents did. */
let older: pg.Client;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
  fleet = await startFleet({
    stack,
    servers: { a: own.server },
    partitions: 2,
    tables: `CREATE TABLE item (id int PRIMARY KEY, v text);
      CREATE TABLE other (id int PRIMARY KEY, v text);
      CREATE VIEW item_view AS SELECT * FROM item;
      CREATE FUNCTION write_it() RETURNS void LANGUAGE sql SECURITY DEFINER
        AS 'INSERT INTO item VALUES (-1)'`,
  });
  older = await fleet.session('b');
  await fleet.startAgents();
  await older.query(
    'BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE; SELECT FROM pg_class LIMIT 1',
  );
});

test.after(async () => {
  await fleet.close();
  await Promise.all([own.close(), stack.close()]);
});

/** The SQLSTATE a statement ends with, and null when it succeeds. */
async function refusal(client: pg.Client, text: string): Promise<string | null> {
  try {
    await client.query(text);
    return null;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  } finally {
    await client.query('ROLLBACK');
  }
}

const writes = [
  'INSERT INTO item VALUES (1)',
  'INSERT INTO item VALUES (1) ON CONFLICT DO NOTHING',
  'UPDATE item SET v = NULL WHERE false',
  'DELETE FROM item',
  'TRUNCATE item',
  'MERGE INTO item USING (SELECT 1 AS id) AS s ON s.id = item.id WHEN NOT MATCHED THEN ' +
    'INSERT VALUES (s.id)',
  'INSERT INTO item_view VALUES (1)',
  'SELECT write_it()',
  'WITH w AS (DELETE FROM item RETURNING id) SELECT count(*) FROM w',
  'CREATE TABLE more (id int)',
  'ALTER TABLE item ADD COLUMN w int',
  'DROP TABLE item',
  'ALTER TABLE item DISABLE TRIGGER ALL',
  'DROP TRIGGER understudy_guard ON item',
  'CREATE INDEX ON item (v)',
  "COPY item FROM PROGRAM 'echo 1'",
  'DO $$ BEGIN INSERT INTO item VALUES (1); END $$',
];

test('an ordinary session cannot write to a follower, nor change its schema', async () => {
  const client = await fleet.session('b');
  for (const write of writes) {
    assert.is(await refusal(client, write), readOnly, write);
    assert.is(
      await refusal(client, `BEGIN READ WRITE; ${write}`),
      readOnly,
      `READ WRITE: ${write}`,
    );
  }
  await client.query('SET default_transaction_read_only = off');
  for (const write of writes) assert.is(await refusal(client, write), readOnly, `off: ${write}`);
  assert.equal(await fleet.sql('b', 'SELECT count(*)::int AS n FROM item'), [{ n: 0 }]);
});

test('a session whose snapshot is older than the agent cannot write either', async () => {
  assert.is(await refusal(older, 'INSERT INTO item VALUES (1)'), readOnly);
});

test('a read-only client that asks for a writable server finds the leader', async () => {
  for (const [node, setting] of [
    ['a', 'off'],
    ['b', 'on'],
  ] as const) {
    const client = await fleet.session(node);
    const { rows } = await client.query('SHOW default_transaction_read_only');
    assert.equal(rows, [{ default_transaction_read_only: setting }]);
  }
});

test('a token makes the writer’s own write visible to its next statement', async () => {
  const [writer, reader] = await Promise.all([fleet.session('a'), fleet.session('b')]);
  for (let round = 1; round <= rounds; round += 1) {
    await writer.query('INSERT INTO item VALUES ($1, $2)', [round, `round ${round}`]);
    const token = (await writer.query('SELECT understudy.token() AS token')).rows[0].token;
    const wait = "SELECT understudy.wait_for($1, '10s') AS there";
    const { rows } = await reader.query(wait, [token]);
    assert.is(rows[0].there, true, `round ${round}: ${token}\n${fleet.logs()}`);
    const found = await reader.query('SELECT v FROM item WHERE id = $1', [round]);
    assert.equal(found.rows, [{ v: `round ${round}` }]);
  }
});

/** Makes the server's WAL end where a page of it ends, and leaves it quiet. */
async function fillPage(client: pg.Client): Promise<void> {
  const at = async (): Promise<number> =>
    Number((await client.query(`SELECT pg_current_wal_insert_lsn() - '0/0' AS at`)).rows[0].at);
  const emit = (bytes: number): Promise<unknown> =>
    client.query(`SELECT pg_logical_emit_message(true, 'filler', repeat('x', $1))`, [bytes]);
  for (let tries = 0; tries < pageTriesMax; tries += 1) {
    await emit(400);
    const from = await at();
    await emit(400);
    const overhead = (await at()) - from - 400;
    const rest = walPage - ((await at()) % walPage);
    if (overhead > 1000 || rest < overhead + 300) continue;
    await emit(rest - overhead);
    if ((await at()) % walPage <= 40) return;
  }
  throw new Error('the WAL never ended at the end of a page');
}

test('a token at the end of a WAL page is reached although nothing follows it', async () => {
  const writer = await fleet.session('a');
  for (let round = 0; round < 3; round += 1) {
    await fillPage(writer);
    const token = (await writer.query('SELECT understudy.token() AS token')).rows[0].token;
    const rows = await fleet.sql('b', `SELECT understudy.wait_for($1, '5 s') AS there`, [token]);
    assert.equal(rows, [{ there: true }], token);
  }
});

test('a token of a write that has not arrived is false at the timeout', async () => {
  await fleet.agent('b').stop();
  await fleet.sql('a', `INSERT INTO other VALUES (1, 'later')`);
  const token = await fleet.token();
  const wait = (timeout: string): Promise<unknown[]> =>
    fleet.sql('b', 'SELECT understudy.wait_for($1, $2::interval) AS there', [token, timeout]);
  assert.equal(await wait('300 ms'), [{ there: false }]);
  assert.equal(await wait('-1 s'), [{ there: false }]);
  const waiting = wait('20 s');
  await fleet.startAgent('b');
  assert.equal(await waiting, [{ there: true }]);
  assert.equal(await fleet.sql('b', 'SELECT v FROM other'), [{ v: 'later' }]);
});

test('wait_for refuses a token that is none', async () => {
  const client = await fleet.session('b');
  const token = await fleet.token();
  const wait = (text: string): string => `SELECT understudy.wait_for(${text}, '1s')`;
  assert.is(await refusal(client, wait(`'nonsense'`)), '22023');
  assert.is(await refusal(client, wait('NULL')), '22023');
  assert.is(await refusal(client, wait(`'1:G/0'`)), '22023');
  assert.is(await refusal(client, `SELECT understudy.wait_for('${token}', NULL)`), '22004');
  const repeatable = `BEGIN ISOLATION LEVEL REPEATABLE READ; ${wait(`'${token}'`)}`;
  assert.is(await refusal(client, repeatable), '25000');
  assert.is(await refusal(client, 'SELECT understudy.token()'), '55000');
  assert.is(await refusal(client, `SELECT understudy.point('x')`), '55000');
  const { rows } = await client.query(`SELECT understudy.wait_for('9:0/1', '100 ms') AS there`);
  assert.is(rows[0].there, false, 'an epoch that has not begun is waited for');
});

test('an ordinary role without rights on the schema may use tokens and points', async () => {
  const role = `${fleet.cluster}_app`;
  for (const node of fleet.nodes) await fleet.tamper(node, `CREATE ROLE ${role}`);
  const [writer, reader] = await Promise.all([fleet.session('a'), fleet.session('b')]);
  await writer.query(`SET ROLE ${role}`);
  await reader.query(`SET ROLE ${role}`);
  const token = (await writer.query('SELECT understudy.token() AS token')).rows[0].token;
  const { rows } = await reader.query("SELECT understudy.wait_for($1, '10s') AS t", [token]);
  assert.is(rows[0].t, true);
  await writer.query(`SELECT understudy.point('by-app')`);
  assert.is(await refusal(writer, 'SELECT * FROM understudy.node'), '42501');
  assert.is(await refusal(writer, 'DELETE FROM understudy.points'), '42501');
  for (const client of [writer, reader]) await client.query('RESET ROLE');
  for (const node of fleet.nodes) await fleet.tamper(node, `DROP ROLE ${role}`);
});

test('a named point follows its transaction directly', async () => {
  const client = await fleet.session('a');
  const here = async (): Promise<string> =>
    (await client.query('SELECT pg_current_wal_insert_lsn() AS lsn')).rows[0].lsn;
  await client.query('TRUNCATE item');
  await client.query('BEGIN; INSERT INTO item SELECT i FROM generate_series(1, 10) AS i');
  await client.query(`SELECT understudy.point('ten'); INSERT INTO item VALUES (11)`);
  const before = await here();
  await client.query('COMMIT');
  const after = await here();
  for (let i = 0; i < 50; i += 1) await client.query('INSERT INTO item VALUES ($1)', [100 + i]);
  const waited = await fleet.cli('wait', 'b', '--at', 'ten');
  assert.is(waited.code, 0, waited.stderr);
  const held = await fleet.sql('b', 'SELECT count(*)::int AS n FROM item WHERE id <= 11');
  assert.equal(held, [{ n: 11 }]);
  const { json } = await fleet.cli('points');
  const point = json.points.find((one: { label: string }) => one.label === 'ten');
  assert.is(point.lsn, waited.json.lsn);
  const [between] = await fleet.sql('a', 'SELECT $1::pg_lsn < $2 AND $2 <= $3::pg_lsn AS ok', [
    before,
    point.lsn.split(':')[1],
    after,
  ]);
  assert.equal(between, { ok: true }, `${before} < ${point.lsn} <= ${after}`);
});

test('a label is used once; a rolled-back point does not use it', async () => {
  const client = await fleet.session('a');
  assert.is(await refusal(client, `SELECT understudy.point('ten')`), '23505');
  assert.is(await refusal(client, `SELECT understudy.point('Ten')`), '22023');
  await client.query(
    `BEGIN; SELECT understudy.point('undone'); INSERT INTO other VALUES (5); ROLLBACK`,
  );
  await client.query(
    `BEGIN; SAVEPOINT s; SELECT understudy.point('undone-too'); ROLLBACK TO s; COMMIT`,
  );
  const point = await fleet.cli('point', 'undone');
  assert.is(point.code, 0, point.stderr);
  const { json } = await fleet.cli('points');
  const labels = json.points.map(({ label }: { label: string }) => label);
  assert.equal(
    labels.filter((label: string) => label.startsWith('undone')),
    ['undone'],
  );
  assert.is((await fleet.cli('point', 'undone')).code, 4);
});

test('a transaction creates one point; one that was rolled back does not count', async () => {
  const client = await fleet.session('a');
  const two = `BEGIN; SELECT understudy.point('first'); SELECT understudy.point('second')`;
  assert.is.not(await refusal(client, two), null);
  await client.query(`BEGIN; SAVEPOINT s; SELECT understudy.point('taken-back'); ROLLBACK TO s;
    SELECT understudy.point('kept'); COMMIT`);
  const waited = await fleet.cli('wait', 'b', '--at', 'kept');
  assert.is(waited.code, 0, waited.stderr);
});

test('points created while the leader’s agent was down are published when it starts', async () => {
  await fleet.agent('a').kill();
  for (let i = 0; i < 5; i += 1) {
    await fleet.sql(
      'a',
      `BEGIN; INSERT INTO other VALUES (${20 + i}); SELECT understudy.point('down-${i}'); COMMIT`,
    );
  }
  const dying = fleet.spawnAgent('a', 'publish.after-commit=kill:2');
  assert.is(await dying.exitCode(), null, dying.log);
  await fleet.startAgent('a');
  const lsns: string[] = [];
  for (let i = 0; i < 5; i += 1) {
    const waited = await fleet.cli('wait', 'b', '--at', `down-${i}`);
    assert.is(waited.code, 0, `${i}: ${waited.stderr}\n${fleet.logs()}`);
    lsns.push(waited.json.lsn);
  }
  assert.is(new Set(lsns).size, 5);
});

test.run();
