// time-limit: 900s
/**
 * Transactions that are larger than what an agent may hold. They pass whole, with bounded
 * memory on both sides, no reader ever sees a part of one, and an agent that is killed in the
 * middle of one leaves nothing behind. The short form is large beside the bounds of the agents, the
 * full form is 1 GB of WAL and a million rows.
 */
// runs: ci, since test/integration/large-batches.test.ts has batches of pieces
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { changesTopic, changesTopicSettings } from '../../src/topic/records/layout.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import type { FleetOptions, NodeName } from '../support/fleet-options.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { replaceSettings, testLog } from '../support/topic-stack.ts';

const rowsOf = {
  narrow: isFull ? 1_000_000 : 100_000,
  /** Of 8 kB each. */
  wide: isFull ? 125_000 : 10_000,
};
type Table = keyof typeof rowsOf;
/** The step in whose middle a follower is killed. */
const killedStep = isFull ? 6 : 2;
/** The full form takes minutes on a busy machine of two cores. */
const patienceMs = 400_000;
/** Of an agent, whatever it carries: what is in flight costs the same in both forms. */
const memoryMaxMb = 400;
const pollMs = 100;

const tables = `
  CREATE TABLE narrow (id bigint PRIMARY KEY, n int NOT NULL, note text);
  CREATE TABLE wide (id bigint PRIMARY KEY, body text NOT NULL);
  ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
  ALTER TABLE wide REPLICA IDENTITY FULL`;

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 3 });
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function newFleet(options: Partial<FleetOptions> = {}): Promise<Fleet> {
  if (fleet !== undefined) await fleet.close();
  fleet = await startFleet({ stack, partitions: 2, tables, ...options });
  return fleet;
}

/** The high-water mark of a process. */
async function peakMb(agent: FleetAgent): Promise<number> {
  const status = await readFile(`/proc/${agent.pid}/status`, 'utf8');
  return Math.round(Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024);
}

async function isBounded(...agents: readonly FleetAgent[]): Promise<string> {
  const peaks = await Promise.all(agents.map(peakMb));
  for (const [i, peak] of peaks.entries()) {
    assert.ok(peak < memoryMaxMb, `agent ${agents[i]?.node} took ${peak} MB of memory`);
  }
  return `${peaks.join(' and ')} MB of memory`;
}

async function reaches(node: NodeName): Promise<void> {
  await fleet.caughtUp('a', [node], patienceMs);
}

async function countOf(node: NodeName, table: Table): Promise<number> {
  const [row] = await fleet.sql<{ n: number }>(node, `SELECT count(*)::int AS n FROM ${table}`);
  return row?.n ?? -1;
}

