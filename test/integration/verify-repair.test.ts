/**
 * Rows of followers that are not the leader's, changed by hand past the guard: `verify --repair`
 * has the leader publish them again under load, and nothing else is changed: missing rows come
 * back, others are removed, changed ones are the leader's again, on every follower. Tests run in
 * order, on one fleet; the last one promotes node b.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { beside } from '../support/beside.ts';
import { type Answer, type Fleet, startFleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';
import { type Stack, useStack } from '../support/stack.ts';

// time-limit: 300s

const large = `repeat(md5(i::text), 100)`;
let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 3 });
  fleet = await startFleet({
    stack,
    nodes: 3,
    partitions: 4,
    tables: `CREATE TABLE doc (tenant text, id numeric, n int, body text, PRIMARY KEY (tenant, id));
      ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
      CREATE TABLE "Odd ""name" ("1" int, "0" text, v int, PRIMARY KEY ("1", "0"))`,
  });
  await fleet.startAgents();
  await fleet.sql(
    'a',
    `INSERT INTO doc SELECT 't' || i % 3, i + 0.50, 0, ${large} FROM generate_series(1, 900) AS i;
     INSERT INTO "Odd ""name" SELECT i, 'k' || i, 0 FROM generate_series(1, 20) AS i`,
  );
  await fleet.caughtUp();
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function promotable(node: string): Promise<boolean | null> {
  const { nodes } = await fleet.status();
  return nodes.find(({ name }) => name === node)?.promotable ?? null;
}

test('rows that differ are the leader’s again, while others are written', async () => {
  await fleet.tamper(
    'b',
    `DELETE FROM doc WHERE id < 100;
     UPDATE doc SET n = -1 WHERE id BETWEEN 200 AND 400;
     INSERT INTO doc SELECT 'foreign', i, 0, 'x' FROM generate_series(1, 50) AS i;
     UPDATE "Odd ""name" SET v = 7 WHERE "1" = 5`,
  );
  await fleet.tamper(
    'c',
    `UPDATE doc SET body = NULL WHERE id BETWEEN 350 AND 360;
     UPDATE doc SET id = '20.5' WHERE id = 20.50;
     DELETE FROM "Odd ""name" WHERE "1" = 6`,
  );
  assert.is(await promotable('b'), true);
  const before = await fleet.cli('verify');
  assert.is(before.code, 8, before.stderr);
  assert.is(await promotable('b'), false, 'its rows were found different');
  const refused = await fleet.cli('failover', 'b', '--dry-run');
  assert.is(refused.json.error.code, 'NOT_PROMOTABLE');
  assert.match(refused.json.error.message, /verify found rows that are not the leader’s/);
  const writer = await fleet.session('a');
  const write = () => writer.query('UPDATE doc SET n = n + 1 WHERE id BETWEEN 300 AND 303');
  const { code, json, stderr } = await beside([write], () => fleet.cli('verify', '--repair'));
  assert.is(code, 0, `${stderr}\n${fleet.logs()}`);
  assert.ok(json.equal);
  assert.ok(json.repaired >= 300, `${json.repaired} rows`);
  await fleet.caughtUp();
  await fleet.assertAllSame(['doc', '"Odd ""name"']);
  assert.is(await promotable('b'), true, 'all rows are equal again');
});

test('what is equal is not published again', async () => {
  const { code, json } = await fleet.cli('verify', '--repair');
  assert.is(code, 0);
  assert.is(json.repaired, 0);
  const { stdout } = await fleet.text('verify', '--repair');
  assert.match(stdout, 'node a published 0 rows again');
});

test('without an agent of the leader verify and point are refused at once', async () => {
  await fleet.agent('a').stop();
  let refused: Answer | null = null;
  for (const words of [['verify'], ['point', 'never'], ['resnapshot', '--all']]) {
    refused = await fleet.cli(...words);
    const { code, json } = refused;
    assert.is(code, 4, JSON.stringify(json));
    assert.match(json.error.message, /^no agent of leader a runs: /, words[0]);
  }
  assert.equal(
    await fleet.sql('a', 'SELECT FROM understudy.points'),
    [],
    'nothing is left in the WAL',
  );
  assert.ok(refused);
  await followHint(fleet, 'leaderAgentAbsent', refused);
});

test('an agent that was restarted repairs as well', async () => {
  await fleet.tamper('b', 'UPDATE doc SET n = -1 WHERE id = 500.50');
  await fleet.agent('a').stop();
  await fleet.startAgent('a');
  const { code, json } = await fleet.cli('verify', 'b', '--repair');
  assert.is(code, 0, JSON.stringify(json));
  assert.is(json.repaired, 1);
  assert.match(fleet.agent('a').log, /"message":"published rows that verify --repair named"/);
});

test('a row that one node lacks concerns that node alone', async () => {
  await fleet.agent('a').stop();
  // Else the log would hold the row whole before the node reads it for the second time.
  await fleet.startAgent('a', 'heal.after-read=pause:60000');
  await fleet.tamper('b', 'DELETE FROM doc WHERE id = 700.50');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id = 700.50');
  const agent = fleet.agent('b');
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(agent.log, /reading once more/);
  assert.match(
    agent.log,
    /"code":"NODE_DAMAGED".*a row of public.doc that this node does not have/,
  );
  const { nodes, damage } = await fleet.status();
  assert.equal(damage, [], 'the topic is not damaged');
  const states = nodes.map(({ name, state, promotable: may }) => [name, state, may]);
  assert.equal(states.slice(1), [
    ['b', 'damaged', false],
    ['c', 'streaming', true],
  ]);
  assert.is((await fleet.cli('failover', 'c', '--dry-run')).code, 0);
  assert.is((await fleet.cli('failover', 'b', '--dry-run')).json.error?.code, 'NOT_PROMOTABLE');
  await fleet.agent('a').stop();
  await fleet.startAgent('a');
  await followHint(fleet, 'rebuildHint: rebuild', agent, { node: 'b' });
  await fleet.startAgent('b');
  await fleet.until('b to be promotable', () => promotable('b'), {
    reached: (may) => may === true,
    timeoutMs: 60_000,
  });
  await fleet.caughtUp();
  await fleet.assertAllSame(['doc', '"Odd ""name"']);
});

test('a leader that is deposed in the middle of a repair refuses writes', async () => {
  await fleet.agent('a').stop();
  const agent = await fleet.startAgent('a', 'heal.after-read=pause:60000');
  await fleet.tamper('c', 'UPDATE doc SET n = -1 WHERE id = 600.50');
  const repair = fleet.spawnCommand('verify', 'c', '--repair');
  const reads = `SELECT FROM pg_stat_activity WHERE application_name = 'understudy a reads'
    AND datname = current_database() AND state = 'idle in transaction'`;
  const open = async (): Promise<number> => (await fleet.sql('a', reads)).length;
  await fleet.until('a repair that has read', open, { reached: (n) => n > 0 });
  const answer = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'test');
  assert.is(answer.code, 0, `${answer.stderr}\n${fleet.logs()}`);
  assert.is(await agent.exitCode(), 3, agent.log);
  // The sessions of before have ended; a new one that insists on writing meets the guard.
  const client = await fleet.session('a');
  await client.query('BEGIN READ WRITE');
  const refused = await client.query('UPDATE doc SET n = n + 1').then(
    () => 'the write succeeded',
    (error: Error) => error.message,
  );
  assert.match(refused, 'this node follows', `the former leader takes writes\n${agent.log}`);
  await repair.kill();
});

test.run();
