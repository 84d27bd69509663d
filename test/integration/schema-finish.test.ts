/**
 * The rest of a follower's schema once its rows are exact: built beside the applier, resumed after
 * a kill, and until it is complete the node is not promotable. A statement that its Postgres
 * refuses stops neither the others nor the follower; it is named, and retried. Tests run in order,
 * on one fleet; the last one promotes node b.
 */
// runs: ci, since test/integration/bootstrap.test.ts kills the same build
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NodeStatus } from '../../src/fleet/status/node-status.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';

let fleet: Fleet;
const allowed = ['--allow-data-loss', '--reason', 'test'];

test.before(async () => {
  fleet = await startFleet({
    init: false,
    tables: `CREATE TABLE item (id int PRIMARY KEY, v text, n int);
      CREATE TABLE part (id int PRIMARY KEY, item int);
      CREATE TABLE fired (id int PRIMARY KEY);
      CREATE TABLE elsewhere (id int PRIMARY KEY)`,
    tablesOn: { a: 'INSERT INTO elsewhere VALUES (1)' },
  });
  const tables = ['public.item', 'public.part', 'public.fired'];
  await fleet.configure({ ...fleet.config, tables });
  const { code, stderr } = await fleet.cli('init');
  assert.is(code, 0, stderr);
  await fleet.startAgents();
});

test.after(() => fleet.close());

/** As if the node had been built from the topic: what its rows do not need is still pending. */
async function leaveOpen(...statements: readonly string[]): Promise<void> {
  assert.is(await fleet.agent('b').stop(), 0);
  await fleet.tamper('b', 'DELETE FROM understudy.schema_build');
  for (const [ordinal, statement] of statements.entries()) {
    await fleet.tamper(
      'b',
      `INSERT INTO understudy.schema_build (ordinal, phase, statement, settings)
       VALUES (${ordinal}, 'post-data', $statement$${statement}$statement$, '{}')`,
    );
  }
}

function statusOfB(): Promise<NodeStatus> {
  return fleet.nodeStatus('b');
}

async function openOnB(): Promise<number> {
  const rows = await fleet.sql<{ n: number }>(
    'b',
    'SELECT count(*)::int AS n FROM understudy.schema_build WHERE NOT done',
  );
  return rows[0]?.n ?? -1;
}

async function untilOpen(wanted: number): Promise<void> {
  const reached = (open: number): boolean => open === wanted;
  await fleet.until(`${wanted} statements are pending`, openOnB, { reached });
}

test('until its schema is complete a node is not promoted; rows arrive meanwhile', async () => {
  await leaveOpen(
    'CREATE INDEX first ON public.item (v)',
    'CREATE INDEX second ON public.part (item)',
    `CREATE FUNCTION public.fire() RETURNS trigger LANGUAGE plpgsql SET search_path = public
      AS 'BEGIN INSERT INTO fired VALUES (NEW.id); RETURN NEW; END'`,
    'CREATE TRIGGER fires AFTER INSERT ON public.item FOR EACH ROW EXECUTE FUNCTION public.fire()',
    'ALTER TABLE public.item ENABLE ALWAYS TRIGGER fires',
  );
  const holder = await fleet.session('b');
  await holder.query('BEGIN READ WRITE; LOCK TABLE part IN ROW EXCLUSIVE MODE');
  await fleet.startAgent('b');
  await untilOpen(4);
  const { promotable, why } = await statusOfB();
  assert.not(promotable);
  assert.match(why.join(), /post-data is being built: 1 of 5/);
  const { code, json } = await fleet.cli('failover', 'b', ...allowed);
  assert.is(code, 4, JSON.stringify(json));
  assert.is(json.error.code, 'NOT_PROMOTABLE');
  await fleet.sql('a', `INSERT INTO item VALUES (1, 'meanwhile', 1)`);
  await fleet.caughtUp();
  assert.is(await fleet.agent('b').stop(), 0, 'a stop does not wait for the lock');
  await fleet.startAgent('b');
  assert.is(await openOnB(), 4);
  await holder.query('COMMIT');
  await untilOpen(0);
  await fleet.sql('a', `INSERT INTO item VALUES (2, 'afterwards', 1)`);
  await fleet.caughtUp();
  await fleet.assertSame('item');
  assert.equal(await fleet.sql('b', 'SELECT * FROM fired'), [], 'triggers fire in the applier');
  assert.ok((await statusOfB()).promotable);
});

