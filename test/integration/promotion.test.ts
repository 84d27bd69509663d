/**
 * Failover under load, with the leader's Postgres killed: what it takes, what it refuses, and what
 * becomes of the other follower, of sequences, of sessions, and of the former leader when its
 * server returns. Tests run in order, on one fleet.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Answer, Fleet } from '../support/fleet.ts';
import type { NodeName } from '../support/fleet-options.ts';
import { FleetUnderLoad, fewWorkloads } from '../support/fleet-under-load.ts';
import { followHint } from '../support/hint-runner.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

const allow = ['--allow-data-loss', '--reason', 'test'] as const;
const tables = `
  CREATE SEQUENCE numbers; CREATE TABLE numbered (id bigint PRIMARY KEY DEFAULT nextval('numbers'));
  CREATE TABLE descending (id int GENERATED ALWAYS AS IDENTITY (INCREMENT -1) PRIMARY KEY)`;

let stack: Stack;
let own: OwnServer;
let under: FleetUnderLoad;
let fleet: Fleet;
let refused: Answer | null = null;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 3 }), ownServer()]);
  under = await FleetUnderLoad.start({
    ...{ stack, nodes: 3, partitions: 2, tables, servers: { a: own.server } },
    ...{ workloads: fewWorkloads, watched: false, clients: { writers: 1 } },
  });
  fleet = under.fleet;
  await fleet.sql('a', 'INSERT INTO numbered SELECT FROM generate_series(1, 10)');
  await fleet.sql('a', 'INSERT INTO descending SELECT FROM generate_series(1, 10)');
  await fleet.sql('a', `SELECT understudy.point('before')`);
  await fleet.caughtUp();
});

test.after(async () => {
  await under.close();
  await Promise.all([stack.close(), own.close()]);
});

async function epochs(node: NodeName): Promise<unknown[]> {
  return fleet.sql(node, 'SELECT epoch, leader FROM understudy.epochs ORDER BY epoch');
}

/** Clients write to the new leader from now on. */
async function follow(leader: NodeName, nodes: readonly NodeName[]): Promise<void> {
  under.leader = leader;
  under.nodes = nodes;
  under.clients.moveTo(under.place(leader));
  await under.clients.cut();
}

test('a failover is refused without the allowance, and changes nothing', async () => {
  refused = await fleet.cli('failover', 'b');
  assert.is(refused.code, 6, refused.stderr);
  assert.is(refused.json.error.code, 'NEEDS_ALLOW_DATA_LOSS');
  const dry = await fleet.cli('failover', 'b', '--dry-run');
  assert.is(dry.code, 0, dry.stderr);
  assert.is(dry.json.epoch, 2);
  assert.is(dry.json.leaderUp, true);
  assert.match(dry.json.logLsn, /^1:/);
  assert.ok(dry.json.rpo.bytes >= 0, JSON.stringify(dry.json));
  assert.is((await fleet.cli('failover', 'nobody', ...allow)).code, 1);
  assert.is((await fleet.cli('failover', 'b', '--allow-data-loss')).code, 1);
  assert.is((await fleet.cli('failover', 'a', ...allow)).code, 4);
  await under.progress(20);
  assert.equal(await epochs('b'), [{ epoch: 1, leader: 'a' }]);
  const slots = 'SELECT slot_name FROM pg_replication_slots WHERE database = current_database()';
  assert.equal(await fleet.sql('b', slots), []);
});

test('a failover under load promotes the candidate, and the other node follows it', async () => {
  await under.progress(100);
  await own.server.kill();
  const dry = await fleet.cli('failover', 'b', '--dry-run');
  assert.equal([dry.code, dry.json.leaderUp], [0, false], JSON.stringify(dry));
  assert.match(dry.json.logLsn, /^1:/);
  assert.ok(refused);
  const [taken] = await followHint(fleet, 'needsAllowance', refused);
  assert.is(taken?.json.epoch, 2, fleet.logs());
  await follow('b', ['b', 'c']);
  await under.progress(100);
  await under.isExact();
  await fleet.assertAllSame(['numbered', 'descending'], 'b', ['b', 'c']);
  assert.equal(await epochs('c'), [
    { epoch: 1, leader: 'a' },
    { epoch: 2, leader: 'b' },
  ]);
});

test('sequences of the new leader give values that no row has', async () => {
  await fleet.sql('b', 'INSERT INTO numbered SELECT FROM generate_series(1, 20)');
  await fleet.sql('b', 'INSERT INTO descending SELECT FROM generate_series(1, 20)');
  await fleet.caughtUp('b', ['c']);
  await fleet.assertAllSame(['numbered', 'descending'], 'b', ['b', 'c']);
});

test('a label of the former epoch cannot be used again, a new one can', async () => {
  const again = await fleet.cli('point', 'before');
  assert.is(again.code, 4);
  const after = await fleet.cli('point', 'after-failover');
  assert.is(after.code, 0, after.stderr);
  assert.match(after.json.lsn, /^2:/);
  const waited = await fleet.cli('wait', 'c', '--at', 'after-failover');
  assert.is(waited.code, 0, waited.stderr);
});

test('the former leader stops by itself when its server returns, and refuses writes', async () => {
  await own.server.start();
  const former = fleet.agent('a');
  assert.is(await former.exitCode(), 3, former.log);
  assert.match(former.log, /LOST_LEADERSHIP/);
  const client = await fleet.session('a');
  for (const write of [
    `INSERT INTO entry (writer, n) VALUES (1000, 1)`,
    `BEGIN READ WRITE; UPDATE purse_a SET balance = 0; COMMIT`,
    'BEGIN READ WRITE; CREATE TABLE more (id int)',
    'BEGIN READ WRITE; TRUNCATE purse_a',
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
  assert.is(failover.code, 3, 'a node with discarded writes cannot be promoted');
});

test('a candidate without an agent is promoted by the command', async () => {
  await under.progress(50);
  assert.is(await fleet.agent('c').stop(), 0);
  await under.progress(50);
  const taken = await fleet.cli('failover', 'c', ...allow);
  assert.is(taken.code, 0, `${taken.stderr}\n${fleet.logs()}`);
  assert.is(taken.json.epoch, 3);
  assert.is(await fleet.agent('b').exitCode(), 3, fleet.agent('b').log);
  await fleet.startAgent('c');
  await follow('c', ['c']);
  await under.progress(50);
  await under.isExact();
  const status = await fleet.status();
  assert.equal([status.leader, status.epoch], ['c', 3]);
});

test.run();
