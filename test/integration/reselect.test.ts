/**
 * Partial rows, whose update left a large value unsent, are reselected: soon the newest record of
 * every key is the row that the leader has. Through rows that are written all the time, locks that
 * are held for long, commits that wait for a standby, key changes, kills at each step, more rows
 * than one read takes, a promotion, and records that a new epoch voids. Tests run in order, on one
 * fleet; the last one promotes node b.
 */
import { createHash } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { zeroLsn } from '../../src/change/lsn.ts';
import { compareEpochLsn, parseEpochLsn } from '../../src/change/position.ts';
import { readsTried } from '../support/backfill-rows.ts';
import { beside } from '../support/beside.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { NodeName } from '../support/fleet-options.ts';
import { againAfter, Forger } from '../support/forger.ts';
import { type NewestRecords, newestRecords } from '../support/newest-records.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

// time-limit: 240s

const partitions = 2;
const large = `repeat(md5(i::text), 100)`;
let stack: Stack;
/** The leader's: one test makes every commit of its server wait. */
let own: OwnServer;
let fleet: Fleet;
let leader: NodeName = 'a';

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
  fleet = await startFleet({
    stack,
    servers: { a: own.server },
    partitions,
    tables: `CREATE TABLE doc (id int PRIMARY KEY, n int NOT NULL, body text);
      ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
      CREATE TABLE price (id numeric PRIMARY KEY, n int NOT NULL, body text);
      ALTER TABLE price ALTER body SET STORAGE EXTERNAL`,
  });
  await fleet.startAgents();
  await fleet.sql('a', `INSERT INTO doc SELECT i, 0, ${large} FROM generate_series(1, 40) AS i`);
  await fleet.sql(
    'a',
    `INSERT INTO price SELECT i + 0.50, 0, ${large} FROM generate_series(1, 3) i`,
  );
  await fleet.caughtUp();
});

test.after(async () => {
  await fleet.close();
  await Promise.all([own.close(), stack.close()]);
});

async function reselected(): Promise<NewestRecords> {
  const token = parseEpochLsn(await fleet.token(leader));
  assert.ok(token);
  return fleet.until('no row is unhealed', () => newestRecords(fleet), {
    pollMs: 200,
    reached: ({ lastPoint }) => {
      const { epoch = 0, upto: lsn = zeroLsn, unhealed = null } = lastPoint ?? {};
      return compareEpochLsn({ epoch, lsn }, token) >= 0 && unhealed === null;
    },
  });
}

/** The topic, as compaction would leave it, is the table; so are the followers. */
async function isWhole(): Promise<NewestRecords> {
  const newest = await reselected();
  assert.equal(newest.partial, []);
  for (const name of ['doc', 'price']) {
    const rows = await fleet.sql<{ row: string }>(
      leader,
      `SELECT concat_ws(' ', id, n, md5(body)) AS row FROM ${name}`,
    );
    const held = [...(newest.rows.get(`public.${name}`)?.values() ?? [])].map(({ id, n, body }) => {
      return [
        id,
        n,
        createHash('md5')
          .update(body ?? '')
          .digest('hex'),
      ].join(' ');
    });
    assert.equal(held.sort(), rows.map(({ row }) => row).sort(), name);
  }
  if (leader === 'a') await fleet.caughtUp();
  if (leader === 'a') await fleet.assertSame('doc');
  return newest;
}

test('a partial row is whole in the topic soon after', async () => {
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id <= 5');
  await fleet.caughtUp();
  const { reads } = await isWhole();
  assert.is(reads, 5, 'one record for each');
  await fleet.sql('a', 'UPDATE doc SET id = id + 100 WHERE id IN (1, 2)');
  await fleet.sql('a', 'UPDATE price SET n = 1');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id = 3; DELETE FROM doc WHERE id = 3');
  await isWhole();
});

test('a key that changes its spelling and back keeps its large value', async () => {
  await fleet.sql(
    'a',
    `BEGIN; UPDATE price SET id = 1.5 WHERE id = 1.50; UPDATE price SET id = 1.50 WHERE id = 1.5;
     UPDATE price SET n = n + 1; DELETE FROM price WHERE id = 3.5; COMMIT`,
  );
  await fleet.caughtUp();
  await fleet.assertSame('price');
  await fleet.sql('a', `INSERT INTO price VALUES (3.50, 0, repeat('body', 1000))`);
  await isWhole();
});

