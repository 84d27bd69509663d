/**
 * What breaks: the link between the leader's agent and its Postgres. It is reset while batches are
 * on their way to Kafka, delivers nothing in one direction or both for longer than the server
 * waits, gets slow, refuses. The rules: a session is never used again, the next one begins at the
 * last point in the log and not at what was received; only what Kafka has committed is confirmed to
 * Postgres.
 */
// time-limit: 600s
// runs: ci, since test/model/publish.test.ts has its histories
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hasCode } from '../../src/errors/understudy-error.ts';
import { lockNode } from '../../src/fleet/node/node-lock.ts';
import { slotName } from '../../src/topic/records/layout.ts';
import { FleetUnderLoad, fewWorkloads } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { apiKeys, KafkaProxy } from '../support/kafka-proxy.ts';
import { seeded, seedOfRun } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { type Direction, TcpProxy } from '../support/tcp-proxy.ts';

const random = seeded(seedOfRun());
const rounds = isFull ? 12 : 3;
/** The server ends a walsender that is silent for so long; the agent reports after a third. */
const walSenderTimeoutMs = 1_500;
const silenceMs = isFull ? 15_000 : 2_500;
let stack: Stack;
let postgres: TcpProxy;
let kafka: KafkaProxy;
let under: FleetUnderLoad;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  postgres = await TcpProxy.start(new URL(stack.postgres[0]?.superuserUrl ?? '').host);
  kafka = await KafkaProxy.start(stack.brokers);
  const option = encodeURIComponent(`-c wal_sender_timeout=${walSenderTimeoutMs}`);
  const url = (direct: string): string => `${postgres.through(direct)}?options=${option}`;
  const links = { a: { url, brokers: kafka.addresses } };
  under = await FleetUnderLoad.start({ stack, partitions: 2, links, workloads: fewWorkloads });
});

test.after.each(() => {
  postgres.heal();
  kafka.forget();
});

test.after(async () => {
  await under.close();
  await Promise.all([postgres.close(), kafka.close()]);
  await stack.close();
});

test('a session that breaks with batches in flight is followed by one that repeats', async () => {
  await under.restartLeader();
  for (let round = 0; round < rounds; round += 1) {
    const commit = kafka.holdRequest(apiKeys.endTransaction);
    await commit.caught;
    await under.progress(30);
    postgres.reset();
    // Before or after the next session reads the end of the log.
    if (random() < 0.5) await sleep(random() * 500);
    await commit.release();
    await under.arrivals(5);
  }
  await under.isExact();
});

for (const how of isFull ? (['reset', 'drop'] as const) : (['reset'] as const)) {
  test(`a link that is ${how} many times loses nothing`, async () => {
    await under.restartLeader();
    for (let round = 0; round < rounds; round += 1) {
      await under.progress(1 + Math.floor(random() * 40));
      postgres[how]();
    }
    await under.isExact();
  });
}

async function confirmed(): Promise<string> {
  const [slot] = await under.fleet.sql<{ lsn: string }>(
    'a',
    'SELECT confirmed_flush_lsn AS lsn FROM pg_replication_slots WHERE slot_name = $1',
    [slotName(under.fleet.cluster, 1)],
  );
  return slot?.lsn ?? '';
}

interface Progress {
  readonly confirmed: string;
  readonly entriesOnB: number;
}

/** What was under way arrives, then nothing does: gives what is confirmed and applied by then. */
async function atRest(): Promise<Progress> {
  const read = async (): Promise<Progress> => {
    return { confirmed: await confirmed(), entriesOnB: await under.entries('b') };
  };
  let last = await read();
  const probe = async () => {
    const before = last;
    last = await read();
    return { before, last };
  };
  const seen = await under.fleet.until('nothing moves', probe, {
    pollMs: 2_000,
    reached: ({ before, last }) => JSON.stringify(before) === JSON.stringify(last),
  });
  return seen.last;
}

for (const direction of (isFull ? ['both', 'up', 'down'] : ['up']) as Direction[]) {
  test(`a link that delivers nothing (${direction}) and then breaks loses nothing`, async () => {
    await under.restartLeader();
    await under.arrivals(1);
    postgres.blackhole(direction);
    const before = await atRest();
    // The WAL describes its table once more, and the catalog never answers what the leader asks.
    await under.fleet.sql('a', 'ANALYZE entry');
    await under.progress(50);
    await sleep(silenceMs);
    if (direction !== 'up')
      assert.is(await under.entries('b'), before.entriesOnB, 'nothing arrives');
    // The server ends a walsender that does not report, the agent one that does not answer.
    await under.leaderAgent.logged(/POSTGRES_UNREACHABLE/);
    assert.is(await confirmed(), before.confirmed, 'nothing is confirmed');
    // What the link holds goes with its connections: the next session has to ask for it again.
    postgres.reset();
    postgres.heal();
    await under.isExact();
  });
}

test('a server that accepts statements and answers none is reported by the lock', async () => {
  const url = postgres.through(stack.postgres[0]?.superuserUrl ?? '');
  const lock = await lockNode(url, 'postgres', 'z', { pollEveryMs: 50 });
  await sleep(500);
  postgres.blackhole('both');
  const lost = await lock.lost.catch((error: unknown) => error);
  assert.ok(hasCode(lost, 'POSTGRES_UNREACHABLE'), String(lost));
  await lock.release();
  postgres.heal();
  await under.isExact();
});

test('a follower catches up after a slow link', async () => {
  await under.restartLeader();
  postgres.slow(3_000);
  await under.progress(100);
  await sleep(silenceMs);
  postgres.heal();
  await under.isExact();
});

test('the agent waits for a server that refuses connections', async () => {
  await under.restartLeader();
  postgres.refuse();
  await under.progress(30);
  await under.leaderAgent.logged(/POSTGRES_UNREACHABLE/);
  postgres.heal();
  await under.isExact();
});

test.run();
