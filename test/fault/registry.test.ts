/**
 * What breaks: the schema registry is down, slow, answers with errors, does not know a schema that
 * it registered, or gives the id of another one. The rules: a schema that is known is never
 * requested again, so running agents do not need it; an agent that needs it retries, or stops where
 * a retry cannot help; no row is ever written under the id of another schema, or read by one. Tests
 * run in order, each on a table of its own.
 */
// runs: ci, since test/integration/topic-registry.test.ts has its kind
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FailingRegistry, type Mood } from '../support/failing-registry.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import type { NodeName } from '../support/fleet-options.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';

/** A schema is requested with the first row of its table: each test has a table of its own. */
const tableCount = 6;
const down: Mood = { kind: 'down' };
const well: Mood = { kind: 'well' };
let stack: Stack;
let registries: Readonly<Record<'a' | 'b', FailingRegistry>>;
let fleet: Fleet;
let rows = 0;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  const [a, b] = [await startRegistry(), await startRegistry()];
  registries = { a, b };
  const names = Array.from({ length: tableCount }, (_, n) => `item${n}`);
  const tables = names.map((name) => `CREATE TABLE ${name} (id int PRIMARY KEY, ${name} text)`);
  const links = { a: { registryUrl: a.url }, b: { registryUrl: b.url } };
  fleet = await startFleet({ stack, partitions: 2, tables: tables.join(';'), links });
  await fleet.startAgents();
});

test.after(async () => {
  behave(well);
  await fleet.close();
  await Promise.all([registries.a.close(), registries.b.close()]);
  await stack.close();
});

function startRegistry(): Promise<FailingRegistry> {
  return FailingRegistry.start(stack.registryUrl);
}

function behave(mood: Mood): void {
  registries.a.behave(mood);
  registries.b.behave(mood);
}

async function write(table: number): Promise<void> {
  rows += 1;
  await fleet.sql('a', `INSERT INTO item${table} SELECT $1, repeat('x', $1::int)`, [rows]);
}

async function isExact(): Promise<void> {
  await fleet.caughtUp();
  for (let table = 0; table < tableCount; table += 1) await fleet.assertSame(`item${table}`);
}

async function restart(node: NodeName): Promise<FleetAgent> {
  await fleet.agent(node).stop();
  return fleet.spawnAgent(node);
}

async function stopsWith(agent: FleetAgent, code: string, why: RegExp): Promise<void> {
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(agent.log, new RegExp(`"code":\\s*"${code}"`));
  assert.match(agent.log, why);
}

test('running agents do not need the registry', async () => {
  await write(0);
  await fleet.caughtUp();
  const asked = (): number => registries.a.requests + registries.b.requests;
  // The leader registers the schemas of all tables beside the stream, once it leads.
  let before = -1;
  const isQuiet = (): boolean => {
    const seen = before;
    before = asked();
    return seen === before;
  };
  await fleet.until('all schemas are registered', isQuiet, { pollMs: 1_000 });
  behave(down);
  for (let n = 0; n < 20; n += 1) await write(0);
  await isExact();
  assert.is(asked(), before);
  behave(well);
});

const unavailable: Mood = { kind: 'status', status: 500 };
const lost: Mood = { kind: 'status', status: 404 };
const slow: Mood = { kind: 'slow', delayMs: 150 };
/** Longer than the agent waits for an answer. */
const tooSlow: Mood = { kind: 'slow', delayMs: 12_000 };
const short: readonly (readonly [Mood, Mood])[] = [
  [down, unavailable],
  [lost, slow],
];
const long: typeof short = [
  [unavailable, down],
  [slow, lost],
  [tooSlow, tooSlow],
];
for (const [forLeader, forFollower] of isFull ? [...short, ...long] : short) {
  const name = [forLeader, forFollower].map((mood) => Object.values(mood).join(' ')).join(', ');
  test(`a start waits for registries that fail (${name})`, async () => {
    registries.a.behave(forLeader);
    registries.b.behave(forFollower);
    const agents = [await restart('a'), await restart('b')] as const;
    for (const [at, mood] of [forLeader, forFollower].entries()) {
      const line = mood === slow ? /"message":"(leading|following)"/ : /REGISTRY_UNREACHABLE/;
      await agents[at]?.logged(line);
    }
    behave(well);
    await write(2);
    await isExact();
  });
}

test('a follower stops at a schema that its registry lacks, and continues later', async () => {
  registries.b.behave({ kind: 'status', status: 404 });
  const held = await fleet.digest('b', 'item0');
  await write(3);
  await write(0);
  await stopsWith(fleet.agent('b'), 'PREREQUISITE', /does not know schema/);
  assert.is(await fleet.digest('b', 'item0'), held, 'a later row is applied');
  behave(well);
  await fleet.startAgent('b');
  await isExact();
});

test('a leader writes nothing under the id of another table’s schema', async () => {
  const subject = `${fleet.cluster}.changes-understudy.rows.public.item0`;
  const latest = await fetch(`${stack.registryUrl}/subjects/${subject}/versions/latest`);
  const { id } = (await latest.json()) as { id: number };
  // The agent registers the schemas of all tables when it starts to lead.
  await fleet.agent('a').stop();
  registries.a.behave({ kind: 'other id', subject: /item4$/, id });
  const agent = await fleet.startAgent('a');
  await write(4);
  await stopsWith(agent, 'PREREQUISITE', /which is another schema/);
  await stopsWith(fleet.spawnAgent('a'), 'PREREQUISITE', /which is another schema/);
  behave(well);
  await fleet.startAgent('a');
  await isExact();
});

test('agents stop where the registry has other ids than the topic', async () => {
  for (const node of ['b', 'a'] as const) {
    registries[node].behave({ kind: 'renumbered', by: 1_000_000 });
    const agent = await restart(node);
    await write(0);
    await stopsWith(agent, 'PREREQUISITE', /a key has schema .* the schema registry is another/);
  }
  behave(well);
  await fleet.startAgents();
  await isExact();
});

test('the first row of a table that enters later waits for the registry', async () => {
  behave(down);
  const late = 'CREATE TABLE late (id int PRIMARY KEY, note text)';
  await fleet.tamper('b', late);
  await fleet.sql('a', late);
  await fleet.sql('a', `ALTER PUBLICATION "understudy_${fleet.cluster}" ADD TABLE ONLY late`);
  await fleet.sql('a', `INSERT INTO late VALUES (1, 'one')`);
  await fleet.agent('a').logged(/REGISTRY_UNREACHABLE/);
  behave(well);
  const arrived = async (): Promise<number> => (await fleet.sql('b', 'SELECT FROM late')).length;
  await fleet.until('the row of late on b', arrived, { reached: (rows) => rows === 1 });
  await fleet.complete('b');
  await fleet.assertSame('late');
});

test.run();
