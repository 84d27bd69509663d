/**
 * A backfill while commits wait for a standby: the WAL has them long before any session sees them,
 * and what is read meanwhile must not undo them. Until the backfill is complete, points name the
 * tables, and the node is not exact.
 */
// runs: ci, since test/model/backfill.test.ts has unseen commits
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { FleetStatus } from '../../src/fleet/status/node-status.ts';
import { backfilled, isExact, readsTried, value, withBusyRows } from '../support/backfill-rows.ts';
import type { Fleet } from '../support/fleet.ts';
import { newestRecords } from '../support/newest-records.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
/** The leader's: the setting that holds commits holds those of every database of its server. */
let own: OwnServer;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
});

test.after(async () => {
  await Promise.all([own.close(), stack.close()]);
});

/** Commits wait for a standby that does not exist: they are streamed, and no session sees them. */
async function holdCommits(fleet: Fleet, isHeld: boolean): Promise<void> {
  const names = isHeld ? 'no_standby' : '';
  await fleet.sql('a', `ALTER SYSTEM SET synchronous_standby_names = '${names}'`);
  await fleet.sql('a', 'SELECT pg_reload_conf()');
  const setting = async (): Promise<string> => {
    const client = await fleet.session('a');
    const { rows } = await client.query('SHOW synchronous_standby_names');
    await client.end();
    return rows[0]?.synchronous_standby_names;
  };
  await fleet.until('the setting', setting, { reached: (value) => value === names });
}

/**
 * During the backfill a row of plain is set to 100 in a commit that is streamed and that no session
 * on the leader sees until `release`; afterwards it is everywhere.
 */
function withUnseenCommit(
  failpoint: string,
  work: (fleet: Fleet, release: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const hold = async (fleet: Fleet): Promise<void> => {
    try {
      await fleet.startAgent('b');
      await fleet.startAgent('a', failpoint);
      const writer = await fleet.session('a');
      await holdCommits(fleet, true);
      const waiting = writer.query('UPDATE plain SET n = 100 WHERE id = 5000.5');
      await fleet.until('100 on b', () => value(fleet, 'b', '5000.5'), {
        reached: (n) => n === 100,
      });
      assert.is(await value(fleet, 'a', '5000.5'), 0, 'no session on the leader sees it');
      await work(fleet, async () => {
        assert.is(await value(fleet, 'a', '5000.5'), 0, 'no session on the leader sees it yet');
        await holdCommits(fleet, false);
        await waiting;
      });
      await isExact(fleet);
      assert.is(await value(fleet, 'b', '5000.5'), 100);
    } finally {
      await holdCommits(fleet, false);
    }
  };
  return withBusyRows(stack, hold, { a: own.server });
}

test('a commit that was streamed before it can be seen is not undone', () => {
  return withUnseenCommit('chunk.after-read=pause:3000:2', async (fleet, release) => {
    await backfilled(fleet);
    await release();
  });
});

test('a restart backfills nothing until every streamed commit can be seen', () => {
  return withUnseenCommit('chunk.after-read=pause:60000:2', async (fleet, release) => {
    await fleet.agent('a').kill();
    await fleet.startAgent('a');
    await readsTried(fleet, 3);
    const { lastPoint } = await newestRecords(fleet);
    assert.ok((lastPoint?.unfinished.length ?? 0) > 0, 'no table was completed meanwhile');
    await release();
  });
});

test('a node that is backfilling is named with its tables, and is not exact', () => {
  return withBusyRows(stack, async (fleet) => {
    await fleet.startAgent('b');
    await fleet.startAgent('a', 'chunk.after-read=pause:60000:3');
    const held = async () => (await fleet.sql('b', 'SELECT FROM doc LIMIT 1')).length;
    await fleet.until('a row on b', held, { reached: (n) => n === 1 });
    const isCounted = ({ unfinished }: FleetStatus): boolean => (unfinished?.[0]?.rows ?? 0) > 0;
    const status = await fleet.until('rows in the status', () => fleet.status(), {
      reached: isCounted,
    });
    assert.is(status.unfinished?.[0]?.table, 'public.doc');
    const [, b] = status.nodes;
    assert.ok(b);
    assert.equal([b.exact, b.promotable], [false, false]);
    assert.match(b.why.join(), /public.doc and 2 more tables are backfilling/);
    const verified = await fleet.cli('verify');
    assert.is(verified.code, 4);
    assert.is(verified.json.error.code, 'UNFINISHED');
    const token = await fleet.token();
    const read = fleet.sql('b', `SELECT understudy.wait_for($1, '20 s')`, [token]);
    const refused = await read.then(
      () => null,
      (error: Error & { code?: string }) => error,
    );
    assert.is(refused?.code, 'UN002', String(refused));
    await fleet.agent('a').kill();
    const failed = await fleet.cli('failover', 'b');
    assert.is(failed.code, 6);
    assert.match(failed.json.error.message, /is backfilling public.doc, public.gone, public.plain/);
    const led = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'a burnt');
    assert.is(led.code, 0, led.stderr);
    await fleet.sql('b', 'UPDATE doc SET n = n + 1 WHERE id = 1');
    // It backfills what it has, so that every follower has the same.
    await fleet.until('a complete backfill', () => fleet.status(), {
      ...{ pollMs: 500, reached: ({ unfinished }) => unfinished?.length === 0 },
    });
  });
});

test.run();
