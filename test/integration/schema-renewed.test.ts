/**
 * The schema in the topic is kept up to date with the leader's: tables that were created after init
 * are in it, and each new leader writes it again, so that a node that is built from the topic alone
 * has them. Where pg_dump fails the old record is kept, and the stream continues. Tests run in
 * order, on one fleet.
 */
// runs: ci, since test/integration/schema-init.test.ts writes the same record
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { NodeName } from '../support/fleet-options.ts';
import { useStack } from '../support/stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const stack = await useStack({ postgres: 3 });
const check = await testWithDump(stack);
const renewed = /"message":"published the schema"/;
const kept =
  /SCHEMA_DUMP_FAILED.*"message":"publishing the schema failed: the topic keeps the older one"/;
let fleet: Fleet;

test.before(async () => {
  const tables = 'CREATE TABLE item (id int PRIMARY KEY, v text)';
  fleet = await startFleet({
    ...{ stack, nodes: 3, initialised: ['a', 'b'], partitions: 2, tablesOn: { a: tables } },
  });
  await Promise.all([fleet.startAgent('a'), fleet.startAgent('b')]);
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

/** On b, which leads: a table is added to the stream, with a row. */
async function publish(table: string): Promise<void> {
  const created = `CREATE TABLE ${table} (id int PRIMARY KEY, v text NOT NULL)`;
  await fleet.sql(
    'b',
    `${created}; INSERT INTO ${table} VALUES (1, 'before');
    ALTER PUBLICATION understudy_${fleet.cluster} ADD TABLE ONLY ${table}`,
  );
  const relations = async () => {
    const text = 'SELECT FROM understudy.relations WHERE table_name = $1';
    return (await fleet.sql('b', text, [table])).length;
  };
  await fleet.until(`${table} in the stream`, relations, { reached: (n) => n === 1 });
  await fleet.until(`the row of ${table} in the topic`, () => fleet.status(), {
    ...{ pollMs: 500, reached: ({ unfinished }) => unfinished?.length === 0 },
  });
}

/** The schema that the topic holds, by the node that wrote it last. */
async function recordOf(node: NodeName): Promise<unknown> {
  const [record] = await fleet.sql(node, 'SELECT epoch, relations FROM understudy.schema_record');
  return record;
}

check('the record of init is not written again without a change', async () => {
  await fleet.sql('a', `INSERT INTO item VALUES (1, 'one')`);
  await fleet.caughtUp('a', ['b']);
  assert.not.match(fleet.agent('a').log, renewed);
  assert.equal(await recordOf('a'), { epoch: 1, relations: ['public.item'] });
});

check('a new leader writes the schema again', async () => {
  assert.is(await fleet.agent('a').stop(), 0);
  const { code, json } = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'test');
  assert.is(code, 0, JSON.stringify(json));
  await fleet.agent('b').logged(renewed);
  assert.equal(await recordOf('b'), { epoch: 2, relations: ['public.item'] });
});

check('a table that is added later is in it, and a new node is built with it', async () => {
  await publish('later');
  await fleet.sql('b', 'CREATE VIEW both_of_them AS SELECT i.v FROM item i JOIN later USING (id)');
  // The leader dumps again after minutes, and at once when it starts.
  assert.is(await fleet.agent('b').stop(), 0);
  const agent = await fleet.startAgent('b');
  await agent.logged(renewed);
  assert.equal(await recordOf('b'), { epoch: 2, relations: ['public.item', 'public.later'] });
  await agent.kill();
  await fleet.startAgent('c');
  await fleet.shows('c', 'promotable', ({ promotable }) => promotable);
  assert.equal(await fleet.sql('c', 'SELECT * FROM later'), [{ id: 1, v: 'before' }]);
  assert.equal(await fleet.sql('c', 'SELECT * FROM both_of_them'), [{ v: 'one' }]);
});

check('where pg_dump fails the record is kept, and the stream continues', async () => {
  const { config } = fleet;
  await fleet.tamper('c', 'CREATE TABLE even_later (id int PRIMARY KEY, v text NOT NULL)');
  await fleet.configure({ ...config, pgDump: '/no/such/pg_dump' });
  const agent = await fleet.startAgent('b');
  await publish('even_later');
  await agent.logged(kept);
  await fleet.sql('b', `INSERT INTO even_later VALUES (2, 'streamed')`);
  await fleet.caughtUp('b', ['c']);
  await fleet.assertSame('even_later', 'b', ['c']);
  assert.equal(await recordOf('b'), { epoch: 2, relations: ['public.item', 'public.later'] });
  await fleet.configure(config);
  assert.is(await agent.stop(), 0);
  await (await fleet.startAgent('b')).logged(renewed);
});

test.run();
