/**
 * Which agent may serve a node: one at a time, never on a restored copy of its database, never on
 * the database of another node. And the findings of `check` in a running cluster. Tests run in
 * order, on one fleet.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';
import { connectTo, type Stack, useStack } from '../support/stack.ts';

interface Context {
  fleet: Fleet;
  stack: Stack;
}

const start = suite<Context>('the start of an agent');

start.before(async (context) => {
  const tables = 'CREATE TABLE orders (id int PRIMARY KEY, note varchar(20))';
  context.stack = await useStack({ postgres: 2 });
  context.fleet = await startFleet({ stack: context.stack, tables });
});

start.after(async ({ fleet, stack }) => {
  await fleet.close();
  await stack.close();
});

start('a second agent of a node is refused, with the session that serves it', async ({ fleet }) => {
  const first = await fleet.startAgent('b');
  const second = fleet.spawnAgent('b');
  assert.is(await second.exitCode(), 3);
  assert.match(second.log, '"code":"NODE_LOCKED"');
  assert.match(second.log, /another agent serves node b \(pid \d+ of .* from /);
  assert.not(first.ended);
  assert.is(await first.stop(), 0);
});

start('the next agent may serve the node as soon as the first has ended', async ({ fleet }) => {
  for (let times = 0; times < 2; times += 1) {
    const agent = await fleet.startAgent('b');
    assert.is(await agent.stop(), 0);
  }
});

start(
  'an agent upgrades the schema of an older version, and refuses a newer one',
  async ({ fleet }) => {
    const past = async (...statements: readonly string[]): Promise<void> => {
      const session = await connectTo(fleet.url('b'));
      await session.query('SET session_replication_role = replica');
      await session.query('SET default_transaction_read_only = off');
      for (const statement of statements) await session.query(statement);
      await session.end();
    };
    await past(
      'ALTER TABLE understudy.position DROP COLUMN unfinished',
      `CREATE FUNCTION understudy.types_of_tables() RETURNS TABLE (table_oid oid, type_oid oid)
     LANGUAGE sql AS 'SELECT 1::oid, 1::oid'`,
      'UPDATE understudy.node SET format = 1',
    );
    const shown = await fleet.nodeStatus('b');
    assert.match(shown.why.join(), /format 1, and this version reads 2/);
    assert.is(shown.schemaFormat, null);
    const agent = await fleet.startAgent('b');
    await agent.logged(/the understudy schema was upgraded/);
    assert.is((await fleet.nodeStatus('b')).schemaFormat, 2);
    assert.is(await agent.stop(), 0);
    await past('UPDATE understudy.node SET format = 3');
    const newer = fleet.spawnAgent('b');
    assert.is(await newer.exitCode(), 4);
    assert.match(newer.log, /FORMAT_TOO_NEW.*Install on this node the version/);
    const answer = await fleet.cli('rebuild', 'b');
    assert.is(answer.json.error.code, 'FORMAT_TOO_NEW');
    await past('UPDATE understudy.node SET format = 2');
  },
);

start(
  'a new node is not built from a file whose other nodes are elsewhere',
  async ({ fleet, stack }) => {
    const { config } = fleet;
    const [first = '', second = ''] = await stack.createDatabases('copy');
    await fleet.configure({ ...config, nodes: { a: { url: first }, c: { url: second } } });
    const agent = fleet.spawnAgent('c');
    assert.is(await agent.exitCode(), 4);
    assert.match(
      agent.log,
      /"ALREADY_INITIALISED".*no database of understudy.yaml belongs to it.*run c --replace/,
    );
    const session = await connectTo(second);
    const { rows } = await session.query(`SELECT to_regnamespace('understudy') AS found`);
    await session.end();
    assert.equal(rows, [{ found: null }]);
    await fleet.configure(config);
  },
);

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

/** As in a copy of understudy.yaml: node b has another database, and a is as before. */
async function withDatabaseOfB(fleet: Fleet, url: string, work: () => Promise<void>) {
  const { config } = fleet;
  await fleet.configure({ ...config, nodes: { a: { url: fleet.url('a') }, b: { url } } });
  await work();
  await fleet.configure(config);
}

async function schemasOf(url: string): Promise<string[]> {
  const client = await connectTo(url);
  try {
    const { rows } = await client.query(
      `SELECT nspname FROM pg_namespace WHERE nspname = 'understudy'
       UNION ALL SELECT relname FROM pg_class WHERE relname = 'orders'`,
    );
    return rows.map(({ nspname }) => nspname);
  } finally {
    await client.end();
  }
}

start('an empty database under the name of a node is refused, unchanged', async (context) => {
  const { fleet, stack } = context;
  const [, empty = ''] = await stack.createDatabases('copied');
  const real = await fleet.startAgent('b');
  await withDatabaseOfB(fleet, empty, async () => {
    const agent = fleet.spawnAgent('b');
    assert.is(await agent.exitCode(), 4, agent.log);
    assert.match(agent.log, '"code":"OTHER_DATABASE"');
    const served = new URL(fleet.url('b'));
    const name = served.pathname.slice(1);
    assert.match(agent.log, `node b is served from database ${name} at ${served.host} (system `);
    assert.match(agent.log, 'last recorded on 20');
    assert.match(agent.log, 'understudy run b --replace');
    const { state, why } = await fleet.nodeStatus('b');
    assert.is(state, 'stopped');
    assert.match(why.join('; '), `node b is served from database ${name} at ${served.host}`);
    assert.ok((await findings(fleet)).includes('OTHER_DATABASE node b'));
    assert.equal(await schemasOf(empty), []);
  });
  // The node itself did not notice, and starts again.
  assert.not(real.ended);
  assert.is(await real.stop(), 0);
  assert.is(await (await fleet.startAgent('b')).stop(), 0);
});

