/**
 * The leader's slot or publication is dropped, by a person or by Postgres itself. The agent warns
 * while there is time, the stream ends with a reason and not before it has one, `status` shows it
 * from the database alone, and the follower stays exact at its position. One command then
 * resnapshots every table: what was written meanwhile arrives, and what was deleted is removed.
 */
// time-limit: 360s
// runs: ci, since test/unit/check-slot.test.ts has the decisions
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import type { NodeStatus } from '../../src/fleet/status/node-status.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { followHint } from '../support/hint-runner.ts';
import { type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TABLE item (id int PRIMARY KEY);
  CREATE TABLE tree (id int PRIMARY KEY) PARTITION BY RANGE (id);
  CREATE TABLE tree_low PARTITION OF tree FOR VALUES FROM (0) TO (10)`;
let stack: Stack;
let sandbox: Sandbox;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 0 });
  sandbox = await startSandbox({ postgres: 2, brokers: 1, registry: false, log: () => undefined });
});

test.after(async () => {
  await sandbox.stop();
  await stack.close();
});

test.before.each(async () => {
  const [a, b] = sandbox.postgres;
  fleet = await startFleet({
    stack,
    tables,
    servers: { ...(a && { a }), ...(b && { b }) },
    brokers: sandbox.brokers,
  });
});

test.after.each(async () => {
  await fleet.close();
});

async function begin(): Promise<FleetAgent> {
  const { a } = await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1)');
  await fleet.caughtUp();
  return a;
}

/** With exit code 4 and this reason, now and when it is started again. */
async function stops(agent: FleetAgent, code: string, reason: RegExp): Promise<FleetAgent> {
  const isThisStop = async (one: FleetAgent): Promise<FleetAgent> => {
    assert.is(await one.exitCode(), 4, one.log);
    assert.match(one.log, new RegExp(`"code":\\s*"${code}"`));
    assert.match(one.log, reason);
    return one;
  };
  await isThisStop(agent);
  return await isThisStop(fleet.spawnAgent('a'));
}

/** The databases are up all the time, the broker is not. */
async function statusOfA(): Promise<NodeStatus> {
  const { nodes } = await fleet.status(false);
  const a = nodes.find(({ name }) => name === 'a');
  assert.ok(a);
  return a;
}

/** The follower has what was in the stream, and its agent runs. */
async function followerIsUnchanged(): Promise<void> {
  assert.equal(await fleet.sql('b', 'SELECT id FROM item'), [{ id: 1 }]);
  assert.not(fleet.agent('b').ended, fleet.logs());
}

/** A resnapshot brings what was not published, deletes too, and the stream continues. */
async function resnapshots(
  marker: string,
  stopped: FleetAgent,
  diesAt: readonly string[] = [],
): Promise<void> {
  await fleet.sql('a', 'DELETE FROM item WHERE id = 1');
  // Neither it nor its rows are published; later it looks like a table that was just created.
  const high = 'CREATE TABLE tree_high PARTITION OF tree FOR VALUES FROM (10) TO (20)';
  await fleet.tamper('b', high);
  await fleet.sql('a', `${high}; INSERT INTO tree VALUES (3), (13)`);
  const one = await fleet.cli('resnapshot', 'public.item');
  assert.is(one.code, 4, one.stderr);
  assert.match(one.json.error.hint, /resnapshot --all/);
  for (const failpoint of diesAt) {
    const died = await fleet.cliDyingAt(`${failpoint}=kill`, 'resnapshot', '--all');
    assert.is(died.code, null, `${failpoint}: ${died.stdout}${died.stderr}`);
  }
  const [answer] = await followHint(fleet, marker, stopped);
  assert.is(answer?.json.newEpoch, true);
  await fleet.startAgent('a');
  const again = await fleet.cli('resnapshot', 'public.item');
  assert.is(again.code, 0, again.stderr);
  await fleet.sql('a', 'INSERT INTO item VALUES (3)');
  await fleet.caughtUp();
  assert.equal(await fleet.sql('b', 'SELECT id FROM item ORDER BY id'), [{ id: 2 }, { id: 3 }]);
  assert.equal(await fleet.sql('b', 'SELECT id FROM tree ORDER BY id'), [{ id: 3 }, { id: 13 }]);
  const slots = await fleet.sql('a', 'SELECT slot_name FROM pg_replication_slots');
  assert.is(slots.length, 1, JSON.stringify(slots));
  const { json: verified } = await fleet.cli('verify');
  assert.is(verified.equal, true, JSON.stringify(verified));
}

const slotName = (): string => `understudy_${fleet.cluster}_1`;

test('a slot that is dropped ends the stream', async () => {
  const agent = await begin();
  // The agent opens its session again within moments: repeated until the slot is dropped.
  const drop = `SELECT pg_terminate_backend(active_pid, 5000), pg_drop_replication_slot(slot_name)
    FROM pg_replication_slots WHERE slot_name = $1`;
  const exists = 'SELECT FROM pg_replication_slots WHERE slot_name = $1';
  const attempt = async (): Promise<true | string> => {
    // Where the agent was quicker, the slot is in use: the next attempt terminates that session.
    const refused = await fleet.sql('a', drop, [slotName()]).catch(String);
    const isDropped = (await fleet.sql('a', exists, [slotName()])).length === 0;
    return isDropped || String(refused);
  };
  await fleet.until('the slot is dropped', attempt, { pollMs: 0 });
  await fleet.sql('a', 'INSERT INTO item VALUES (2)');
  const stopped = await stops(agent, 'SLOT_MISMATCH', /does not exist.*resnapshot --all/);
  const a = await statusOfA();
  assert.is(a.state, 'stopped');
  assert.is(a.slot, null);
  assert.match(a.why.join(), /slot is missing: its writes are not published/);
  await followerIsUnchanged();
  await resnapshots('slotLostHint', stopped);
});

/** One segment of WAL, nearly for nothing. */
async function writeSegments(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) {
    await fleet.sql(
      'a',
      `SELECT pg_logical_emit_message(false, 'test', 'x'); SELECT pg_switch_wal()`,
    );
  }
}

test('a slot that Postgres invalidates is warned of first, and then ends the stream', async () => {
  const agent = await begin();
  await sandbox.postgres[0]?.configure({ max_slot_wal_keep_size: '320MB' });
  const [broker] = sandbox.kafka;
  await broker?.kill();
  await fleet.sql('a', 'INSERT INTO item VALUES (2)');
  await writeSegments(14);
  // Its check may come between two segments; the status shows how much it is by now.
  await agent.logged(/"level":"warn"[^\n]*keeps \d+ MB of WAL, and is invalidated after/);
  const more = { on: ['a'], fill: { size: '320MB' } } as const;
  await followHint(fleet, 'remedyOf: ALTER SYSTEM', agent, more);
  await followHint(fleet, 'remedyOf: pg_reload_conf', agent, more);
  const waiting = await statusOfA();
  assert.ok((waiting.slot?.retainedBytes ?? 0) > 14 * 2 ** 24 - 2 ** 24, JSON.stringify(waiting));
  assert.match(waiting.why.join(), /keeps 2\d\d MB of WAL, and is invalidated after/);
  await writeSegments(4);
  await agent.logged(/"level":"error"[^\n]*keeps [23]\d\d MB of WAL, and is invalidated after/);
  await writeSegments(6);
  await fleet.sql('a', 'CHECKPOINT');
  await agent.logged(/"level":"error"[^\n]*has lost WAL: its writes are not published/);
  assert.not(agent.ended, 'the control log was not read yet');
  const lost = await statusOfA();
  assert.is(lost.slot?.walStatus, 'lost');
  assert.match(lost.why.join(), /has lost WAL/);

  await broker?.start();
  const stopped = await stops(agent, 'SLOT_MISMATCH', /has lost its WAL.*resnapshot --all/);
  const a = await statusOfA();
  assert.is(a.state, 'stopped');
  assert.match(a.why.join(), /no agent runs.*has lost WAL/);
  await followerIsUnchanged();
  await resnapshots('slotLostHint', stopped);
});

test('a publication that is dropped ends the stream, whatever is written afterwards', async () => {
  const agent = await begin();
  await fleet.sql('a', `DROP PUBLICATION understudy_${fleet.cluster}`);
  await fleet.sql('a', 'INSERT INTO item VALUES (2)');
  const stopped = await stops(agent, 'SCHEMA_CHANGED', /publication understudy_\w+ was dropped/);
  await followerIsUnchanged();
  await resnapshots('publicationChanged', stopped, [
    ...['anew.after-drop', 'anew.after-publication', 'promote.after-slot'],
    ...['own.after-claim', 'own.after-fence', 'own.after-ask'],
  ]);
});

test.run();
