/**
 * A follower that cannot hold a batch reads it again while it applies it. The result must be what
 * one piece would give: over unique values that swap or are equal for a while, keys that differ in
 * bytes and are equal in Postgres, truncates in the middle, an exact stop inside of the batch, and
 * a stop of the follower while it applies. Tests run in order: each continues at the position of
 * the one before.
 */
import type { Client } from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import {
  compareEpochLsn,
  type EpochLsn,
  formatEpochLsn,
  parseEpochLsn,
} from '../../src/change/position.ts';
import { Follower } from '../../src/follower/follower.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../src/topic/kafka/committed-reader.ts';
import type { CommittedReader } from '../../src/topic/log.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { changesTopic } from '../../src/topic/records/layout.ts';
import { connectRegistry } from '../../src/topic/schema-registry.ts';
import { withTimeout } from '../../src/waiting.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';
import { untilMs } from '../support/until.ts';

const partitions = 3;
/** Of these a follower holds no more than half. */
const fillerRows = 100_000;
const tables = `
  CREATE TABLE filler (id int PRIMARY KEY, n int);
  CREATE TABLE swapped (id int PRIMARY KEY, u int UNIQUE);
  CREATE TABLE deferred (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED);
  CREATE TABLE counted (id numeric PRIMARY KEY, n int);
  CREATE TABLE parent (id int PRIMARY KEY);
  CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)`;
const tableNames = ['filler', 'swapped', 'deferred', 'counted', 'parent', 'child'];

/** Small changes are between the halves of the filler, and after both. */
const huge = `
  BEGIN;
  UPDATE counted SET id = 2.00 WHERE id = 2.0;
  UPDATE deferred SET u = 2 WHERE id = 1;
  INSERT INTO filler SELECT i, 1 FROM generate_series(1, ${fillerRows / 2}) AS i;
  UPDATE counted SET id = id * 1.0000 WHERE id BETWEEN 10 AND 19;
  UPDATE swapped SET u = NULL WHERE id = 1;
  UPDATE swapped SET u = 1 WHERE id = 2;
  UPDATE swapped SET u = 2 WHERE id = 1;
  TRUNCATE child, parent;
  INSERT INTO parent VALUES (7);
  INSERT INTO child VALUES (7, 7);
  INSERT INTO filler SELECT i, 1 FROM generate_series(${fillerRows / 2 + 1}, ${fillerRows}) AS i;
  UPDATE counted SET id = 2.000, n = n + 1 WHERE id = 2.00;
  DELETE FROM counted WHERE id = 15;
  UPDATE deferred SET u = 1 WHERE id = 2;
  UPDATE filler SET n = 2 WHERE id <= 10;
  SELECT understudy.point('huge');
  COMMIT`;

interface Following {
  readonly follower: Follower;
  readonly reader: CommittedReader;
  readonly client: Client;
  readonly ended: Promise<void>;
  /** Rows of each transaction. */
  readonly applied: number[];
  close(): Promise<void>;
}

let stack: Stack;
let fleet: Fleet;
let inside: EpochLsn;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions, tables });
  // A named point ends the first batch after its transaction.
  await fleet.sql(
    'a',
    `BEGIN; INSERT INTO swapped VALUES (1, 1), (2, 2); SELECT understudy.point('first'); COMMIT`,
  );
  await fleet.sql(
    'a',
    `INSERT INTO counted SELECT i + 0.0, 0 FROM generate_series(1, 30) AS i;
     INSERT INTO deferred VALUES (1, 1), (2, 2);
     INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1)`,
  );
  inside = await tokenOf(fleet);
  await fleet.sql('a', huge);
  await fleet.sql('a', 'INSERT INTO swapped VALUES (3, 3)');
  // The slot has all of it: while the first batch waits the others arrive, and are one batch.
  await fleet.startAgent('a', 'publish.before-send=pause:4000');
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function tokenOf(of: Fleet): Promise<EpochLsn> {
  return parseEpochLsn(await of.token()) as EpochLsn;
}

/** A follower of node b in this process, from its position row on. */
async function follow(): Promise<Following> {
  const purpose = stack.uniqueName('follower');
  const client = await connectPostgres(fleet.url('b'), { applicationName: purpose, replica: true });
  const kafka = connectKafka({ brokers: stack.brokers, clientId: purpose }, testLog);
  const reader = createCommittedReader(kafka, { topic: changesTopic(fleet.cluster), partitions });
  const applied: number[] = [];
  const follower = await Follower.open({
    client,
    reader,
    decoder: new RecordDecoder(connectRegistry({ url: stack.registryUrl }, testLog)),
    brokerNowMs: async () => Date.now(),
    repairedTo: null,
    smallestCompactionLagMs: async () => null,
    delayMs: 0,
    nowMs: Date.now,
    onApplied: (_, rows) => applied.push(rows),
    onEpoch: () => undefined,
  });
  const ended = follower.run();
  // The tests that wait for its end see its failure.
  ended.catch(() => undefined);
  const close = async (): Promise<void> => {
    follower.stop();
    await Promise.allSettled([ended]);
    await client.end();
  };
  return { follower, reader, client, ended, applied, close };
}

function inTime<T>(work: Promise<T>): Promise<T> {
  return withTimeout(work, untilMs, () => new Error('the follower does not get there'));
}

async function counts(node: 'a' | 'b'): Promise<readonly number[]> {
  const all = tableNames.map((name) => `(SELECT count(*)::int FROM ${name})`);
  const [row] = await fleet.sql<{ n: number[] }>(node, `SELECT ARRAY[${all.join(', ')}] AS n`);
  return row?.n ?? [];
}

test('a stop inside of a large batch is exact, also after a restart', async () => {
  for (let round = 0; round < 2; round += 1) {
    const { follower, close } = await follow();
    const to = { kind: 'to', at: inside } as const;
    const position = await inTime(follower.pauseAt(to));
    assert.ok(position !== null, 'no other limit was set');
    assert.is(formatEpochLsn(position.at), formatEpochLsn(inside));
    assert.ok(
      compareEpochLsn(position.checkpoint.at, inside) < 0,
      'the offsets stay at the last point',
    );
    assert.equal(await counts('b'), [0, 2, 2, 30, 2, 1]);
    await close();
  }
});

test('a follower that is stopped while it applies a large batch leaves nothing of it', async () => {
  const { follower, client, ended, applied, close } = await follow();
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  const xid = 'SELECT backend_xid AS xid, state FROM pg_stat_activity WHERE pid = $1';
  const session = async () => (await fleet.sql('b', xid, [rows[0]?.pid]))[0];
  await fleet.until('the transaction has written', session, {
    ...{ pollMs: 20, reached: (row) => row?.['xid'] !== null },
  });
  follower.stop();
  await ended;
  assert.equal(applied, []);
  assert.equal(await counts('b'), [0, 2, 2, 30, 2, 1]);
  await close();
});

test('a large batch is applied at once, and equal to the leader’s', async () => {
  const { follower, reader, ended, applied, close } = await follow();
  const ends = await reader.watermarks();
  const drained = follower.drained(ends.map(({ lastStableOffset }) => lastStableOffset));
  await inTime(Promise.race([drained, ended]));
  // In one piece every row would be written once.
  assert.ok((applied[0] ?? 0) > fillerRows + 10, `${applied}: the batch was read again`);
  await fleet.assertAllSame(tableNames);
  const labels = await fleet.sql('b', 'SELECT label FROM understudy.points ORDER BY label');
  assert.equal(labels, [{ label: 'first' }, { label: 'huge' }]);
  await close();
});

test.run();
