/**
 * Rows that were there before the stream, while commits wait to be seen: the WAL has them long
 * before any session does, and what is read meanwhile must not undo them. Until everything is read,
 * points name what is missing, and nobody takes a node for exact.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  finished,
  isExact,
  partitions,
  until,
  value,
  withBusyRows,
} from '../support/existing-rows.ts';
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

/** Commits wait for a standby that nobody is: they are streamed, and nobody sees them. */
async function holdCommits(fleet: Fleet, isHeld: boolean): Promise<void> {
  const names = isHeld ? 'nobody' : '';
  await fleet.sql('a', `ALTER SYSTEM SET synchronous_standby_names = '${names}'`);
  await fleet.sql('a', 'SELECT pg_reload_conf()');
  for (const deadlineMs = Date.now() + 10_000; ; await sleep(50)) {
    const client = await fleet.session('a');
    const { rows } = await client.query('SHOW synchronous_standby_names');
    await client.end();
    if (rows[0]?.synchronous_standby_names === names) return;
    assert.ok(Date.now() < deadlineMs, 'the setting never came');
  }
}

/**
 * While rows are read, one of plain is set to 100 in a commit that is streamed and that nobody on
 * the leader sees until `release`; afterwards it is everywhere.
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
      await until(fleet, async () => (await value(fleet, 'b', '5000.5')) === 100, '100 on b');
      assert.is(await value(fleet, 'a', '5000.5'), 0, 'on the leader nobody sees it');
      await work(fleet, async () => {
        assert.is(await value(fleet, 'a', '5000.5'), 0, 'on the leader nobody sees it still');
        await holdCommits(fleet, false);
        await waiting;
      });
      await isExact(stack, fleet);
      assert.is(await value(fleet, 'b', '5000.5'), 100);
    } finally {
      await holdCommits(fleet, false);
    }
  };
  return withBusyRows(stack, hold, { a: own.server });
}

test('what was streamed before it can be seen is not undone', () => {
  return withUnseenCommit('chunk.after-read=pause:3000:2', async (fleet, release) => {
    await finished(stack, fleet);
    await release();
  });
});

test('nor is it after a restart, which waits until all that was streamed is seen', () => {
  return withUnseenCommit('chunk.after-read=pause:60000:2', async (fleet, release) => {
    await fleet.agent('a').kill();
    await fleet.startAgent('a');
    await sleep(1_500);
    const { lastPoint } = await newestRecords(stack, fleet, partitions);
    assert.ok((lastPoint?.unfinished.length ?? 0) > 0, 'nothing is read meanwhile');
    await release();
  });
});

test('what is missing is said, and nobody takes it for exact', () => {
  return withBusyRows(stack, async (fleet) => {
    await fleet.startAgent('b');
    await fleet.startAgent('a', 'chunk.after-read=pause:60000:3');
    const holds = async (): Promise<boolean> => {
      const rows = await fleet.sql('b', 'SELECT FROM doc LIMIT 1');
      return rows.length > 0;
    };
    await until(fleet, holds, 'rows on b');
    const { json: status } = await fleet.cli('status');
    const [doc] = status.unfinished;
    assert.is(doc.table, 'public.doc');
    assert.ok(doc.rows > 0, JSON.stringify(doc));
    const [, b] = status.nodes;
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
    // It reads what it has once more, so that every follower has that.
    const isRead = async (): Promise<boolean> => {
      return (await fleet.cli('status')).json.unfinished.length === 0;
    };
    await until(fleet, isRead, 'all is read');
  });
});

test.run();
