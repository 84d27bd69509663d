/**
 * Which agent may serve a node: one at a time, never on a restored copy of its database, never on
 * the database of another node. And the findings of `check` in a running cluster. Tests run in
 * order, on one fleet.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';

interface Context {
  fleet: Fleet;
}

const start = suite<Context>('the start of an agent');

start.before(async (context) => {
  const tables = 'CREATE TABLE orders (id int PRIMARY KEY, note varchar(20))';
  context.fleet = await startFleet({ tables });
});

start.after(async ({ fleet }) => {
  await fleet.close();
});

start('a second agent of a node is refused, with the session that serves it', async ({ fleet }) => {
  const first = await fleet.startAgent('b');
  const second = fleet.spawnAgent('b');
  assert.is(await second.exitCode(), 3);
  assert.match(second.log, '"code":"NODE_LOCKED"');
  assert.match(second.log, /another agent serves node b \(backend \d+ from /);
  assert.not(first.ended);
  assert.is(await first.stop(), 0);
});

start('the next agent may serve the node as soon as the first has ended', async ({ fleet }) => {
  for (let times = 0; times < 2; times += 1) {
    const agent = await fleet.startAgent('b');
    assert.is(await agent.stop(), 0);
  }
});

start('an agent that loses its lock stops, and takes it again', async ({ fleet }) => {
  const agent = await fleet.startAgent('b');
  const seen = agent.log.length;
  const terminated = await fleet.sql(
    'b',
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE application_name = 'understudy b lock'
       AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid =
                   (SELECT oid FROM pg_database WHERE datname = current_database()))`,
  );
  assert.is(terminated.length, 1);
  await agent.logged(/"message":"following"/, seen);
  assert.is(await agent.stop(), 0);
});

start('a database that was restored from an older copy is refused', async ({ fleet }) => {
  const [before] = await fleet.sql('b', 'SELECT start_number FROM understudy.node');
  const agent = await fleet.startAgent('b');
  await agent.stop();
  await fleet.sql('b', 'SET default_transaction_read_only = off');
  const put = (number: unknown) => `UPDATE understudy.node SET start_number = ${number}`;
  await fleet.sql('b', put(before?.['start_number']));
  const restored = fleet.spawnAgent('b');
  assert.is(await restored.exitCode(), 3);
  assert.match(restored.log, '"code":"RESTORED_COPY"');
  await fleet.sql('b', put(Number(before?.['start_number']) + 1));
  assert.is(await (await fleet.startAgent('b')).stop(), 0);
});

start('the database of another node is refused', async ({ fleet }) => {
  const { config } = fleet;
  const nodes = { a: { url: fleet.url('a') }, b: { url: fleet.url('a') } };
  await fleet.configure({ ...config, nodes });
  const agent = fleet.spawnAgent('b');
  assert.is(await agent.exitCode(), 4);
  assert.match(agent.log, /the database of node b is node a of cluster/);
  await fleet.configure(config);
});

async function findings(fleet: Fleet): Promise<readonly string[]> {
  const { json } = await fleet.cli('check');
  const found = (json as { findings: readonly Finding[] }).findings;
  return found.map(({ code, object }) => `${code} ${object}`);
}

start('check finds nothing wrong with a running cluster', async ({ fleet }) => {
  const agents = [await fleet.startAgent('a'), await fleet.startAgent('b')];
  assert.equal(await findings(fleet), []);
  await fleet.sql('a', "INSERT INTO orders VALUES (1, 'rows are fine')");
  assert.equal(await findings(fleet), []);
  for (const agent of agents) assert.is(await agent.stop(), 0);
});

start(
  'check names a table that came after init, and asks no follower for it',
  async ({ fleet }) => {
    await fleet.sql('a', 'CREATE TABLE later (id int PRIMARY KEY)');
    assert.equal(await findings(fleet), ['NOT_IN_STREAM public.later']);
    await fleet.sql('a', 'DROP TABLE later');
  },
);

start(
  'check names a number of partitions that differs from the configuration',
  async ({ fleet }) => {
    const { config } = fleet;
    const kafka = { ...(config['kafka'] as object), partitions: 3 };
    await fleet.configure({ ...config, kafka });
    assert.equal(await findings(fleet), [`TOPIC_MISMATCH ${fleet.cluster}.changes`]);
    await fleet.configure(config);
  },
);

start.run();
