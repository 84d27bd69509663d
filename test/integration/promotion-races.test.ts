/**
 * Promotions that meet each other or are killed half-way: exactly one node leads, the loser
 * continues to follow, and a promotion that had claimed is finished by the next start or overtaken
 * by another, the former leader included. Tests without a fleet of their own continue with the one
 * before.
 */
// time-limit: 400s
// runs: ci, since test/model/claim.test.ts has all races
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Fleet } from '../support/fleet.ts';
import type { NodeName } from '../support/fleet-options.ts';
import { FleetUnderLoad } from '../support/fleet-under-load.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { bank } from '../support/workloads/bank.ts';
import { entries } from '../support/workloads/entries.ts';

const allow = ['--allow-data-loss', '--reason', 'test'] as const;
let stack: Stack;
let under: FleetUnderLoad | null = null;

test.before(async () => {
  stack = await useStack({ postgres: 3 });
});

test.after(async () => {
  await under?.close();
  await stack.close();
});

async function newFleet(): Promise<FleetUnderLoad> {
  await under?.close();
  const workloads = [bank, entries];
  under = await FleetUnderLoad.start({
    ...{ stack, nodes: 3, partitions: 2, workloads, watched: false },
    clients: { writers: 1 },
  });
  return under;
}

function sameFleet(): FleetUnderLoad {
  assert.ok(under, 'the test before has a fleet');
  return under;
}

/** Clients write to the new leader, and rows are compared on these nodes. */
async function lead(one: FleetUnderLoad, leader: NodeName, nodes: readonly NodeName[]) {
  one.leader = leader;
  one.nodes = nodes;
  one.clients.moveTo(one.place(leader));
  await one.clients.cut();
}

async function slots(fleet: Fleet, node: NodeName): Promise<readonly string[]> {
  const rows = await fleet.sql<{ slot_name: string }>(
    node,
    'SELECT slot_name FROM pg_replication_slots WHERE database = current_database()',
  );
  return rows.map(({ slot_name }) => slot_name.replace(fleet.cluster, ''));
}

test('of two failovers at the same time one wins, and the loser continues to follow', async () => {
  const one = await newFleet();
  const { fleet } = one;
  // A failover takes less than the start of a command: both candidates wait before their claim.
  for (const node of ['b', 'c'] as const) {
    await fleet.agent(node).stop();
    await fleet.startAgent(node, 'promote.after-slot=pause:15000');
  }
  await one.progress(50);
  await one.clients.pause();
  await fleet.agent('a').kill();
  let answered = 0;
  const answers = Promise.all(
    (['b', 'c'] as const).map(async (node) => {
      const answer = await fleet.cli('failover', node, ...allow);
      answered += 1;
      return answer;
    }),
  );
  const created = async () => [await slots(fleet, 'b'), await slots(fleet, 'c')];
  await fleet.until('both failovers have begun', created, {
    reached: (all) => all.every((names) => names.includes('understudy__2')),
    hopeless: () => (answered === 0 ? null : 'a failover was over before'),
  });
  const [b, c] = await answers;
  assert.equal([b?.code, c?.code].sort(), [0, 3], JSON.stringify([b, c]));
  const [winner, loser] = b?.code === 0 ? (['b', 'c'] as const) : (['c', 'b'] as const);
  const lost = winner === 'b' ? c : b;
  assert.is(lost?.json.error.code, 'CLAIM_LOST', JSON.stringify(lost));
  await lead(one, winner, ['b', 'c']);
  one.clients.resume();
  await one.progress(50);
  await one.isExact();
  assert.equal(await slots(fleet, loser), [], 'the loser keeps no WAL');
  assert.is((await fleet.status()).leader, winner);
});

test('a promotion that is killed before its claim changes nothing', async () => {
  const one = await newFleet();
  const { fleet } = one;
  await fleet.agent('b').stop();
  await one.progress(20);
  const died = await fleet.cliDyingAt('promote.after-slot=kill', 'failover', 'b', ...allow);
  assert.is(died.code, null, died.stderr);
  assert.equal(await slots(fleet, 'b'), ['understudy__2']);
  await fleet.startAgent('b');
  await one.progress(20);
  await one.isExact();
  assert.equal(await slots(fleet, 'b'), [], 'a slot that nothing reads would keep WAL for ever');
});

