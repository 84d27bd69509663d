/**
 * What is left of a follower's schema once its rows are exact: built beside the applier, resumed
 * after a kill, and until it is done the node is not to be promoted.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, patienceMs, startFleet } from '../support/fleet.ts';

let fleet: Fleet;
const allowed = ['--allow-data-loss', '--reason', 'test'];

test.before(async () => {
  fleet = await startFleet({
    tables: `CREATE TABLE item (id int PRIMARY KEY, v text, n int);
      CREATE TABLE part (id int PRIMARY KEY, item int);
      CREATE TABLE fired (id int PRIMARY KEY)`,
  });
  await fleet.startAgents();
});

test.after(() => fleet.close());

/** As if the node had been made from the topic: what its rows could do without is still to come. */
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

interface NodeView {
  readonly promotable: boolean;
  readonly why: readonly string[];
}

async function statusOfB(): Promise<NodeView> {
  const { json } = await fleet.cli('status');
  return json.nodes.find(({ name }: { name: string }) => name === 'b');
}

async function openOnB(): Promise<number> {
  const rows = await fleet.sql<{ n: number }>(
    'b',
    'SELECT count(*)::int AS n FROM understudy.schema_build WHERE NOT done',
  );
  return rows[0]?.n ?? -1;
}

async function untilOpen(wanted: number): Promise<void> {
  const deadlineMs = Date.now() + patienceMs;
  for (let open = await openOnB(); open !== wanted; open = await openOnB()) {
    assert.ok(
      Date.now() < deadlineMs,
      `${open} statements are left, not ${wanted} ${fleet.logs()}`,
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('until it is whole the node is not promoted; rows arrive meanwhile', async () => {
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

test('a kill between two statements is followed by the rest', async () => {
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

test('a statement that is refused stops the agent by its name, and is tried again', async () => {
  await leaveOpen('CREATE UNIQUE INDEX only_one ON public.item (n)');
  const stopped = fleet.spawnAgent('b');
  assert.is(await stopped.exitCode(), 4, stopped.log);
  assert.match(stopped.log, /SCHEMA_BUILD_FAILED/);
  assert.match(stopped.log, /node b refuses CREATE UNIQUE INDEX only_one ON public\.item/);
  await fleet.sql('a', 'UPDATE item SET n = id');
  // Rows that arrive take the cause away.
  await fleet.tamper('b', 'UPDATE understudy.schema_build SET done = true');
  await fleet.startAgent('b');
  await fleet.caughtUp();
  await leaveOpen('CREATE UNIQUE INDEX only_one ON public.item (n)');
  await fleet.startAgent('b');
  await untilOpen(0);
});

test('once it is whole the node takes the lead', async () => {
  assert.is(await fleet.agent('a').stop(), 0);
  const { code, json } = await fleet.cli('failover', 'b', ...allowed);
  assert.is(code, 0, JSON.stringify(json));
  await fleet.sql('b', `INSERT INTO item VALUES (9, 'mine', 9)`);
  assert.equal(await fleet.sql('b', 'SELECT * FROM fired'), [{ id: 9 }], 'triggers fire again');
});

test.run();
