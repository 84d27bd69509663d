/**
 * What breaks: a Kafka transaction is committed in part, or another program writes to the topic.
 * The rules: a point counts the records of every partition, so that a follower whose counts do not
 * match stops before it applies any, records the damage, and no node can be promoted any more.
 * Where the publisher itself was torn, and left records that no point covers, the next owner begins
 * a new epoch at the last whole point: what is past it is void, and is published again. Tests run
 * in order: the first three share a fleet.
 */
// runs: ci, since test/model/publish.test.ts tears every batch
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { againAfter, Forger } from '../support/forger.ts';
import { followHint } from '../support/hint-runner.ts';
import { type Stack, useStack } from '../support/stack.ts';

const partitions = 2;
let stack: Stack;
let fleet: Fleet;
let forger: Forger;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  await newFleet();
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

/**
 * Every row has a first version in the log: on a follower it shows that a forged one was applied.
 */
async function newFleet(): Promise<void> {
  const tables = 'CREATE TABLE item (id int PRIMARY KEY, body text)';
  fleet = await startFleet({ stack, partitions, tables });
  forger = new Forger(fleet);
  await fleet.startAgents();
  await fleet.sql('a', `INSERT INTO item SELECT i, 'first' FROM generate_series(1, 20) AS i`);
  await fleet.sql('a', `UPDATE item SET body = 'second'`);
  await fleet.caughtUp();
}

async function nextFleet(): Promise<void> {
  await fleet.close();
  await newFleet();
}

/** No agent publishes meanwhile, so that what is forged follows the last point directly. */
async function forge(
  make: () => Promise<Parameters<Forger['commit']>[1]>,
  who: Parameters<Forger['commit']>[0] = 'publisher',
): Promise<void> {
  await fleet.agent('a').stop();
  await forger.commit(who, await make());
}

async function epochs(node: 'a' | 'b'): Promise<number> {
  const [row] = await fleet.sql(node, 'SELECT max(epoch)::int AS epoch FROM understudy.epochs');
  return Number(row?.['epoch']);
}

/** The forged rows are void, the real ones arrive, in a new epoch. */
async function isVoid(): Promise<void> {
  const before = await epochs('b');
  await fleet.sql('a', `INSERT INTO item SELECT max(id) + 1, 'later' FROM item`);
  await fleet.startAgent('a');
  await fleet.caughtUp();
  await fleet.assertSame('item');
  const rows = await fleet.sql('b', `SELECT 1 FROM item WHERE body = 'first'`);
  assert.is(rows.length, 0, 'a forged row was applied');
  assert.is(await epochs('b'), before + 1);
}

async function stopsDamaged(agent: FleetAgent): Promise<void> {
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(agent.log, /"code":\s*"DAMAGED"/);
}

/** The follower stops, and stops again; its rows are unchanged; no node can be promoted. */
async function isDamaged(): Promise<void> {
  await stopsDamaged(fleet.agent('b'));
  await stopsDamaged(fleet.spawnAgent('b'));
  const firsts = await fleet.sql('b', `SELECT 1 FROM item WHERE body = 'first'`);
  assert.is(firsts.length, 0, 'a forged row was applied');
  const { nodes } = await fleet.status();
  assert.equal(
    nodes.map(({ promotable }) => promotable),
    [false, false],
  );
  const refused = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'test');
  assert.is(refused.json.error.code, 'NOT_PROMOTABLE');
  assert.match(refused.json.error.message, /damaged/);
}

test('rows of a publisher that never wrote its point are void in the next epoch', async () => {
  await forge(async () => {
    const [row] = await forger.firstVersions();
    return row === undefined ? [] : [againAfter(await forger.lastPoint(), row)];
  });
  await isVoid();
});

test('a point that only one partition has is void with its rows', async () => {
  await forge(async () => {
    const last = await forger.lastPoint();
    const rows = (await forger.firstVersions()).map((row) => againAfter(last, row));
    const [point] = await forger.pointAfter(last, [1, 1]);
    return point === undefined ? [] : [...rows, point];
  });
  await isVoid();
});

test('a promotion at a torn end voids it too', async () => {
  await forge(async () => {
    const last = await forger.lastPoint();
    return (await forger.firstVersions()).map((row) => againAfter(last, row));
  });
  const { code, stderr } = await fleet.cli(
    ...['failover', 'b', '--allow-data-loss', '--reason', 'test'],
  );
  assert.is(code, 0, `${stderr}\n${fleet.logs()}`);
  const firsts = await fleet.sql('b', `SELECT 1 FROM item WHERE body = 'first'`);
  assert.is(firsts.length, 0, 'a forged row was applied');
  await fleet.sql('b', `INSERT INTO item VALUES (1000, 'led by b')`);
});

test('a point whose rows are missing in one partition stops the follower', async () => {
  await nextFleet();
  await forge(async () => {
    const last = await forger.lastPoint();
    const [row] = (await forger.firstVersions()).map((one) => againAfter(last, one));
    const points = await forger.pointAfter(last, [1, 1]);
    return row === undefined ? [] : [row, ...points];
  });
  await isDamaged();
});

test('a row of another program stops leader and follower at the next point', async () => {
  await nextFleet();
  const [row] = await forger.firstVersions();
  assert.ok(row);
  await forger.commit('stranger', [againAfter(await forger.lastPoint(), row)]);
  await fleet.sql('a', `INSERT INTO item VALUES (100, 'counted')`);
  await stopsDamaged(fleet.agent('a'));
  await isDamaged();
});

test('damage is open until it is closed with a reason, and then every node goes on', async () => {
  const again = fleet.spawnAgent('a');
  await stopsDamaged(again);
  assert.match(again.log, /leads a topic that is damaged, and publishes nothing/);
  const rebuild = await fleet.cli('rebuild', 'b');
  assert.is(rebuild.json.error.code, 'PREREQUISITE');
  const shown = await fleet.cli('repair-damage');
  assert.is(shown.code, 4);
  assert.match(shown.json.error.message, /nothing was changed: .*found by node a/);
  const [open] = (await fleet.status()).damage ?? [];
  assert.is(open?.repair, null);
  const reason = { fill: { text: 'a stray producer' } };
  const [closed] = await followHint(fleet, 'repairHint', again, reason);
  assert.is(closed?.json.tables, 1);
  await followHint(fleet, 'leaderOfDamaged', again);
  await fleet.sql('a', `INSERT INTO item VALUES (101, 'after the repair')`);
  await fleet.startAgent('b');
  await fleet.until('b to be promotable', async () => (await fleet.status()).nodes[1], {
    reached: (b) => b?.promotable === true,
    timeoutMs: 60_000,
  });
  await fleet.caughtUp();
  await fleet.assertSame('item');
  const [kept] = (await fleet.status()).damage ?? [];
  assert.is(kept?.repair?.reason, 'a stray producer');
  const [repeated] = await followHint(fleet, 'damageNotClosed', shown);
  assert.is(repeated?.json.closed.length, 0);
});

test.run();
