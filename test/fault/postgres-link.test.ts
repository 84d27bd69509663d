/**
 * What breaks: the way between the leader's agent and its Postgres. It is reset while batches are
 * on their way to Kafka, falls silent in one direction or both for longer than the server waits,
 * gets slow, refuses. The rules: a session is never used again, the next one begins at the last
 * point in the log and not at what was received; only what Kafka has committed is confirmed to
 * Postgres.
 */
// runs: ci
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { slotName } from '../../src/topic/records/layout.ts';
import { FleetUnderLoad, isFull, seed } from '../support/fleet-under-load.ts';
import { apiKeys, KafkaProxy } from '../support/kafka-proxy.ts';
import { seeded } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { type Direction, TcpProxy } from '../support/tcp-proxy.ts';

const random = seeded(seed);
const rounds = isFull ? 12 : 3;
/** The server ends a walsender that is silent for so long; our agent tells it a third of it. */
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
  under = await FleetUnderLoad.start({ stack, partitions: 2, links });
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

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

test('a session that breaks with batches in flight is followed by one that repeats', async () => {
  await under.restartLeader();
  for (let round = 0; round < rounds; round += 1) {
    const commit = kafka.holdRequest(apiKeys.endTransaction);
    await commit.caught;
    await under.progress(30);
    postgres.reset();
    // Before or after the next session looks where the log stands.
    if (random() < 0.5) await pause(random() * 500);
    await commit.release();
    await under.arrivals(5);
  }
  await under.isExact();
});

for (const how of isFull ? (['reset', 'drop'] as const) : (['reset'] as const)) {
  test(`a link that is ${how} again and again costs nothing but time`, async () => {
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

/** What was under way arrives; then nothing does: what is confirmed, and what the follower has. */
async function atRest(): Promise<readonly [string, number]> {
  let before = ['', -1] as readonly [string, number];
  await under.until(async () => {
    const last = before;
    await pause(700);
    before = [await confirmed(), await under.entries('b')];
    return before[0] === last[0] && before[1] === last[1];
  }, 'nothing moves');
  return before;
}

for (const direction of (isFull ? ['both', 'up', 'down'] : ['up']) as Direction[]) {
  test(`a link that is silent (${direction}) holds up, and loses nothing`, async () => {
    await under.restartLeader();
    await under.arrivals(1);
    postgres.blackhole(direction);
    const [before, held] = await atRest();
    await under.progress(50);
    await pause(silenceMs);
    // The server ends the one whose answers it misses; what it sent until then has arrived.
    if (direction === 'up') await under.leader.says(/POSTGRES_UNREACHABLE/);
    else assert.is(await under.entries('b'), held, 'nothing comes through');
    assert.is(await confirmed(), before, 'nothing is confirmed');
    postgres.heal();
    await under.isExact();
  });
}

test('a slow link is behind, and catches up', async () => {
  await under.restartLeader();
  postgres.slow(3_000);
  await under.progress(100);
  await pause(silenceMs);
  postgres.heal();
  await under.isExact();
});

test('a server that lets nobody in for a while is waited for', async () => {
  await under.restartLeader();
  postgres.refuse();
  await under.progress(30);
  await under.leader.says(/POSTGRES_UNREACHABLE/);
  postgres.heal();
  await under.isExact();
});

test.run();
