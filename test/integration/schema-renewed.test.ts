/**
 * The schema in the topic stays what the leader's is: tables that came after init are in it, and
 * each new leader writes it anew, so that a node that is built from the topic alone has them. Where
 * pg_dump fails the record of before stays, and the stream goes on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../support/existing-rows.ts';
import { type Fleet, type NodeName, startFleet } from '../support/fleet.ts';
import { useStack } from '../support/stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const stack = await useStack({ postgres: 3 });
const check = await testWithDump(stack);
const renewed = /"message":"published the schema"/;
const kept =
  /SCHEMA_DUMP_FAILED.*"message":"publishing the schema failed: the topic keeps the older one"/;
let fleet: Fleet;
let nodes: Record<string, object>;

test.before(async () => {
  const tables = 'CREATE TABLE item (id int PRIMARY KEY, v text)';
  fleet = await startFleet({
    stack,
    nodes: 3,
    partitions: 2,
    init: false,
    tablesOn: { a: tables },
  });
  nodes = fleet.config['nodes'] as Record<string, object>;
  await fleet.configure({ ...fleet.config, nodes: { a: nodes['a'], b: nodes['b'] } });
  const { code, stderr } = await fleet.cli('init');
  assert.is(code, 0, stderr);
  await fleet.configure({ ...fleet.config, nodes });
  await Promise.all([fleet.startAgent('a'), fleet.startAgent('b')]);
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

/** On b, which leads: a table comes into the stream with a row. */
async function publish(table: string): Promise<void> {
  const made = `CREATE TABLE ${table} (id int PRIMARY KEY, v text NOT NULL)`;
  await fleet.sql(
    'b',
    `${made}; INSERT INTO ${table} VALUES (1, 'there before');
    ALTER PUBLICATION understudy_${fleet.cluster} ADD TABLE ONLY ${table}`,
  );
  const isPublished = async (): Promise<boolean> => {
    const rows = await fleet.sql('b', 'SELECT FROM understudy.relations WHERE table_name = $1', [
      table,
    ]);
    const { json } = await fleet.cli('status');
    return rows.length === 1 && json.unfinished?.length === 0;
  };
  await until(fleet, isPublished, `the row of ${table} in the topic`);
}

/** Which schema the topic holds, as the node knows that wrote it last. */
async function recordOf(node: NodeName): Promise<unknown> {
  const [record] = await fleet.sql(node, 'SELECT epoch, relations FROM understudy.schema_record');
  return record;
}

async function exact(node: NodeName): Promise<void> {
  const isExact = async (): Promise<boolean> => {
    const { json } = await fleet.cli('status');
    await sleep(200);
    return json.nodes.find(({ name }: { name: string }) => name === node)?.promotable === true;
  };
  await until(fleet, isExact, `${node} is exact`);
}

check('the record of init is not written again for nothing', async () => {
  await fleet.sql('a', `INSERT INTO item VALUES (1, 'one')`);
  await fleet.caughtUp('a', ['b']);
  assert.not.match(fleet.agent('a').log, renewed);
  assert.equal(await recordOf('a'), { epoch: 1, relations: ['public.item'] });
});

check('a new leader writes it anew', async () => {
  assert.is(await fleet.agent('a').stop(), 0);
  const { code, json } = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'test');
  assert.is(code, 0, JSON.stringify(json));
  await fleet.agent('b').says(renewed);
  assert.equal(await recordOf('b'), { epoch: 2, relations: ['public.item'] });
});

check('a table that comes later is in it, and a new node is built with it', async () => {
  await publish('later');
  await fleet.sql('b', 'CREATE VIEW both_of_them AS SELECT i.v FROM item i JOIN later USING (id)');
  // A dump follows the one before it after minutes; a start waits for none.
  assert.is(await fleet.agent('b').stop(), 0);
  const agent = await fleet.startAgent('b');
  await agent.says(renewed);
  assert.equal(await recordOf('b'), { epoch: 2, relations: ['public.item', 'public.later'] });
  await agent.kill();
  await fleet.startAgent('c');
  await exact('c');
  assert.equal(await fleet.sql('c', 'SELECT * FROM later'), [{ id: 1, v: 'there before' }]);
  assert.equal(await fleet.sql('c', 'SELECT * FROM both_of_them'), [{ v: 'one' }]);
});

check('where pg_dump fails the record stays, and the stream goes on', async () => {
  const { config } = fleet;
  await fleet.tamper('c', 'CREATE TABLE even_later (id int PRIMARY KEY, v text NOT NULL)');
  await fleet.configure({ ...config, pgDump: '/no/such/pg_dump' });
  const agent = await fleet.startAgent('b');
  await publish('even_later');
  await agent.says(kept);
  await fleet.sql('b', `INSERT INTO even_later VALUES (2, 'streamed')`);
  await fleet.caughtUp('b', ['c']);
  await fleet.assertSame('even_later', 'b', ['c']);
  assert.equal(await recordOf('b'), { epoch: 2, relations: ['public.item', 'public.later'] });
  await fleet.configure(config);
  assert.is(await agent.stop(), 0);
  await (await fleet.startAgent('b')).says(renewed);
});

test.run();
