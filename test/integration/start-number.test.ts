/**
 * The start number distinguishes a leader from a copy of its disk that was taken while its agent
 * ran: it is raised while the node leads, in the database and in the control log, and a copy has a
 * lower one. Tests run in order.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import { installUnderstudySchema, readNode } from '../../src/catalog/understudy-schema.ts';
import { type ControlLog, openControlLog } from '../../src/control/control-log.ts';
import { keepRaising } from '../../src/fleet/node/start-number.ts';
import type { Logger } from '../../src/logger.ts';
import { createPlainProducer } from '../../src/topic/kafka/plain-producer.ts';
import { controlTopicSettings } from '../../src/topic/records/layout.ts';
import { sleep } from '../../src/waiting.ts';
import { useStack } from '../support/stack.ts';
import { rejection, TopicStack } from '../support/topic-stack.ts';

const everyMs = 20;
const patienceMs = 60_000;
const nothing = (): void => undefined;
const log: Logger = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => log,
};
const database = { systemId: '1', oid: '2', name: 'shop', address: 'a:5432', startedAt: '3' };
let topics: TopicStack;
let client: Client;
let control: ControlLog;

test.before(async () => {
  topics = new TopicStack(await useStack({ postgres: 1 }));
  const [url = ''] = await topics.stack.createDatabases('number');
  client = await connectPostgres(url, { applicationName: 'understudy test' });
  const node = { cluster: 'shop', name: 'a', streamId: 'stream-1', role: 'leader' } as const;
  await installUnderstudySchema(client, { ...node, epoch: 1, startNumber: 0n });
  const topic = await topics.topic(1, controlTopicSettings(1));
  control = await openControlLog({
    reader: topics.reader(topic, 1),
    producer: createPlainProducer(topics.client, topic),
    node: 'a',
    log,
    randomId: randomUUID,
    random: Math.random,
    sleep,
  });
});

test.after(async () => {
  await control.close();
  await client.end();
  await topics.close();
});

async function inDatabase(): Promise<number> {
  return Number((await readNode(client))?.startNumber);
}

test('it rises in the database and in the control log while the node leads', async () => {
  const ending = new AbortController();
  const raising = keepRaising(client, control, database, log, ending.signal, everyMs);
  await control.waitFor(({ startNumbers }) => (startNumbers.get('a') ?? 0) >= 3, patienceMs);
  ending.abort();
  await raising;
  const ended = await inDatabase();
  assert.ok(ended >= 3);
  await delay(5 * everyMs);
  assert.is(await inDatabase(), ended);
  const { startNumbers } = await control.verify(patienceMs);
  assert.is(startNumbers.get('a'), ended);
});

test('a database that is behind the control log is refused as a copy, unchanged', async () => {
  await client.query('UPDATE understudy.node SET start_number = 1');
  const { signal } = new AbortController();
  const error = await rejection(keepRaising(client, control, database, log, signal, everyMs));
  assert.is(error.code, 'RESTORED_COPY');
  assert.is(await inDatabase(), 1);
});

test.run();