test('a row that is written all the time is reselected all the same', async () => {
  const hot = await fleet.session('a');
  const before = (await newestRecords(fleet)).reads;
  const reads = async (): Promise<number> => (await newestRecords(fleet)).reads - before;
  await beside([() => hot.query('UPDATE doc SET n = n + 1 WHERE id = 6')], () =>
    fleet.until('3 reads of the row', reads, { pollMs: 500, reached: (n) => n >= 3 }),
  );
  await isWhole();
});

test('a locked table delays its rows, and nothing else', async () => {
  const owner = await fleet.session('a');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id = 7; UPDATE price SET n = n + 1');
  await owner.query('BEGIN; LOCK TABLE doc IN ACCESS EXCLUSIVE MODE');
  await readsTried(fleet, 3);
  await fleet.sql('a', 'UPDATE price SET n = n + 1');
  await fleet.caughtUp();
  const { partial } = await newestRecords(fleet);
  assert.equal(
    partial.filter((one) => one.startsWith('public.doc')),
    ['public.doc 7: body'],
  );
  await owner.query('COMMIT');
  await isWhole();
});

test('a commit that waits for a standby is reselected with what it wrote', async () => {
  const name = 'understudy a walsender';
  await fleet.sql('a', `ALTER SYSTEM SET synchronous_standby_names = '"${name}"'`);
  await fleet.sql('a', 'SELECT pg_reload_conf()');
  try {
    const writers = await Promise.all([fleet.session('a'), fleet.session('a')]);
    for (let round = 0; round < 20; round += 1) {
      await Promise.all(
        writers.map((writer, i) =>
          writer.query(`UPDATE doc SET n = n + 1 WHERE id IN (8, ${9 + i})`),
        ),
      );
    }
    await isWhole();
  } finally {
    await fleet.sql('a', 'ALTER SYSTEM RESET synchronous_standby_names');
    await fleet.sql('a', 'SELECT pg_reload_conf()');
  }
});

for (const failpoint of ['heal.after-read', 'heal.after-watermark'] as const) {
  test(`a leader killed at ${failpoint} reselects after its restart`, async () => {
    await fleet.agent('a').stop();
    const agent = await fleet.startAgent('a', `${failpoint}=kill`);
    await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id BETWEEN 10 AND 20');
    assert.is(await agent.exitCode(), null, agent.log);
    await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id BETWEEN 15 AND 25');
    await fleet.startAgent('a');
    await isWhole();
  });
}

test('rows that wait for an older transaction are reselected when it ends', async () => {
  const older = await fleet.session('a');
  await fleet.agent('a').stop();
  await older.query('BEGIN; SELECT pg_current_xact_id()');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id = 30');
  // The agent that streams this is killed before the reselect: the next one finds it in the topic.
  const agent = await fleet.startAgent('a', 'heal.after-read=kill');
  assert.is(await agent.exitCode(), null, agent.log);
  await fleet.startAgent('a');
  await readsTried(fleet, 3);
  const { partial } = await newestRecords(fleet);
  assert.equal(partial, ['public.doc 30: body']);
  await older.query('COMMIT');
  await isWhole();
});

test('many rows are reselected, read after read', async () => {
  await fleet.sql(
    'a',
    `INSERT INTO doc SELECT i, 0, ${large} FROM generate_series(1000, 2500) AS i`,
  );
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id >= 1000');
  await isWhole();
});

test('a truncate voids partial rows', async () => {
  await fleet.sql('a', 'UPDATE price SET n = n + 1; TRUNCATE price');
  await fleet.sql(
    'a',
    `INSERT INTO price SELECT i + 0.5, 0, ${large} FROM generate_series(1, 3) i`,
  );
  await isWhole();
});

test('a key with a void record is reselected', async () => {
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id BETWEEN 26 AND 29');
  await isWhole();
  await fleet.agent('a').stop();
  const forger = new Forger(fleet);
  const last = await forger.lastPoint();
  const stale = (await forger.firstVersions()).map((row) => againAfter(last, row));
  await forger.commit('publisher', stale);
  await fleet.startAgent('a');
  const { reads } = await isWhole();
  assert.ok(reads > 0);
});

test('a promoted node reselects the partial rows of the former leader', async () => {
  await fleet.agent('a').stop();
  const agent = await fleet.startAgent('a', 'heal.after-read=kill');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id BETWEEN 30 AND 39');
  assert.is(await agent.exitCode(), null, agent.log);
  const force = ['--allow-data-loss', '--reason', 'test'];
  const { code, stderr } = await fleet.cli('failover', 'b', ...force);
  assert.is(code, 0, `${stderr}\n${fleet.logs()}`);
  leader = 'b';
  await fleet.sql('b', 'UPDATE doc SET n = n + 1 WHERE id BETWEEN 35 AND 40');
  await isWhole();
});

test.run();
