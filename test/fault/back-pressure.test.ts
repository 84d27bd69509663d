/**
 * Kafka or a follower stops while the leader is written to at full load. WAL waits on the leader's
 * disk and nowhere else: no agent grows, the log and `status` show why, no other node is delayed,
 * and afterwards every follower catches up exactly. Memory is asserted, not time.
 */
// runs: full, since it needs minutes of full load
// time-limit: 900s
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import type { FleetStatus } from '../../src/fleet/status/node-status.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import type { NodeName } from '../support/fleet-options.ts';
import { isFull } from '../support/form.ts';
import { forgetPeakMemory, peakMemoryBytes } from '../support/process-cost.ts';
import { type Stack, useStack } from '../support/stack.ts';

const outageMs = isFull ? 60_000 : 10_000;
const MiB = 1024 * 1024;
/** Far below what waits meanwhile; garbage collection moves the peak by less. */
const growthMax = 64 * MiB;
/** Of the leader's agent at full load: bounded queues and batches, and the engine. */
const leaderMax = 512 * MiB;
/** Batches at their bound leave more garbage; still less than waited. */
const busyGrowthMax = 160 * MiB;
/** Of WAL: an agent that held it in memory would be seen. */
const waitingMin = 200 * MiB;
/** A busy machine takes minutes to catch up; a follower that works advances all the while. */
const stalledMaxMs = 120_000;
const tables = 'CREATE TABLE item (id bigint PRIMARY KEY, note text)';

let stack: Stack;
let sandbox: Sandbox;
let fleet: Fleet;
let agents: Record<NodeName, FleetAgent>;
let load: Writers;

/** More than the agents of a small machine carry; without a limit the catching up takes hours. */
const rowsPerSecond = 40_000;
/** More than has to wait; from then on the load is low, and adds little to catch up with. */
const rowsAtFullLoad = 600_000;
const lowLoad = 20;

/** Many rows a transaction, several sessions. */
class Writers {
  rows = 0;
  readonly #work: Promise<unknown>;
  #stopped = false;