test('a promotion that is killed after its claim is finished by the next start', async () => {
  const one = sameFleet();
  const { fleet } = one;
  for (const [node, failpoint, epoch, former] of [
    ['b', 'own.after-claim', 2, 'a'],
    ['c', 'own.before-epoch-begin', 3, 'b'],
  ] as const) {
    await fleet.agent(node).stop();
    const died = await fleet.cliDyingAt(`${failpoint}=kill`, 'failover', node, ...allow);
    assert.is(died.code, null, died.stderr);
    assert.is(await fleet.agent(former).exitCode(), 3, fleet.agent(former).log);
    const agent = await fleet.startAgent(node);
    await agent.logged(/"message":"leading"/);
    await lead(one, node, node === 'b' ? ['b', 'c'] : ['c']);
    await one.progress(30);
    assert.is((await fleet.status()).epoch, epoch);
    await one.isExact();
  }
});

test('a promotion that is killed after its claim is overtaken by another node', async () => {
  const one = await newFleet();
  const { fleet } = one;
  await one.progress(30);
  await fleet.agent('b').stop();
  const died = await fleet.cliDyingAt('own.after-init=kill', 'failover', 'b', ...allow);
  assert.is(died.code, null, died.stderr);
  assert.is(await fleet.agent('a').exitCode(), 3, fleet.agent('a').log);
  const taken = await fleet.cli('failover', 'c', ...allow);
  assert.is(taken.code, 0, `${taken.stderr}\n${fleet.logs()}`);
  assert.is(taken.json.epoch, 3);
  assert.match(taken.json.base, /^1:/);
  await fleet.startAgent('b');
  await lead(one, 'c', ['b', 'c']);
  await one.progress(50);
  await one.isExact();
  assert.equal(await slots(fleet, 'b'), []);
});

test('a promoted node that is killed before it lifts the guard leads after its start', async () => {
  const one = sameFleet();
  const { fleet } = one;
  await fleet.agent('b').stop();
  const died = await fleet.cliDyingAt('promote.before-unguard=kill', 'failover', 'b', ...allow);
  assert.is(died.code, null, died.stderr);
  await fleet.startAgent('b').then((agent) => agent.logged(/"message":"leading"/));
  await lead(one, 'b', ['b']);
  await one.progress(20);
  await one.isExact();
});

test('a promotion that is killed after its claim is superseded by the former leader', async () => {
  const one = await newFleet();
  const { fleet } = one;
  await one.progress(30);
  await fleet.agent('b').stop();
  const died = await fleet.cliDyingAt('own.after-init=kill', 'failover', 'b', ...allow);
  assert.is(died.code, null, died.stderr);
  assert.is(await fleet.agent('a').exitCode(), 3, fleet.agent('a').log);
  const taken = await fleet.cli('failover', 'a', ...allow);
  assert.is(taken.code, 0, `${taken.stderr}\n${fleet.logs()}`);
  assert.is(taken.json.epoch, 3);
  assert.match(taken.json.base, /^1:/);
  await fleet.startAgent('a');
  await fleet.startAgent('b');
  await lead(one, 'a', ['a', 'b', 'c']);
  await one.progress(50);
  await one.isExact();
  const back = await fleet.cli('failover', 'b', ...allow);
  assert.is(back.code, 0, `${back.stderr}\n${fleet.logs()}`);
  await lead(one, 'b', ['b', 'c']);
  // Now the next epoch has begun. An agent that restarts answers the command that waits for it.
  assert.is(await fleet.agent('a').exitCode(), 3, fleet.agent('a').log);
  const starts = async (): Promise<unknown> =>
    (await fleet.sql('a', 'SELECT start_number FROM understudy.node'))[0]?.['start_number'];
  const before = await starts();
  const again = fleet.spawnAgent('a', 'agent.after-start=pause:8000');
  await fleet.until('the agent of a starts', starts, { reached: (now) => now !== before });
  const late = await fleet.cli('failover', 'a', ...allow);
  assert.is(late.json.error.code, 'LOST_LEADERSHIP', JSON.stringify(late));
  assert.is(await again.exitCode(), 3, again.log);
});

test.run();
