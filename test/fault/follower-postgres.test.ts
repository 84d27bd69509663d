/**
 * What breaks: the applier's transaction on the follower. Its tables are locked, it loses a
 * deadlock, its statement is cancelled, its session is terminated, a row is refused. The rules:
 * rows and position are committed together or not at all, and the next attempt begins at the
 * position row; an error that may pass is tried again, any other stops the node; a batch is never
 * skipped. Crashes and restarts of the server are in integration/outages.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FleetUnderLoad, isFull } from '../support/fleet-under-load.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

const rounds = isFull ? 10 : 2;
const applier = 'understudy b applier';
/** The applier loses at the first or second try, after deadlock_timeout. */
const deadlockMaxMs = 60_000;
let stack: Stack;
/** The follower's: its tables are locked for as long as a test takes. */
let own: OwnServer;
let under: FleetUnderLoad;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
  under = await FleetUnderLoad.start({ stack, partitions: 2, servers: { b: own.server } });
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

test('a locked table holds the applier up, and nothing else', async () => {
  const session = await under.fleet.session('b');
  await session.query('BEGIN; LOCK TABLE bank IN ACCESS EXCLUSIVE MODE');
  await under.until(applierWaits, 'the applier waits');
  const [held, transfers] = [await under.entries('b'), 'SELECT transfers FROM bank'];
  await under.progress(100);
  assert.is(await under.entries('b'), held, 'no part of a transaction is there');
  await session.query('COMMIT');
  await under.arrivals(50);
  assert.is((await under.fleet.sql('b', transfers)).length, 1);
  await under.isExact();
});

test('a deadlock that the applier loses is tried again', async () => {
  const session = await under.fleet.session('b');
  await session.query(`SET deadlock_timeout = '60 s'`);
  const before = under.follower.log.length;
  const deadlineMs = Date.now() + deadlockMaxMs;
  for (let lost = false; !lost; ) {
    const late = Date.now() > deadlineMs || under.follower.ended;
    assert.not(late, `the applier never told of a lost deadlock\n${under.fleet.logs()}`);
    // The applier writes the one first and the other later, or the other way round.
    for (const [first, second] of [
      ['bank', 'account'],
      ['account', 'bank'],
    ] as const) {
      await session.query(`BEGIN; LOCK TABLE ${first} IN ACCESS EXCLUSIVE MODE`);
      await under.until(applierWaits, 'the applier waits');
      await session.query(`LOCK TABLE ${second} IN ACCESS EXCLUSIVE MODE; COMMIT`);
    }
    lost = /40P01/.test(under.follower.log.slice(before));
  }
  await under.isExact();
});

for (const how of ['pg_cancel_backend', 'pg_terminate_backend'] as const) {
  test(`${how} in the middle of a batch repeats the batch`, async () => {
    const session = await under.fleet.session('b');
    for (let round = 0; round < rounds; round += 1) {
      await session.query('BEGIN; LOCK TABLE bank IN SHARE MODE');
      await under.until(applierWaits, 'the applier waits');
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

test('a row that is refused stops the node at its transaction, and it goes on later', async () => {
  const { fleet } = under;
  // On b itself, where the applier waits meanwhile: however busy the machine is, the rows that are
  // there fit, and some of those to come do not.
  await fleet.tamper(
    'b',
    `DO $$ BEGIN
       LOCK TABLE journal IN ACCESS EXCLUSIVE MODE;
       EXECUTE format('ALTER TABLE journal ADD CONSTRAINT narrow CHECK (id < %s)',
         (SELECT max(id) + 300 FROM journal));
     END $$`,
  );
  const [narrow] = await fleet.sql<{ check: string }>(
    'b',
    `SELECT pg_get_constraintdef(oid) AS check FROM pg_constraint WHERE conname = 'narrow'`,
  );
  const limit = Number(/\d+/.exec(narrow?.check ?? '')?.[0]);
  assert.ok(limit > 300, narrow?.check);
  assert.is(await under.follower.exitCode(), 4, under.follower.log);
  assert.match(under.follower.log, /ROW_REFUSED/);
  assert.equal(await fleet.sql('b', `SELECT 1 FROM journal WHERE id >= ${limit}`), []);
  await fleet.tamper('b', 'ALTER TABLE journal DROP CONSTRAINT narrow');
  await fleet.startAgent('b');
  await under.isExact();
});

test.run();
