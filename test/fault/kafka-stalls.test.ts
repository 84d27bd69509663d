/**
 * What breaks: the only Kafka broker hangs (SIGSTOP), for moments and for longer than any request
 * waits, and agents are killed meanwhile. Connections stay open and nothing answers. The rules:
 * only what Kafka has committed is confirmed to Postgres, however long that takes and however often
 * the server asks; whether the transaction under way was committed is read from the log afterwards.
 */
// time-limit: 600s
// runs: full, since stalls take minutes
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { slotName } from '../../src/topic/records/layout.ts';
import { FleetUnderLoad, fewWorkloads } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { seeded, seedOfRun } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';

const random = seeded(seedOfRun());
/** The agent reports to the server after a third of it, and the server asks after half. */
const walSenderTimeoutMs = 1_500;
/** Longer than the server waits, in any form; shorter than the 30 s that a request may take. */
const stallMs = isFull ? 20_000 : 3_000;
const rounds = isFull ? 6 : 2;
let stack: Stack;
let sandbox: Sandbox;
let under: FleetUnderLoad;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  const options = { postgres: 0, brokers: 1, registry: false } as const;
  sandbox = await startSandbox({ ...options, log: () => undefined });
  const option = encodeURIComponent(`-c wal_sender_timeout=${walSenderTimeoutMs}`);
  const links = { a: { url: (direct: string) => `${direct}?options=${option}` } };
  const { brokers } = sandbox;
  const workloads = fewWorkloads;
  under = await FleetUnderLoad.start({ stack, partitions: 2, brokers, links, workloads });
});

test.after(async () => {
  await hang(false);
  await under.close();
  await sandbox.stop();
  await stack.close();
});

async function hang(hanging: boolean): Promise<void> {
  await sandbox.kafka[0]?.kill(hanging ? 'SIGSTOP' : 'SIGCONT');
}

interface Slot {
  readonly confirmed: string;
  readonly active: boolean;
}

async function slot(): Promise<Slot> {
  const [row] = await under.fleet.sql<Slot>(
    'a',
    `SELECT confirmed_flush_lsn AS confirmed, active FROM pg_replication_slots
     WHERE slot_name = $1`,
    [slotName(under.fleet.cluster, 1)],
  );
  if (row === undefined) throw new Error('the slot is missing');
  return row;
}

/** Kafka stalls under load; what was under way before may still be confirmed. */
async function stall(forMs: number): Promise<void> {
  await hang(true);
  await sleep(500);
  const before = await slot();
  await under.progress(100);
  await sleep(forMs);
  assert.equal(
    await slot(),
    { ...before, active: true },
    'nothing is confirmed, the walsender runs',
  );
}

test('only what is in the topic is confirmed, and a kill then loses nothing', async () => {
  await under.arrivals(5);
  await stall(stallMs);
  await under.leaderAgent.kill();
  await hang(false);
  await under.fleet.startAgent('a');
  await under.isExact();
});

test('agents that are killed and started while the broker hangs lose nothing', async () => {
  await under.arrivals(5);
  await stall(0);
  await Promise.all([under.leaderAgent.kill(), under.fleet.agent('b').kill()]);
  under.fleet.spawnAgent('a');
  under.fleet.spawnAgent('b');
  await sleep(1_000);
  await hang(false);
  await under.isExact();
});

test('agents wait for a broker that hangs for a short time', async () => {
  for (let round = 0; round < rounds; round += 1) {
    await under.progress(1 + Math.floor(random() * 30));
    await hang(true);
    await sleep(200 + random() * 1_500);
    await hang(false);
    await under.arrivals(1);
  }
  await under.isExact();
});

if (isFull) {
  test('a hang longer than any request waits is survived by both agents', async () => {
    await hang(true);
    await sleep(90_000);
    await hang(false);
    await under.isExact();
  });
}

test.run();