  constructor(count: number, first: number) {
    const writers = Array.from({ length: count }, (_, i) => this.#write(first + i * 1e9, count));
    this.#work = Promise.all(writers);
  }

  async #write(first: number, count: number): Promise<void> {
    const session = await fleet.session('a');
    const perTransaction = 1_000;
    const everyMs = (count * perTransaction * 1_000) / rowsPerSecond;
    for (let id = first; !this.#stopped; id += perTransaction) {
      const nextMs = Date.now() + everyMs * (this.rows < rowsAtFullLoad ? 1 : lowLoad);
      await session.query(
        `INSERT INTO item SELECT i, repeat(md5(i::text), 16)
         FROM generate_series($1::bigint, $2::bigint) AS i`,
        [id, id + perTransaction - 1],
      );
      this.rows += perTransaction;
      await sleep(Math.max(0, nextMs - Date.now()));
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#work;
  }

  /** Resolves when that much more is written. */
  async progress(rows: number): Promise<void> {
    await this.reach(this.rows + rows);
  }

  /** Resolves when that much is written in all. */
  async reach(rows: number): Promise<void> {
    await fleet.until(`${rows} rows are written`, () => this.rows, {
      ...{ timeoutMs: stalledMaxMs, reached: (written) => written >= rows },
    });
  }
}

test.before(async () => {
  stack = await useStack({ postgres: 0 });
  sandbox = await startSandbox({ postgres: 3, brokers: 1, registry: false, log: () => undefined });
  const [a, b, c] = sandbox.postgres;
  fleet = await startFleet({
    stack,
    tables,
    nodes: 3,
    partitions: 2,
    servers: { ...(a && { a }), ...(b && { b }), ...(c && { c }) },
    brokers: sandbox.brokers,
  });
  agents = await fleet.startAgents();
});

let firstId = 1;

test.before.each(() => {
  load = new Writers(2, firstId);
  firstId += 100e9;
});

test.after.each(async () => {
  await load.stop();
});

test.after(async () => {
  await fleet.close();
  await sandbox.stop();
  await stack.close();
});

async function peaks(): Promise<Record<string, number>> {
  const all = Object.values(agents).map(async ({ node, pid }) => [
    node,
    await peakMemoryBytes(pid),
  ]);
  return Object.fromEntries(await Promise.all(all));
}

/** Memory at full load with all nodes at work; from then on peaks are counted from zero. */
async function usualPeaks(): Promise<Record<string, number>> {
  await load.reach(150_000);
  const usual = await peaks();
  const leader = usual['a'] ?? 0;
  assert.ok(leader < leaderMax, `${inMiB(leader)} MiB at full load: something has no bound`);
  for (const { pid } of Object.values(agents)) await forgetPeakMemory(pid);
  return usual;
}

async function stayedFlat(
  usual: Record<string, number>,
  when: string,
  growthMax: number,
): Promise<void> {
  const now = await peaks();
  for (const node of fleet.nodes) {
    const [before, peak] = [usual[node] ?? 0, now[node] ?? 0];
    const text = `${node}: ${inMiB(before)} MiB at full load, ${inMiB(peak)} MiB ${when}`;
    process.stderr.write(`${text}\n`);
    assert.ok(peak < before + growthMax, `memory grew: ${text}`);
  }
}

function inMiB(bytes: number): number {
  return Math.round(bytes / MiB);
}

async function unpublishedBytes(): Promise<number> {
  const [row] = await fleet.sql<{ bytes: string }>(
    'a',
    `SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), confirmed_flush_lsn) AS bytes
     FROM pg_replication_slots WHERE database = current_database()`,
  );
  return Number(row?.bytes ?? 0);
}

async function statusNow(): Promise<FleetStatus> {
  const { code, json, stderr } = await fleet.cli('status');
  assert.is(code, 0, stderr);
  return json as FleetStatus;
}

/** `followers` hold every row of the leader; one that is far behind takes a while. */
async function exact(followers: readonly NodeName[]): Promise<void> {
  const token = await fleet.token();
  for (const node of followers) await catchesUp(node, token);
  await fleet.assertSame('item', 'a', ['a', ...followers]);
}

/** However long it takes, as long as its position advances. */
async function catchesUp(node: NodeName, token: string): Promise<void> {
  let [last, advancedMs] = ['', Date.now()];
  const progress = async (): Promise<string> => {
    const [row] = await fleet.sql<{ there: boolean; at: string }>(
      node,
      `SELECT understudy.wait_for($1, '1 s') AS there, p::text AS at FROM understudy.position p`,
      [token],
    );
    if (row?.at !== last) [last, advancedMs] = [row?.at ?? '', Date.now()];
    return row?.there === true ? 'there' : last;
  };
  const isStalled = (): boolean => Date.now() - advancedMs > stalledMaxMs;
  await fleet.until(`${token} on ${node}`, progress, {
    timeoutMs: 10 * stalledMaxMs,
    reached: (at) => at === 'there',
    hopeless: () => (fleet.agent(node).ended || isStalled() ? 'it does not advance' : null),
  });
}

for (const [how, signal] of [
  ['is down', 'SIGKILL'],
  ['does not answer', 'SIGSTOP'],
] as const) {
  test(`Kafka ${how} under full load: WAL waits, no agent grows`, async () => {
    const usual = await usualPeaks();
    const logFrom = agents.a.log.length;
    const [broker] = sandbox.kafka;
    const pid = broker?.pid() ?? 0;
    if (signal === 'SIGKILL') await broker?.kill();
    else process.kill(pid, signal);
    await sleep(outageMs);
    for (let waiting = 0; waiting < waitingMin; waiting = await unpublishedBytes()) {
      await load.progress(10_000);
    }

    const status = await statusNow();
    const a = status.nodes.find(({ name }) => name === 'a');
    process.stderr.write(`${JSON.stringify(a)}\n`);
    assert.is(a?.role, 'leader');
    assert.match(a?.why.join() ?? '', /B of its WAL is not in the topic yet.*Kafka at/);
    assert.ok((a?.slot?.unpublishedBytes ?? 0) >= waitingMin, JSON.stringify(a));
    for (const { name, lsn } of status.nodes)
      assert.match(lsn ?? '', /^1:/, `${name} is in the status`);
    await stayedFlat(usual, 'while Kafka was down', growthMax);

    if (signal === 'SIGKILL') {
      const lines = agents.a.log.slice(logFrom).match(/"level":"(info|warn|error)"/g) ?? [];
      assert.ok(lines.length <= outageMs / 500, `${lines.length} lines in ${outageMs} ms`);
      await broker?.start();
    } else {
      process.kill(pid, 'SIGCONT');
    }
    await load.progress(20_000);
    await load.stop();
    await exact(['b', 'c']);
    await stayedFlat(usual, 'while followers caught up', busyGrowthMax);
    assert.not(
      Object.values(agents).some(({ ended }) => ended),
      fleet.logs(),
    );
  });
}

test('a stopped follower slows neither the leader nor the other follower', async () => {
  const usual = await usualPeaks();
  agents.b.signal('SIGSTOP');
  await sleep(outageMs / 2);
  await load.reach(300_000);
  await load.stop();
  await exact(['c']);
  agents.b.signal('SIGCONT');
  await exact(['b']);
  await stayedFlat(usual, 'with a follower that was stopped', busyGrowthMax);
});

test('a follower whose database is locked neither grows nor slows the others', async () => {
  const usual = await usualPeaks();
  const locker = await fleet.session('b');
  await locker.query('BEGIN READ WRITE; SET LOCAL session_replication_role = replica');
  await locker.query('LOCK TABLE item IN SHARE MODE');
  await sleep(outageMs / 2);
  await load.reach(400_000);
  await load.stop();
  await exact(['c']);
  await locker.query('ROLLBACK');
  await exact(['b']);
  await stayedFlat(usual, 'with a follower that waited for a lock', busyGrowthMax);
});

test.run();
