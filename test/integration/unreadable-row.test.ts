/**
 * A large value that is lost on the leader's disk: its row cannot be read, by a reselect or by a
 * backfill. The log names the table and the key, other rows and other tables go on, and once the
 * value is written again so does the row.
 */
// runs: ci, since test/integration/reselect.test.ts has reads that fail for a while
import { openSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { newestRecords } from '../support/newest-records.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
/** The leader's: it is restarted with a file that lacks a page. */
let own: OwnServer;
let fleet: Fleet;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
  const tables = `CREATE TABLE page (id int PRIMARY KEY, n int NOT NULL, body text);
    ALTER TABLE page ALTER body SET STORAGE EXTERNAL`;
  fleet = await startFleet({ stack, servers: { a: own.server }, partitions: 1, tables });
  await fleet.startAgents();
  await fleet.sql(
    'a',
    `INSERT INTO page SELECT i, 0, CASE i WHEN 7 THEN repeat('large ', 700) ELSE 'small' END
     FROM generate_series(1, 2000) AS i`,
  );
  await fleet.caughtUp();
});

test.after(async () => {
  await fleet.close();
  await own.close();
  await stack.close();
});

/** The only large value is in this file; a page of zeros is an empty one. */
async function loseLargeValues(): Promise<void> {
  const [file] = await fleet.sql<{ path: string }>(
    'a',
    `SELECT current_setting('data_directory') || '/' || pg_relation_filepath(reltoastrelid) AS path
     FROM pg_class WHERE oid = 'page'::regclass`,
  );
  await fleet.sql('a', 'CHECKPOINT');
  await own.server.stop('fast');
  const path = join(file?.path ?? '');
  writeSync(openSync(path, 'r+'), Buffer.alloc(statSync(path).size));
  await own.server.start();
}

const named = /"code":"ROW_UNREADABLE","message":"the row \(7\) of public.page cannot be read/;

test('a row that cannot be read is named, and delays nothing else', async () => {
  await fleet.agent('a').stop();
  await fleet.sql('a', 'UPDATE page SET n = 1 WHERE id = 7');
  await loseLargeValues();
  await fleet.startAgent('a');
  await fleet.agent('a').logged(named);
  await fleet.sql('a', 'UPDATE page SET n = 2 WHERE id < 7');
  await fleet.caughtUp();
  const { partial } = await newestRecords(fleet);
  assert.equal(partial, ['public.page 7: body']);
  // The follower has the value still.
  const [held] = await fleet.sql('b', 'SELECT n, length(body) AS bytes FROM page WHERE id = 7');
  assert.equal(held, { n: 1, bytes: 4_200 });
});

test('a backfill names it too, and goes on once it is written again', async () => {
  await fleet.agent('a').stop();
  const agent = await fleet.startAgent('a');
  const began = await fleet.cli('resnapshot', 'public.page', '--no-wait');
  assert.is(began.code, 0, began.stderr);
  await agent.logged(/a row cannot be backfilled/);
  await fleet.sql('a', `UPDATE page SET body = 'written again' WHERE id = 7`);
  await fleet.until('a complete backfill', async () => (await fleet.status()).unfinished, {
    reached: (unfinished) => unfinished?.length === 0,
    timeoutMs: 60_000,
  });
  await fleet.caughtUp();
  await fleet.assertSame('page');
  assert.equal((await newestRecords(fleet)).partial, []);
});

test.run();
