/**
 * Failover under load, with the leader's Postgres killed: what it takes, what it refuses, and what
 * becomes of the other follower, of sequences, of sessions, and of the old leader when it returns.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, type NodeName, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { consistencyQuery, Load, loadRows, loadTableNames, loadTables } from '../support/load.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

const allow = ['--allow-data-loss', '--reason', 'test'] as const;
const tables = `${loadTables};
  CREATE SEQUENCE numbers; CREATE TABLE numbered (id bigint PRIMARY KEY DEFAULT nextval('numbers'));
  CREATE TABLE descending (id int GENERATED ALWAYS AS IDENTITY (INCREMENT -1) PRIMARY KEY)`;

let stack: Stack;
let own: OwnServer;
let fleet: Fleet;
let agents: Record<NodeName, FleetAgent>;
let load: Load;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 3 }), ownServer()]);
  fleet = await startFleet({
    stack,
    nodes: 3,
    partitions: 2,
    tables,
    servers: { a: own.server },
  });
  agents = await fleet.startAgents();
  await fleet.sql('a', loadRows);
  await fleet.sql('a', 'INSERT INTO numbered SELECT FROM generate_series(1, 10)');
  await fleet.sql('a', 'INSERT INTO descending SELECT FROM generate_series(1, 10)');
  await fleet.sql('a', `SELECT understudy.point('before')`);
  await fleet.caughtUp();
  load = new Load({ url: fleet.url('a') });
});

test.after(async () => {
  await load.stop();
  await fleet.close();
  await stack.close();
  await own.close();
});

async function epochs(node: NodeName): Promise<unknown[]> {
  return fleet.sql(node, 'SELECT epoch, leader FROM understudy.epochs ORDER BY epoch');
}

test('a failover is refused without the allowance, and changes nothing', async () => {
  const refused = await fleet.cli('failover', 'b');
  assert.is(refused.code, 6, refused.stderr);
  assert.is(refused.json.error.code, 'NEEDS_ALLOW_DATA_LOSS');
  const dry = await fleet.cli('failover', 'b', '--dry-run');
  assert.is(dry.code, 0, dry.stderr);
  assert.is(dry.json.epoch, 2);
  assert.is((await fleet.cli('failover', 'nobody', ...allow)).code, 1);
  assert.is((await fleet.cli('failover', 'b', '--allow-data-loss')).code, 1);
  assert.is((await fleet.cli('failover', 'a', ...allow)).code, 4);
  await load.progress(20);
  assert.equal(await epochs('b'), [{ epoch: 1, leader: 'a' }]);
  assert.equal(
    await fleet.sql(
      'b',
      'SELECT slot_name FROM pg_replication_slots WHERE database = current_database()',
    ),
    [],
  );
});

test('a failover under load gives the candidate the lead; the other goes on', async () => {
  await load.progress(100);
  await own.server.kill();
  const taken = await fleet.cli('failover', 'b', ...allow);
  assert.is(taken.code, 0, `${taken.stderr}\n${JSON.stringify(taken.json)}\n${fleet.logs()}`);
  assert.is(taken.json.epoch, 2);
  load.moveTo(fleet.url('b'));
  await load.progress(100);
  await load.stop();
  await fleet.caughtUp('b', ['c']);
  for (const table of [...loadTableNames, 'numbered', 'descending']) {
    await fleet.assertSame(table, 'b', ['b', 'c']);
  }
  assert.equal(await epochs('c'), [
    { epoch: 1, leader: 'a' },
    { epoch: 2, leader: 'b' },
  ]);
  const [{ sum, transfers, journal } = {}] = await fleet.sql('c', consistencyQuery);
  assert.is(sum, '40000');
  assert.is(transfers, journal);
});

test('sequences of the new leader give values that no row has', async () => {
  await fleet.sql('b', 'INSERT INTO numbered SELECT FROM generate_series(1, 20)');
  await fleet.sql('b', 'INSERT INTO descending SELECT FROM generate_series(1, 20)');
  await fleet.sql(
    'b',
    `INSERT INTO journal (writer, n) SELECT 900, i FROM generate_series(1, 20) i`,
  );
  await fleet.sql('b', 'DELETE FROM journal WHERE writer = 900');
  await fleet.caughtUp('b', ['c']);
  await fleet.assertSame('numbered', 'b', ['b', 'c']);
});

test('a label of the former reign cannot be given again, a new one can', async () => {
  const again = await fleet.cli('point', 'before');
  assert.is(again.code, 4);
  const after = await fleet.cli('point', 'after-failover');
  assert.is(after.code, 0, after.stderr);
  assert.match(after.json.lsn, /^2:/);
  const waited = await fleet.cli('wait', 'c', '--at', 'after-failover');
  assert.is(waited.code, 0, waited.stderr);
});

test('the old leader that returns stops by itself and refuses writes', async () => {
  await own.server.start();
  assert.is(await agents.a.exitCode(60_000), 3, agents.a.log);
  assert.match(agents.a.log, /LOST_LEADERSHIP/);
  const client = await fleet.session('a');
  for (const write of [
    `INSERT INTO journal (writer, n) VALUES (1000, 1)`,
    `BEGIN READ WRITE; UPDATE account SET balance = 0; COMMIT`,
    'BEGIN READ WRITE; CREATE TABLE more (id int)',
    'BEGIN READ WRITE; TRUNCATE account',
  ]) {
    await client.query('ROLLBACK');
    const error = await client.query(write).then(
      () => null,
      (reason: Error & { code?: string }) => reason,
    );
    assert.is(error?.code, '25006', `${write}: ${error?.message}`);
  }
  const again = fleet.spawnAgent('a');
  assert.is(await again.exitCode(), 3, again.log);
  const failover = await fleet.cli('failover', 'a', ...allow);
  assert.is(failover.code, 3, 'a node with discarded writes cannot take the lead');
});

test('a candidate without an agent is promoted by the command', async () => {
  load = new Load({ url: fleet.url('b'), firstWriter: 100 });
  await load.progress(50);
  assert.is(await agents.c.stop(), 0);
  await load.progress(50);
  const taken = await fleet.cli('failover', 'c', ...allow);
  assert.is(taken.code, 0, `${taken.stderr}\n${fleet.logs()}`);
  assert.is(taken.json.epoch, 3);
  assert.is(await agents.b.exitCode(), 3, agents.b.log);
  load.moveTo(fleet.url('c'));
  agents.c = await fleet.startAgent('c');
  await load.progress(50);
  await load.stop();
  const [{ sum, transfers, journal } = {}] = await fleet.sql('c', consistencyQuery);
  assert.is(sum, '40000');
  assert.is(transfers, journal);
  const status = await fleet.cli('status');
  assert.is(status.json.leader, 'c');
  assert.is(status.json.epoch, 3);
});

test.run();
