/**
 * The position row on a real server: it moves with the rows or not at all, and only from the
 * position that the applier knows. An applier whose COMMIT was not answered, or a second one, then
 * changes nothing.
 */
import type { Client } from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres, inTransaction } from '../../src/catalog/postgres-session.ts';
import { installUnderstudySchema } from '../../src/catalog/understudy-schema.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  type FollowerPosition,
  movePosition,
  readDetached,
  readPosition,
  saveDetached,
  writePosition,
} from '../../src/follower/state/follower-state.ts';
import { formatVersion } from '../../src/topic/records/layout.ts';
import { at } from '../support/builders.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

let stack: Stack;
let first: Client;
let second: Client;

function placed(upto: number): FollowerPosition {
  const checkpoint = { at: at(2, upto), nextOffsets: [BigInt(upto), 7n] };
  return {
    streamId: 's1',
    at: at(2, upto),
    commitTimeMicros: 5n,
    checkpoint,
    appendMs: [1, 2],
    unfinished: ['public.a,"b'],
  };
}

async function write(client: Client, row: string, from: number, to: number): Promise<void> {
  await inTransaction(client, async () => {
    await client.query('INSERT INTO public.t VALUES ($1)', [row]);
    await movePosition(client, placed(from), placed(to));
  });
}

async function refusal(work: Promise<void>): Promise<UnderstudyError> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  assert.instance(error, UnderstudyError);
  return error as UnderstudyError;
}

async function rows(): Promise<string[]> {
  const { rows: found } = await first.query<{ id: string }>('SELECT id FROM public.t ORDER BY id');
  return found.map(({ id }) => id);
}

test.before(async () => {
  stack = await useStack({ postgres: 1 });
  const url = (await stack.createDatabases('position'))[0] ?? '';
  first = await connectPostgres(url, { applicationName: 'understudy test', replica: true });
  second = await connectPostgres(url, { applicationName: 'understudy test', replica: true });
  const node = { cluster: 'shop', name: 'b', streamId: 's1', epoch: 2, startNumber: 1n } as const;
  await installUnderstudySchema(first, { ...node, role: 'follower' });
  await first.query('CREATE TABLE public.t (id text PRIMARY KEY)');
});

test.after(async () => {
  await first?.end();
  await second?.end();
  await stack?.close();
});

test.before.each(async () => {
  await first.query('TRUNCATE public.t; TRUNCATE understudy.position');
  await writePosition(first, placed(10), formatVersion);
});

test('a position is read as it was written, offsets and times of every partition', async () => {
  assert.equal(await readPosition(first), placed(10));
  await write(first, 'a', 10, 20);
  assert.equal(await readPosition(first), placed(20));
});

test('an applier with an old position changes neither rows nor position', async () => {
  await write(first, 'a', 10, 20);
  const error = await refusal(write(second, 'b', 10, 30));
  assert.match(error.message, /no longer at 2:0\/A/);
  assert.equal(await rows(), ['a']);
  assert.equal(await readPosition(first), placed(20));
});

test('of two appliers at once one wins, and the rows are its own', async () => {
  const moves = [write(first, 'a', 10, 20), write(second, 'b', 10, 30)];
  const ended = await Promise.allSettled(moves);
  assert.equal(ended.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  const [winner, upto] = ended[0]?.status === 'fulfilled' ? ['a', 20] : ['b', 30];
  assert.equal(await rows(), [winner]);
  assert.equal(await readPosition(first), placed(Number(upto)));
});

test('a detached position is not moved, and one that moved is not detached', async () => {
  await first.query('BEGIN');
  await saveDetached(first, at(2, 10));
  const late = refusal(write(second, 'b', 10, 20));
  const waiting = `SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'`;
  const waits = async () => (await first.query(waiting)).rowCount;
  await until('the second session waits', waits, { pollMs: 10, reached: (n) => n === 1 });
  await first.query('COMMIT');
  assert.match((await late).message, /no longer at 2:0\/A/);
  assert.equal(await rows(), []);
  assert.equal(await readDetached(first), at(2, 10));
  await first.query('UPDATE understudy.position SET detached = false');
  await write(second, 'b', 10, 20);
  await refusal(saveDetached(first, at(2, 10)));
  assert.is(await readDetached(first), null);
});

test.run();
