/**
 * Rows whose update left a large value unsent are whole in the topic soon after: the newest record
 * of every key is the row that the leader has. Through rows that never rest, locks that are held
 * for long, commits that wait to be seen, key changes, kills at each step, more rows than one read
 * takes, a promotion, and records that a new epoch voids.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { zeroLsn } from '../../src/change/lsn.ts';
import { compareEpochLsn, parseEpochLsn } from '../../src/change/position.ts';
import { type Fleet, type NodeName, startFleet } from '../support/fleet.ts';
import { againAfter, Forger } from '../support/forger.ts';
import { type NewestRecords, newestRecords } from '../support/newest-records.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

// time-limit: 240s

const partitions = 2;
const healedWithinMs = 90_000;
const table = '(SELECT id, n, body FROM doc)';
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

async function healed(): Promise<NewestRecords> {
  const token = parseEpochLsn(await fleet.token(leader));
  assert.ok(token);
  for (const deadlineMs = Date.now() + healedWithinMs; ; await sleep(200)) {
    const newest = await newestRecords(stack, fleet, partitions);
    const { epoch = 0, upto: lsn = zeroLsn, unhealed = null } = newest.lastPoint ?? {};
    if (compareEpochLsn({ epoch, lsn }, token) >= 0 && unhealed === null) return newest;
    const late = `not healed: ${newest.lacking.slice(0, 5).join('; ')}\n${fleet.logs()}`;
    assert.ok(Date.now() < deadlineMs, late);
  }
}

/** The topic, as compaction would leave it, is the table; so are the followers. */
async function isWhole(): Promise<NewestRecords> {
  const newest = await healed();
  assert.equal(newest.lacking, []);
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
  if (leader === 'a') await fleet.assertSame(table);
  return newest;
}

test('a row that lacked a value is whole in the topic soon after', async () => {
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id <= 5');
  await fleet.caughtUp();
  const { reads } = await isWhole();
  assert.is(reads, 5, 'one record for each');
  await fleet.sql('a', 'UPDATE doc SET id = id + 100 WHERE id IN (1, 2)');
  await fleet.sql('a', 'UPDATE price SET n = 1');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id = 3; DELETE FROM doc WHERE id = 3');
  await isWhole();
});

test('a row that never rests is healed all the same', async () => {
  const hot = await fleet.session('a');
  let stopped = false;
  const writing = (async () => {
    while (!stopped) await hot.query('UPDATE doc SET n = n + 1 WHERE id = 6');
  })();
  const before = (await newestRecords(stack, fleet, partitions)).reads;
  for (const deadlineMs = Date.now() + healedWithinMs; ; await sleep(500)) {
    const { reads } = await newestRecords(stack, fleet, partitions);
    if (reads >= before + 3) break;
    assert.ok(Date.now() < deadlineMs, `${reads - before} reads\n${fleet.logs()}`);
  }
  stopped = true;
  await writing;
  await isWhole();
});

test('a locked table delays its rows, and nothing else', async () => {
  const owner = await fleet.session('a');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id = 7; UPDATE price SET n = n + 1');
  await owner.query('BEGIN; LOCK TABLE doc IN ACCESS EXCLUSIVE MODE');
  await sleep(3_000);
  await fleet.sql('a', 'UPDATE price SET n = n + 1');
  await fleet.caughtUp();
  const { lacking } = await newestRecords(stack, fleet, partitions);
  assert.equal(
    lacking.filter((one) => one.startsWith('public.doc')),
    ['public.doc 7: body'],
  );
  await owner.query('COMMIT');
  await isWhole();
});

test('a commit that waits to be seen is healed with what it wrote', async () => {
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
  test(`a leader killed at ${failpoint} heals after its restart`, async () => {
    await fleet.agent('a').stop();
    const agent = await fleet.startAgent('a', `${failpoint}=kill`);
    await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id BETWEEN 10 AND 20');
    assert.is(await agent.exitCode(), null, agent.log);
    await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id BETWEEN 15 AND 25');
    await fleet.startAgent('a');
    await isWhole();
  });
}

test('rows that wait for an older transaction are healed when it ends', async () => {
  const older = await fleet.session('a');
  await fleet.agent('a').stop();
  await older.query('BEGIN; SELECT pg_current_xact_id()');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id = 30');
  // The agent that streams this dies before it has healed it: the next one finds it in the topic.
  const agent = await fleet.startAgent('a', 'heal.after-read=kill');
  assert.is(await agent.exitCode(), null, agent.log);
  await fleet.startAgent('a');
  await sleep(3_000);
  const { lacking } = await newestRecords(stack, fleet, partitions);
  assert.equal(lacking, ['public.doc 30: body']);
  await older.query('COMMIT');
  await isWhole();
});

test('many rows are healed, read after read', async () => {
  await fleet.sql(
    'a',
    `INSERT INTO doc SELECT i, 0, ${large} FROM generate_series(1000, 2500) AS i`,
  );
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id >= 1000');
  await isWhole();
});

test('a truncate ends what its rows lacked', async () => {
  await fleet.sql('a', 'UPDATE price SET n = n + 1; TRUNCATE price');
  await fleet.sql(
    'a',
    `INSERT INTO price SELECT i + 0.5, 0, ${large} FROM generate_series(1, 3) i`,
  );
  await isWhole();
});

test('a key that is void is healed, or is gone, where it was never valid', async () => {
  await fleet.sql('a', 'UPDATE doc SET n = n + 1 WHERE id BETWEEN 26 AND 29');
  await isWhole();
  await fleet.agent('a').stop();
  const forger = new Forger(stack, fleet, partitions);
  const last = await forger.lastPoint();
  const stale = (await forger.firstVersions()).map((row) => againAfter(last, row));
  await forger.commit('publisher', stale);
  await fleet.startAgent('a');
  const { reads } = await isWhole();
  assert.ok(reads > 0);
});

test('whoever is promoted heals what the former leader left', async () => {
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
