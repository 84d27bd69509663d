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
const renewed = /"message":"the schema in the topic is new"/;
const kept = /SCHEMA_DUMP_FAILED.*"message":"the schema in the topic stays as it was"/;
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

/** Of a node that leads: a table of its kind comes into the stream, with a row. */
async function publish(leader: NodeName, table: string): Promise<void> {
  const made = `CREATE TABLE ${table} (id int PRIMARY KEY, v text NOT NULL)`;
  const follower = leader === 'a' ? 'b' : 'c';
  await fleet.tamper(follower, made);
  await fleet.sql(
    leader,
    `${made}; INSERT INTO ${table} VALUES (1, 'there before');
    ALTER PUBLICATION understudy_${fleet.cluster} ADD TABLE ONLY ${table}`,
  );
  const arrived = async (): Promise<boolean> => {
    return (await fleet.sql(follower, `SELECT FROM ${table}`)).length === 1;
  };
  await until(fleet, arrived, `the row of ${table} on ${follower}`);
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
});

check('a table that comes later is in it, and a new node is built with it', async () => {
  await publish('a', 'later');
  await fleet.sql('a', 'CREATE VIEW both_of_them AS SELECT i.v FROM item i JOIN later USING (id)');
  await fleet.agent('a').says(renewed);
  await fleet.sql('a', `INSERT INTO later VALUES (2, 'streamed')`);
  await until(
    fleet,
    async () => (await fleet.digest('b', 'later')).startsWith('2 '),
    '2 rows on b',
  );
  assert.is(await fleet.agent('a').stop(), 0);
  await fleet.startAgent('c');
  await exact('c');
  assert.equal(await fleet.sql('c', 'SELECT id FROM later ORDER BY id'), [{ id: 1 }, { id: 2 }]);
  await fleet.assertSame('later', 'a', ['b', 'c']);
  const { rows } = await (await fleet.session('c')).query(
    'SELECT relation_id FROM understudy.to_read',
  );
  assert.equal(rows, []);
});

check('a new leader writes it anew', async () => {
  const { code, json } = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'test');
  assert.is(code, 0, JSON.stringify(json));
  await fleet.agent('b').says(renewed);
  const [record] = await fleet.sql('b', 'SELECT epoch, relations FROM understudy.schema_record');
  assert.equal(record, { epoch: 2, relations: ['public.item', 'public.later'] });
  await fleet.sql('b', `UPDATE later SET v = 'by b'`);
  await fleet.caughtUp('b', ['c']);
  await fleet.assertSame('later', 'b', ['c']);
});

check('where pg_dump fails the record stays, and the stream goes on', async () => {
  assert.is(await fleet.agent('b').stop(), 0);
  const { config } = fleet;
  await fleet.configure({ ...config, pgDump: '/no/such/pg_dump' });
  const agent = await fleet.startAgent('b');
  await publish('b', 'even_later');
  await agent.says(kept);
  await fleet.sql('b', `INSERT INTO even_later VALUES (2, 'streamed')`);
  const both = async (): Promise<boolean> =>
    (await fleet.digest('c', 'even_later')).startsWith('2 ');
  await until(fleet, both, '2 rows on c');
  await fleet.configure(config);
  assert.is(await agent.stop(), 0);
  const again = await fleet.startAgent('b');
  await again.says(renewed);
});

test.run();
