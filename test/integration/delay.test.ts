/**
 * A delayed follower under load: no reader ever sees a row there that is younger than the delay,
 * every row arrives once it is old enough, also after a restart, and memory stays bounded
 * meanwhile. A promotion does not wait for the delay: it applies all that the log holds. A delay
 * for which the topic does not keep every change is refused. Tests run in order, on one fleet.
 */
// time-limit: 300s
// runs: ci, since test/unit/apply-delay.test.ts has the decisions
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { residentBytes } from '../support/checker/resident-bytes.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';

const delayMs = 6_000;
const keptMs = 3_600_000;
/** Of rows that wait a follower holds 64 MiB, and its process some three times that. */
const residentMax = 450 * 1024 * 1024;
const manyRows = 200_000;

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 3 });
  fleet = await startFleet({
    stack,
    nodes: 3,
    partitions: 2,
    tables: `CREATE TABLE entry (n int PRIMARY KEY, at timestamptz NOT NULL, note text)`,
    topic: { 'min.compaction.lag.ms': String(keptMs) },
  });
  await fleet.startAgent('a');
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function delayed(delay: string, topic?: object): Promise<void> {
  const nodes = fleet.config['nodes'] as Record<string, object>;
  const kafka = fleet.config['kafka'] as object;
  await fleet.configure({
    ...fleet.config,
    nodes: { ...nodes, b: { ...nodes['b'], delay } },
    ...(topic && { kafka: { ...kafka, topic } }),
  });
}

async function write(n: number): Promise<void> {
  await fleet.sql('a', 'INSERT INTO entry VALUES ($1, clock_timestamp())', [n]);
}

/** The number of rows on b, none of which may be too young. */
async function rowsOnB(): Promise<number> {
  const rows = await fleet.sql<{ at: Date }>('b', 'SELECT at FROM entry');
  const nowMs = Date.now();
  for (const { at } of rows) {
    const ageMs = nowMs - at.getTime();
    assert.ok(ageMs >= delayMs, `a row of ${ageMs} ms is there`);
  }
  return rows.length;
}

async function rowsArrive(count: number): Promise<void> {
  const reached = (rows: number): boolean => rows >= count;
  await fleet.until(`${count} rows on b`, rowsOnB, { pollMs: 20, reached });
}

test('no row is younger than the delay, and every row arrives, also after a restart', async () => {
  await delayed(`${delayMs}ms`);
  const agent = await fleet.startAgent('b');
  for (let n = 1; n <= 20; n += 1) {
    await write(n);
    await rowsOnB();
    await sleep(100);
  }
  await rowsArrive(20);
  // On an idle leader too an LSN is not passed before its time: a detach can still stop there.
  await fleet.caughtUp('a', ['b']);
  const fromMs = Date.now();
  await fleet.sql('a', 'SELECT txid_current()');
  const [row] = await fleet.sql<{ reached: boolean }>(
    'b',
    `SELECT understudy.wait_for($1, '3 s') AS reached`,
    [await fleet.token()],
  );
  assert.ok(!row?.reached || Date.now() - fromMs >= delayMs, 'an idle point is passed too early');
  for (let n = 21; n <= 30; n += 1) await write(n);
  await agent.kill();
  await fleet.startAgent('b');
  await rowsArrive(30);
});

test('rows that wait for a delay are not all held in memory', async () => {
  if (!isFull) return;
  assert.is(await fleet.agent('b').stop(), 0);
  await delayed('30m');
  const agent = await fleet.startAgent('b');
  for (let first = 1; first <= manyRows; first += 2_000) {
    await fleet.sql(
      'a',
      `INSERT INTO entry SELECT 1000 + i, clock_timestamp(), repeat('x', 1000)
       FROM generate_series(${first}, ${first + 1_999}) AS i`,
    );
  }
  assert.is((await fleet.cli('point', 'many')).code, 0);
  for (let i = 0; i < 20; i += 1) {
    const bytes = residentBytes(agent.pid) ?? 0;
    assert.ok(bytes < residentMax, `the agent takes ${bytes} bytes`);
    await sleep(500);
  }
  assert.not(agent.ended, agent.log);
});

test('a run to an LSN serves no request, and its stop is no success', async () => {
  const agent = fleet.spawnCommand('run', 'c', '--until', '1:FFF/0');
  await agent.logged(/"message":"following"/);
  const failover = ['failover', 'c', '--allow-data-loss', '--reason', 'test'];
  const { code, json } = await fleet.cli(...failover);
  assert.is(code, 4, JSON.stringify(json));
  assert.match(json.error.message, 'is to stop at an LSN');
  assert.is(await agent.stop(), 143, agent.log);
});

test('a delay longer than the topic keeps every change is refused', async () => {
  assert.is(await fleet.agent('b').stop(), 0);
  await delayed('90m', { 'min.compaction.lag.ms': 2 * keptMs });
  const { code, json } = await fleet.cli('run', 'b');
  assert.is(code, 4, JSON.stringify(json));
  assert.match(json.error.message, 'delayed by 90m');
  const checked = await fleet.cli('check');
  assert.is(checked.code, 4);
  const found = checked.json.findings.filter(
    ({ object }: { object: string }) => object === 'node b',
  );
  assert.match(JSON.stringify(found), 'keeps every change for 1h');
});

test('a delayed node that is promoted applies all that the log holds first', async () => {
  await delayed('50m', { 'min.compaction.lag.ms': keptMs });
  await fleet.startAgent('b');
  const before = await fleet.sql('b', 'SELECT FROM entry');
  for (let n = 101; n <= 120; n += 1) await write(n);
  assert.is((await fleet.cli('point', 'last')).code, 0);
  assert.is((await fleet.sql('b', 'SELECT FROM entry')).length, before.length);
  const failover = ['failover', 'b', '--allow-data-loss', '--reason', 'test'];
  const { code, json, stderr } = await fleet.cli(...failover);
  assert.is(code, 0, `${JSON.stringify(json)} ${stderr}\n${fleet.logs()}`);
  await fleet.assertSame('entry', 'a', ['a', 'b']);
});

test('an LSN past the end of an epoch is refused, and so is detaching its leader', async () => {
  const past = ['--until', '1:FFF/0'];
  const [behind, former] = await Promise.all([
    fleet.cli('run', 'c', ...past),
    fleet.cli('detach', 'a'),
  ]);
  assert.is(behind.code, 4, JSON.stringify(behind));
  assert.match(behind.json.error.message, 'another epoch begins there');
  await fleet.assertSame('entry', 'b', ['b', 'c']);
  assert.is(former.code, 4, JSON.stringify(former));
  assert.match(former.json.error.message, 'node a is not a follower');
});

test.run();