/** Counts rows on node b until `isDone`, and once more; gives the counts that it saw. */
async function watch(table: Table, isDone: () => boolean): Promise<readonly number[]> {
  const reader = await fleet.session('b');
  const seen = new Set<number>();
  for (let isLast = false; !isLast; ) {
    isLast = isDone();
    const { rows } = await reader.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${table}`);
    seen.add(rows[0]?.n ?? -1);
    await sleep(pollMs);
  }
  return [...seen].sort((a, b) => a - b);
}

/** One transaction; gives how much WAL it is, in MB. */
async function writeHuge(table: Table): Promise<bigint> {
  const rows = rowsOf[table];
  const values = { narrow: "i, i % 7, 'note ' || i", wide: 'i, repeat(md5(i::text), 256)' };
  const lsn = "SELECT pg_current_wal_lsn() - '0/0' AS bytes";
  const [before] = await fleet.sql<{ bytes: string }>('a', lsn);
  await fleet.sql(
    'a',
    `INSERT INTO ${table} SELECT ${values[table]}
     FROM generate_series(1, ${rows}) AS i`,
  );
  const [after] = await fleet.sql<{ bytes: string }>('a', lsn);
  return (BigInt(after?.bytes ?? 0) - BigInt(before?.bytes ?? 0)) / 1_048_576n;
}

for (const table of ['narrow', 'wide'] as const) {
  const rows = rowsOf[table];

  test(`${rows} ${table} rows in one transaction pass whole, past kills in it`, async () => {
    await newFleet();
    const dyingLeader = await fleet.startAgent('a', 'publish.after-send=kill:5');
    const dyingFollower = await fleet.startAgent('b', `apply.after-step=kill:${killedStep}`);
    let done = false;
    const watching = watch(table, () => done);
    watching.catch(() => undefined);
    const wal = await writeHuge(table);
    assert.is(await dyingLeader.exitCode(patienceMs), null, dyingLeader.log);
    const startMs = Date.now();
    const leader = await fleet.startAgent('a');
    assert.is(await dyingFollower.exitCode(patienceMs), null, dyingFollower.log);
    assert.is(await countOf('b', table), 0, 'rows of a transaction that was applied in part');
    const publishedMs = Date.now();
    const follower = await fleet.startAgent('b');
    await reaches('b');
    const endMs = Date.now();
    done = true;
    assert.equal(await watching, [0, rows], 'a reader sees nothing or all');
    await fleet.assertSame(table);
    const memory = await isBounded(leader, follower);
    console.log(
      `${rows} ${table} rows, ${wal} MB of WAL: published in ${publishedMs - startMs} ms, ` +
        `then followed in ${endMs - publishedMs} ms, with at most ${memory}`,
    );
  });
}

/** Many transactions, each far below what a follower holds: 800 kB in one row. */
async function writeMany(from: number, to: number): Promise<void> {
  const insert = 'INSERT INTO wide VALUES ($1, repeat(md5($2), 25600))';
  for (let id = from; id < to; id += 1) await fleet.sql('a', insert, [id, `${id}`]);
}

test('a stopped follower delays no other, and a slow one stays within its bound', async () => {
  await newFleet({ nodes: 3 });
  const agents = await fleet.startAgents();
  const count = isFull ? 250 : 120;
  agents.c.signal('SIGSTOP');
  await writeMany(0, count / 5);
  await reaches('b');
  assert.is(await countOf('c', 'wide'), 0);
  const blocker = await fleet.session('c');
  await blocker.query('BEGIN; LOCK TABLE narrow IN SHARE MODE');
  await fleet.sql('a', "INSERT INTO narrow VALUES (0, 0, 'blocked')");
  agents.c.signal('SIGCONT');
  await writeMany(count / 5, count);
  await reaches('b');
  assert.is(await countOf('c', 'narrow'), 0);
  await blocker.query('COMMIT');
  await reaches('c');
  await fleet.assertSame('wide');
  await fleet.assertSame('narrow');
  console.log(`slow and stopped: at most ${await isBounded(...Object.values(agents))}`);
});

async function refusesRow(agent: FleetAgent): Promise<void> {
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(agent.log, /RECORD_TOO_LARGE/);
  assert.match(agent.log, /the row \(\\?"4711\\?"\) of public\.wide takes 12000\d{3} bytes/);
  assert.match(agent.log, /kafka-configs\.sh .*--add-config max\.message\.bytes=12582912/);
}

test('a row of 8 MB passes; one too large is named, and passes with a higher limit', async () => {
  await newFleet({ init: false });
  const topic = { 'max.message.bytes': '10000000' };
  const kafka = { ...(fleet.config['kafka'] as object), topic };
  await fleet.configure({ ...fleet.config, kafka });
  assert.is((await fleet.cli('init')).code, 0);
  const agents = await fleet.startAgents();
  const insert = 'INSERT INTO wide VALUES ($1::int, repeat(md5($1::text), $2::int / 32))';
  await fleet.sql('a', insert, [1, 8_388_608]);
  await reaches('b');
  await fleet.sql('a', insert, [4711, 12_000_000]);
  await fleet.sql('a', insert, [2, 32]);
  await refusesRow(agents.a);
  await refusesRow(fleet.spawnAgent('a'));
  assert.is(await countOf('b', 'wide'), 1);
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  const settings = changesTopicSettings(1, { 'max.message.bytes': '12582912' });
  await replaceSettings(client, changesTopic(fleet.cluster), settings);
  await fleet.startAgent('a');
  await reaches('b');
  assert.is(await countOf('b', 'wide'), 3);
  await fleet.assertSame('wide');
});

test.run();