test('after a kill between two statements the rest is built', async () => {
  await leaveOpen(
    'CREATE INDEX third ON public.item (n)',
    'CREATE INDEX fourth ON public.item (n, v)',
    'ALTER TABLE ONLY public.part ADD CONSTRAINT refers FOREIGN KEY (item) REFERENCES public.item',
  );
  const killed = fleet.spawnAgent('b', 'schema.after-statement=kill:2');
  assert.is(await killed.exitCode(), null, killed.log);
  assert.is(await openOnB(), 1);
  await fleet.startAgent('b');
  await untilOpen(0);
  const rows = await fleet.sql(
    'b',
    `SELECT count(*)::int AS n FROM pg_index WHERE indrelid = 'item'::regclass AND indisvalid`,
  );
  assert.equal(rows, [{ n: 4 }]);
});

const refusedIndex = /CREATE UNIQUE INDEX only_one ON public\.item: could not create unique index/;

test('a refused statement is named and retried; the rest is built, and rows arrive', async () => {
  await leaveOpen(
    'CREATE UNIQUE INDEX only_one ON public.item (n)',
    'CREATE INDEX behind ON public.item (n)',
  );
  for (const start of ['the first', 'another']) {
    const agent = await fleet.startAgent('b');
    await agent.logged(/SCHEMA_BUILD_FAILED.*CREATE UNIQUE INDEX only_one ON public\.item/);
    assert.is(await openOnB(), 1, `after ${start} start`);
    if (start === 'the first') assert.is(await agent.stop(), 0);
  }
  const { exact, promotable, why } = await statusOfB();
  assert.equal([exact, promotable], [true, false]);
  assert.match(why.join(), /SCHEMA_BUILD_FAILED: it lacks CREATE UNIQUE INDEX only_one/);
  assert.match(why.join(), refusedIndex);
  const { code, json } = await fleet.cli('failover', 'b');
  assert.is(code, 6, JSON.stringify(json));
  assert.match(json.error.message, refusedIndex);
  const { json: plan } = await fleet.cli('failover', 'b', '--dry-run');
  assert.match(plan.lacks.join(), refusedIndex);
  await fleet.sql('a', `INSERT INTO item VALUES (3, 'still', 1)`);
  await fleet.caughtUp();
  // Rows that arrive remove the cause.
  await fleet.sql('a', 'UPDATE item SET n = id');
  await untilOpen(0);
  assert.ok((await statusOfB()).promotable);
});

test('a foreign key to rows outside the stream is created NOT VALID, with a warning', async () => {
  await fleet.sql('a', 'INSERT INTO part VALUES (1, 1)');
  await fleet.caughtUp();
  await leaveOpen(
    'ALTER TABLE ONLY public.part\n    ADD CONSTRAINT outside FOREIGN KEY (item) ' +
      'REFERENCES public.elsewhere(id) ON DELETE CASCADE',
  );
  const agent = await fleet.startAgent('b');
  await untilOpen(0);
  await agent.logged(/public\.part\.outside.*created NOT VALID/);
  const created = await fleet.sql(
    'b',
    `SELECT convalidated, confdeltype FROM pg_constraint WHERE conname = 'outside'`,
  );
  assert.equal(created, [{ convalidated: false, confdeltype: 'c' }]);
  const { promotable, why } = await statusOfB();
  assert.ok(promotable);
  assert.match(why.join(), /NOT VALID here: foreign keys public\.part\.outside/);
  await fleet.sql('a', 'INSERT INTO part VALUES (2, 1)');
  await fleet.caughtUp();
});

test('it is promoted, and the answer names what it lacks', async () => {
  await fleet.sql('a', `INSERT INTO item VALUES (4, 'twice', 4), (5, 'twice', 5)`);
  await fleet.caughtUp();
  await leaveOpen('CREATE UNIQUE INDEX never ON public.item (v)');
  const agent = await fleet.startAgent('b');
  await agent.logged(/this node refuses parts of the schema/);
  assert.is(await fleet.agent('a').stop(), 0);
  const { code, json } = await fleet.cli('failover', 'b', ...allowed);
  assert.is(code, 0, JSON.stringify(json));
  assert.match(json.lacks.join(), /CREATE UNIQUE INDEX never ON public\.item: could not create/);
  await agent.logged(/this node will lead without parts of the schema/);
  const { why } = await statusOfB();
  assert.match(why.join(), /it lacks CREATE UNIQUE INDEX never/);
  await fleet.sql('b', `INSERT INTO item VALUES (9, 'mine', 9)`);
  assert.equal(await fleet.sql('b', 'SELECT * FROM fired'), [{ id: 9 }], 'triggers fire again');
});

test.run();
