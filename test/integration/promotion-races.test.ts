/**
 * Promotions that meet each other or die half-way: exactly one node leads, whoever lost goes on
 * following, and a promotion that had claimed is finished by the next start or overtaken by
 * another.
 */
// runs: ci
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, type NodeName, patienceMs, startFleet } from '../support/fleet.ts';
import { Load, loadRows, loadTableNames, loadTables } from '../support/load.ts';
import { type Stack, useStack } from '../support/stack.ts';

const allow = ['--allow-data-loss', '--reason', 'test'] as const;
let stack: Stack;
const fleets: Fleet[] = [];

test.before(async () => {
  stack = await useStack({ postgres: 3 });
});

test.after(async () => {
  for (const fleet of fleets) await fleet.close();
  await stack.close();
});

async function newFleet(): Promise<Fleet> {
  const fleet = await startFleet({ stack, nodes: 3, partitions: 2, tables: loadTables });
  fleets.push(fleet);
  return fleet;
}

async function slots(fleet: Fleet, node: NodeName): Promise<unknown[]> {
  const rows = await fleet.sql<{ slot_name: string }>(
    node,
    'SELECT slot_name FROM pg_replication_slots WHERE database = current_database()',
  );
  return rows.map(({ slot_name }) => slot_name.replace(fleet.cluster, ''));
}

async function assertExact(fleet: Fleet, leader: NodeName, nodes: NodeName[]): Promise<void> {
  await fleet.caughtUp(leader, nodes);
  for (const table of loadTableNames) await fleet.assertSame(table, leader, nodes);
}

test('of two failovers at the same time one wins, and the loser goes on following', async () => {
  const fleet = await newFleet();
  // A failover takes less than the start of a command: both candidates wait before their claim.
  const racing = 'promote.after-slot=pause:15000';
  const agents = {
    a: await fleet.startAgent('a'),
    b: await fleet.startAgent('b', racing),
    c: await fleet.startAgent('c', racing),
  };
  await fleet.sql('a', loadRows);
  const load = new Load({ url: fleet.url('a') });
  await load.progress(50);
  await load.stop();
  await agents.a.kill();
  let answered = 0;
  const answers = Promise.all(
    (['b', 'c'] as const).map(async (node) => {
      const answer = await fleet.cli('failover', node, ...allow);
      answered += 1;
      return answer;
    }),
  );
  for (const deadlineMs = Date.now() + patienceMs; ; await sleep(50)) {
    const made = [await slots(fleet, 'b'), await slots(fleet, 'c')];
    assert.is(answered, 0, `a failover was over before both had begun\n${fleet.logs()}`);
    if (made.every((names) => names.includes('understudy__2'))) break;
    assert.ok(Date.now() < deadlineMs, `${JSON.stringify(made)}\n${fleet.logs()}`);
  }
  const [b, c] = await answers;
  assert.equal([b?.code, c?.code].sort(), [0, 3], JSON.stringify([b, c]));
  const [winner, loser] = b?.code === 0 ? (['b', 'c'] as const) : (['c', 'b'] as const);
  const lost = winner === 'b' ? c : b;
  assert.is(lost?.json.error.code, 'CLAIM_LOST', JSON.stringify(lost));
  const after = new Load({ url: fleet.url(winner), firstWriter: 50 });
  await after.progress(50);
  await after.stop();
  await assertExact(fleet, winner, ['b', 'c']);
  assert.is(agents[loser].ended, false);
  assert.equal(await slots(fleet, loser), [], 'the loser keeps no WAL');
  assert.is((await fleet.cli('status')).json.leader, winner);
});

test('a promotion that dies before its claim changes nothing', async () => {
  const fleet = await newFleet();
  const agents = await fleet.startAgents();
  await fleet.sql('a', loadRows);
  await agents.b.stop();
  const load = new Load({ url: fleet.url('a') });
  await load.progress(20);
  const died = await fleet.cliDyingAt('promote.after-slot=kill', 'failover', 'b', ...allow);
  assert.is(died.code, null, died.stderr);
  assert.equal(await slots(fleet, 'b'), ['understudy__2']);
  await fleet.startAgent('b');
  await load.progress(20);
  await load.stop();
  await assertExact(fleet, 'a', ['a', 'b', 'c']);
  assert.is(agents.a.ended, false);
  assert.equal(await slots(fleet, 'b'), [], 'a slot of nobody would keep WAL for ever');
});

test('a promotion that dies after its claim is finished by the next start', async () => {
  const fleet = fleets.at(-1) as Fleet;
  const load = new Load({ url: fleet.url('b'), firstWriter: 50 });
  for (const [node, place, epoch, former] of [
    ['b', 'own.after-claim', 2, 'a'],
    ['c', 'own.before-epoch-begin', 3, 'b'],
  ] as const) {
    const agent = fleet.agent(node);
    await agent.stop();
    const died = await fleet.cliDyingAt(`${place}=kill`, 'failover', node, ...allow);
    assert.is(died.code, null, died.stderr);
    assert.is(await fleet.agent(former).exitCode(), 3, fleet.agent(former).log);
    const going = await fleet.startAgent(node);
    await going.says(/"message":"leading"/);
    load.moveTo(fleet.url(node));
    await load.progress(30);
    assert.is((await fleet.cli('status')).json.epoch, epoch);
    if (node === 'b') await fleet.caughtUp('b', ['c']);
  }
  await load.stop();
});

test('a promotion that dies after its claim is overtaken by another node', async () => {
  const fleet = await newFleet();
  const agents = await fleet.startAgents();
  await fleet.sql('a', loadRows);
  const load = new Load({ url: fleet.url('a') });
  await load.progress(30);
  await agents.b.stop();
  const died = await fleet.cliDyingAt('own.after-init=kill', 'failover', 'b', ...allow);
  assert.is(died.code, null, died.stderr);
  assert.is(await agents.a.exitCode(), 3, agents.a.log);
  const taken = await fleet.cli('failover', 'c', ...allow);
  assert.is(taken.code, 0, `${taken.stderr}\n${fleet.logs()}`);
  assert.is(taken.json.epoch, 3);
  assert.match(taken.json.base, /^1:/);
  load.moveTo(fleet.url('c'));
  await fleet.startAgent('b');
  await load.progress(50);
  await load.stop();
  await assertExact(fleet, 'c', ['b', 'c']);
  assert.equal(await slots(fleet, 'b'), []);
});

test('a promoted node that dies before it lifts the guard leads after its next start', async () => {
  const fleet = fleets.at(-1) as Fleet;
  await fleet.agent('b').stop();
  const died = await fleet.cliDyingAt('promote.before-unguard=kill', 'failover', 'b', ...allow);
  assert.is(died.code, null, died.stderr);
  await fleet.startAgent('b').then((agent) => agent.says(/"message":"leading"/));
  const load = new Load({ url: fleet.url('b'), firstWriter: 90 });
  await load.progress(20);
  await load.stop();
});

test.run();