start('a copy of the database on its server is refused, to a command too', async (context) => {
  const { fleet, stack } = context;
  const name = new URL(fleet.url('b')).pathname.slice(1);
  const admin = await connectTo(stack.postgres[1]?.superuserUrl ?? '');
  await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [
    name,
  ]);
  await admin.end();
  const [, copy = ''] = await stack.createDatabases('copied', ['', `TEMPLATE "${name}"`]);
  const real = await fleet.startAgent('b');
  await withDatabaseOfB(fleet, copy, async () => {
    const agent = fleet.spawnAgent('b');
    assert.is(await agent.exitCode(), 4, agent.log);
    assert.match(agent.log, '"code":"OTHER_DATABASE"');
    const { code, json } = await fleet.cli('rebuild', 'b', '--in-place');
    assert.is(code, 4, JSON.stringify(json));
    assert.is(json.error.code, 'OTHER_DATABASE');
  });
  assert.not(real.ended);
  assert.is(await real.stop(), 0);
});

start(
  'with --replace the new database is the node, and the former one is refused',
  async (context) => {
    const { fleet, stack } = context;
    await fleet.startAgent('a');
    const [, empty = ''] = await stack.createDatabases('replaced');
    await withDatabaseOfB(fleet, empty, async () => {
      const other = fleet.spawnAgent('b');
      assert.is(await other.exitCode(), 4, other.log);
      await followHint(fleet, 'otherDatabaseHint', other);
      assert.is(await fleet.agent('b').stop(), 0);
      assert.equal(await schemasOf(empty), ['understudy', 'orders']);
      // The former one had no --replace: it is the node for good.
      assert.is(await (await fleet.startAgent('b')).stop(), 0);
    });
    const former = fleet.spawnAgent('b');
    assert.is(await former.exitCode(), 4, former.log);
    assert.match(former.log, `served from database ${new URL(empty).pathname.slice(1)} at `);
    // And back, as an operator who has erred: its rows follow from where they are.
    const back = fleet.spawnCommand('--json', 'run', 'b', '--replace');
    await back.logged(/"message":"following"/);
    assert.is(await back.stop(), 0);
    assert.is(await fleet.agent('a').stop(), 0);
  },
);

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
    await fleet.startAgents();
    await fleet.sql('a', 'CREATE TABLE later (n int, note text)');
    assert.equal(await findings(fleet), ['NOT_IN_STREAM public.later']);
    const { json } = await fleet.cli('check');
    const [{ hint }] = json.findings;
    await followHint(fleet, 'notInStream: IDENTITY', hint, { on: ['a'] });
    await followHint(fleet, 'copyTables', hint, { on: ['b'] });
    await followHint(fleet, 'notInStream: PUBLICATION', hint, { on: ['a'] });
    await fleet.sql('a', `INSERT INTO later (n) VALUES (1), (2); UPDATE later SET note = 'kept'`);
    const rows = `SELECT n, note FROM later ORDER BY n`;
    await fleet.until('the table on b', () => fleet.sql('b', rows), {
      reached: (found) => found.length === 2 && found[0]?.['note'] === 'kept',
    });
    assert.equal(await findings(fleet), []);
    for (const node of fleet.nodes) assert.is(await fleet.agent(node).stop(), 0);
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

start('a former leader comes back with a new database, and its slot is named', async (context) => {
  const { fleet, stack } = context;
  await fleet.startAgent('b');
  const { code, json } = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'x');
  assert.is(code, 0, JSON.stringify(json));
  const deposed = fleet.spawnAgent('a');
  assert.is(await deposed.exitCode(), 3, deposed.log);
  const remedy = 'understudy run a --replace';
  assert.match(deposed.log, remedy);
  const slot = `understudy_${fleet.cluster}_1`;
  const fenced = await fleet.shows('a', 'fenced', ({ state }) => state === 'fenced');
  assert.match(fenced.why.join('; '), remedy);
  assert.match(fenced.why.join('; '), `drop the slot ${slot}`);
  assert.equal(await findings(fleet), ['SLOT_LEFT node a']);

  const [empty = ''] = await stack.createDatabases('returned');
  await fleet.configure({
    ...fleet.config,
    nodes: { a: { url: empty }, b: { url: fleet.url('b') } },
  });
  await followHint(fleet, 'deposed', deposed);
  const agent = fleet.agent('a');
  const old = new URL(fleet.url('a')).pathname.slice(1);
  const left = new RegExp(`the slot ${slot} in the database ${old} of its server keeps .* of WAL`);
  await fleet.shows('a', 'its old slot', ({ why }) => left.test(why.join('; ')));
  assert.equal(await findings(fleet), ['SLOT_LEFT node a']);
  const { hint: drop } = (await fleet.cli('check')).json.findings[0];
  await followHint(fleet, 'judgeLeftSlots', drop, { on: ['a'] });
  assert.equal(await findings(fleet), []);
  assert.is(await agent.stop(), 0);
});

start.run();
