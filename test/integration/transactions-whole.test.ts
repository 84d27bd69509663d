/**
 * A transaction over several tables and partitions is seen on a follower whole or not at all, while
 * partitions deliver at different speeds and everything but Kafka is stopped, frozen and killed.
 * Afterwards the follower holds exactly what the leader does, nothing twice.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, patienceMs, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { consistencyQuery, Load, loadRows, loadTableNames, loadTables } from '../support/load.ts';

const total = '40000';
let fleet: Fleet;
let leader: FleetAgent;
let follower: FleetAgent;
let writers = 1;

test.before(async () => {
  fleet = await startFleet({ partitions: 4, tables: loadTables });
  const agents = await fleet.startAgents();
  leader = agents.a;
  follower = agents.b;
  await fleet.sql('a', loadRows);
  await fleet.caughtUp();
});

test.after(async () => {
  await fleet.close();
});

function load(padding?: number): Load {
  writers += 10;
  const url = fleet.url('a');
  return new Load({ url, firstWriter: writers, ...(padding === undefined ? {} : { padding }) });
}

async function isExact(): Promise<void> {
  await fleet.caughtUp();
  for (const table of loadTableNames) await fleet.assertSame(table);
}

/** Reads the follower in snapshots until told to stop; gives how many different ones it saw. */
async function watch(
  until: () => boolean,
  reread: boolean,
  seen = new Set<string>(),
): Promise<number> {
  const reader = await fleet.session('b');
  while (!until()) {
    await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    const looks = reread ? 3 : 1;
    const found = new Set<string>();
    for (let look = 0; look < looks; look += 1) {
      const { rows } = await reader.query<Record<string, string>>(consistencyQuery);
      const [{ sum, transfers, journal } = {}] = rows;
      assert.is(sum, total, 'the accounts of one snapshot add up');
      assert.is(journal, transfers, 'entries and transfers of one snapshot agree');
      found.add(`${journal}`);
    }
    assert.is(found.size, 1, 'a snapshot does not move');
    await reader.query('COMMIT');
    for (const one of found) seen.add(one);
  }
  return seen.size;
}

test('no reader of a follower ever sees a transaction in part', async () => {
  const writing = load(60_000);
  let done = false;
  const [rereading, reading] = [new Set<string>(), new Set<string>()];
  const watching = Promise.all([
    watch(() => done, true, rereading),
    watch(() => done, false, reading),
  ]);
  watching.catch(() => undefined);
  await writing.progress(500);
  // A busy machine gives writers more turns than readers.
  for (const deadlineMs = Date.now() + patienceMs; Math.min(rereading.size, reading.size) <= 5; ) {
    const late = `${rereading.size} and ${reading.size} states were seen\n${fleet.logs()}`;
    assert.ok(Date.now() < deadlineMs, late);
    await Promise.race([writing.progress(10), watching]);
  }
  await writing.stop();
  await isExact();
  done = true;
  const [slow, fast] = await watching;
  assert.ok(slow > 5 && fast > 5, `${slow} and ${fast} states were seen`);
});

test('no reader sees a part while the follower’s agent is killed again and again', async () => {
  const writing = load(20_000);
  let done = false;
  const watching = watch(() => done, false);
  watching.catch(() => undefined);
  for (let round = 0; round < 3; round += 1) {
    await writing.progress(60);
    await follower.kill();
    follower = await fleet.startAgent('b');
  }
  await writing.stop();
  await isExact();
  done = true;
  assert.ok((await watching) > 3);
});

test('a follower that was stopped for a while catches up exactly', async () => {
  const writing = load();
  await writing.progress(50);
  assert.is(await follower.stop(), 0, follower.log);
  await writing.progress(200);
  follower = await fleet.startAgent('b');
  await writing.progress(50);
  await writing.stop();
  await isExact();
});

test('a follower that was frozen goes on exactly', async () => {
  const writing = load();
  follower.signal('SIGSTOP');
  await writing.progress(200);
  follower.signal('SIGCONT');
  await writing.progress(50);
  await writing.stop();
  await isExact();
});

test('an agent that was frozen longer than its sessions may be idle goes on', async () => {
  const writing = load();
  await writing.progress(30);
  leader.signal('SIGSTOP');
  await writing.progress(200);
  leader.signal('SIGCONT');
  await writing.progress(50);
  await writing.stop();
  await isExact();
});

test('what the leader wrote while its agent was down arrives once', async () => {
  const writing = load();
  for (let round = 0; round < 3; round += 1) {
    await writing.progress(40);
    await leader.kill();
    await writing.progress(40);
    leader = await fleet.startAgent('a');
  }
  assert.is(await leader.stop(), 0, leader.log);
  await writing.progress(40);
  leader = await fleet.startAgent('a');
  await writing.stop();
  await isExact();
  const [epochs] = await fleet.sql('b', 'SELECT count(*)::int AS n FROM understudy.epochs');
  assert.ok(Number(epochs?.n) >= 1);
});

test('everything was acknowledged once and is there once', async () => {
  const writing = load();
  await writing.progress(100);
  await writing.stop();
  await isExact();
  const rows = await fleet.sql<{ entry: string }>(
    'b',
    `SELECT writer || '/' || n AS entry
    FROM journal WHERE writer >= $1`,
    [writers],
  );
  const held = new Set(rows.map(({ entry }) => entry));
  assert.is(held.size, rows.length);
  assert.equal(
    [...writing.acked].filter((entry) => !held.has(entry)),
    [],
  );
});

test.run();
