/**
 * What breaks: the applier's transaction on the follower. Its tables are locked, it loses a
 * deadlock, its statement is cancelled, its session is terminated, a row is refused. The rules:
 * rows and position are committed together or not at all, and the next attempt begins at the
 * position row; an error that may pass is retried, any other stops the node; a batch is never
 * skipped. Crashes and restarts of the server are in integration/outages.
 */
// runs: ci, since test/model/align.test.ts repeats batches
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FleetUnderLoad, fewWorkloads } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

const rounds = isFull ? 10 : 2;
const applier = 'understudy b applier';
let stack: Stack;
/** The follower's: its tables are locked for as long as a test takes. */
let own: OwnServer;
let under: FleetUnderLoad;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
  under = await FleetUnderLoad.start({
    stack,
    partitions: 2,
    servers: { b: own.server },
    workloads: fewWorkloads,
  });
});

test.after(async () => {
  await under.close();
  await Promise.all([own.close(), stack.close()]);
});

/** Whether the applier waits for a lock. */
async function applierWaits(): Promise<boolean> {
  const rows = await under.fleet.sql(
    'b',
    `SELECT 1 FROM pg_stat_activity WHERE application_name = $1
       AND datname = current_database() AND wait_event_type = 'Lock'`,
    [applier],
  );
  return rows.length > 0;
}

test('a locked table delays the applier, and nothing else', async () => {
  const session = await under.fleet.session('b');
  await session.query('BEGIN; LOCK TABLE entry IN ACCESS EXCLUSIVE MODE');
  await under.fleet.until('the applier waits', applierWaits);
  const purses = 'SELECT sum(balance * id) AS sum FROM purse_a';
  const held = await under.fleet.sql('b', purses);
  await under.progress(100);
  assert.equal(await under.fleet.sql('b', purses), held, 'no part of a transaction is there');
  await session.query('COMMIT');
  await under.arrivals(20);
  await under.isExact();
});

test('a deadlock that the applier loses is retried', async () => {
  const session = await under.fleet.session('b');
  await session.query(`SET deadlock_timeout = '60 s'`);
  const agent = under.fleet.agent('b');
  const before = agent.log.length;
  const meet = async (): Promise<boolean> => {
    // The applier writes the one first and the other later, or the other way round.
    for (const [first, second] of [
      ['entry', 'purse_a'],
      ['purse_a', 'entry'],
    ] as const) {
      await session.query(`BEGIN; LOCK TABLE ${first} IN ACCESS EXCLUSIVE MODE`);
      await under.fleet.until('the applier waits', applierWaits);
      await session.query(`LOCK TABLE ${second} IN ACCESS EXCLUSIVE MODE; COMMIT`);
    }
    return /40P01/.test(agent.log.slice(before));
  };
  // The applier loses at the first or second try, after deadlock_timeout.
  await under.fleet.until('the applier logs a lost deadlock', meet, {
    hopeless: () => (agent.ended ? 'its agent has ended' : null),
  });
  await under.isExact();
});

for (const how of ['pg_cancel_backend', 'pg_terminate_backend'] as const) {
  test(`after ${how} in the middle of a batch the batch is repeated`, async () => {
    const session = await under.fleet.session('b');
    for (let round = 0; round < rounds; round += 1) {
      await session.query('BEGIN; LOCK TABLE entry IN SHARE MODE');
      await under.fleet.until('the applier waits', applierWaits);
      await session.query(
        `SELECT ${how}(pid) FROM pg_stat_activity
         WHERE application_name = $1 AND datname = current_database()`,
        [applier],
      );
      await session.query('COMMIT');
      await under.arrivals(5);
    }
    await under.isExact();
  });
}

test('a refused row stops the node before its transaction, and it continues later', async () => {
  const { fleet } = under;
  // On b itself, where the applier waits meanwhile: however busy the machine is, the rows that are
  // there fit, and some later ones do not.
  await fleet.tamper(
    'b',
    `DO $$ BEGIN
       LOCK TABLE entry IN ACCESS EXCLUSIVE MODE;
       EXECUTE format('ALTER TABLE entry ADD CONSTRAINT narrow CHECK (id < %s)',
         (SELECT max(id) + 100 FROM entry));
     END $$`,
  );
  const [narrow] = await fleet.sql<{ check: string }>(
    'b',
    `SELECT pg_get_constraintdef(oid) AS check FROM pg_constraint WHERE conname = 'narrow'`,
  );
  const limit = Number(/\d+/.exec(narrow?.check ?? '')?.[0]);
  assert.ok(limit > 100, narrow?.check);
  assert.is(await under.fleet.agent('b').exitCode(), 4, under.fleet.agent('b').log);
  assert.match(under.fleet.agent('b').log, /ROW_REFUSED/);
  assert.equal(await fleet.sql('b', `SELECT 1 FROM entry WHERE id >= ${limit}`), []);
  await fleet.tamper('b', 'ALTER TABLE entry DROP CONSTRAINT narrow');
  await fleet.startAgent('b');
  await under.isExact();
});

test.run();
