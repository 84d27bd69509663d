/**
 * A transaction over several tables and partitions is seen on a follower whole or not at all, while
 * one partition has a hundred times more to carry than the others, and agents are stopped, frozen
 * and killed. Every node ends with the leader's rows, nothing is there twice, and what waits for
 * the slow partition does not fill the follower's memory. Tests run in order, on one fleet.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { residentBytes } from '../support/checker/resident-bytes.ts';
import { FleetUnderLoad } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { bank } from '../support/workloads/bank.ts';
import { entries } from '../support/workloads/entries.ts';
import { pairs } from '../support/workloads/pairs.ts';
import { slowPartition } from '../support/workloads/versions.ts';

// time-limit: 600s

const rounds = isFull ? 10 : 1;
const frozenMs = 2_000;
const residentMax = 600 * 1024 ** 2;
/** A busy machine gives clients more turns than readers. */
const snapshotsMin = 5;
let under: FleetUnderLoad;

test.before(async () => {
  const workloads = [bank, pairs, entries, slowPartition];
  under = await FleetUnderLoad.start({ partitions: 4, workloads, clients: { writers: 1 } });
});

test.after(async () => {
  await under.close();
});

/** Resolves when readers of node b have checked that many more snapshots. */
async function snapshotsRead(count: number): Promise<void> {
  const read = (): number => under.watchers?.snapshotsOf('b') ?? 0;
  const wanted = read() + count;
  await under.fleet.until(`${wanted} snapshots of b`, read, { reached: (n) => n >= wanted });
}

test('no reader of a follower sees a transaction in part while a partition lags', async () => {
  await Promise.all([under.progress(150), snapshotsRead(snapshotsMin)]);
  await under.isExact();
});

test('no reader sees a part while the follower’s agent is killed', async () => {
  for (let round = 0; round < 2 + rounds; round += 1) {
    await under.progress(30);
    await under.fleet.agent('b').kill();
    await Promise.all([under.fleet.startAgent('b'), snapshotsRead(1)]);
  }
  await under.isExact();
});

test('a follower that was stopped for a while catches up', async () => {
  await under.progress(30);
  const { fleet } = under;
  assert.is(await fleet.agent('b').stop(), 0, fleet.agent('b').log);
  await under.progress(150);
  await fleet.startAgent('b');
  await under.isExact();
});

test('a follower that was frozen continues, within bounded memory', async () => {
  for (let round = 0; round < rounds; round += 1) {
    const agent = under.fleet.agent('b');
    agent.signal('SIGSTOP');
    await Promise.all([sleep(frozenMs), under.progress(150)]);
    agent.signal('SIGCONT');
    await under.progress(50);
    const bytes = residentBytes(agent.pid) ?? 0;
    assert.ok(bytes < residentMax, `the follower's agent has ${bytes} bytes`);
  }
  await under.isExact();
});

test('a leader that was frozen continues', async () => {
  await under.progress(30);
  under.leaderAgent.signal('SIGSTOP');
  await Promise.all([sleep(frozenMs), under.progress(100)]);
  under.leaderAgent.signal('SIGCONT');
  await under.progress(30);
  await under.isExact();
});

test('what is written while the leader’s agent is down arrives once', async () => {
  const { fleet } = under;
  for (let round = 0; round < 1 + rounds; round += 1) {
    await under.progress(30);
    await under.leaderAgent.kill();
    await under.progress(30);
    await fleet.startAgent('a');
  }
  assert.is(await under.leaderAgent.stop(), 0, under.leaderAgent.log);
  await under.progress(30);
  await fleet.startAgent('a');
  await under.isExact();
});

test('the checker finds no violation on any node and in the topic', async () => {
  await under.end();
});

test.run();
