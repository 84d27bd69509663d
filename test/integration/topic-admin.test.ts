/**
 * Topics, brokers and refusals as `init` and `check` meet them, and that an idle connection costs
 * nothing.
 */
import { createServer } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  brokerSetting,
  createTopic,
  deleteTopic,
  describeCluster,
  describeTopic,
} from '../../src/topic/kafka/admin.ts';
import { connectKafka, probeKafka } from '../../src/topic/kafka/client.ts';
import { rejection, type TopicStack, testLog, useTopics } from '../support/topic-stack.ts';

let topics: TopicStack;

test.before(async () => {
  topics = await useTopics();
});

test.after(async () => {
  await topics.close();
});

test('a topic is made once, described with all its settings, and removed', async () => {
  const { client } = topics;
  const topic = topics.stack.uniqueName('admin-');
  assert.is(await describeTopic(client, topic), null);
  const settings = { 'cleanup.policy': 'compact', 'max.message.bytes': '9000000' };
  const wanted = { topic, partitions: 3, replication: 1, settings };
  assert.is(await createTopic(client, wanted), true);
  assert.is(await createTopic(client, wanted), false);
  const described = await describeTopic(client, topic);
  assert.is(described?.partitions, 3);
  assert.is(described?.replication, 1);
  assert.is(described?.settings['cleanup.policy'], 'compact');
  assert.is(described?.settings['max.message.bytes'], '9000000');
  assert.ok(described?.settings['min.insync.replicas']);
  await deleteTopic(client, topic);
  await deleteTopic(client, topic);
  assert.is(await describeTopic(client, topic), null);
});

test('what the brokers cannot do is an error with the setting to change', async () => {
  const { client } = topics;
  const { brokers, clusterId } = await describeCluster(client);
  assert.ok(brokers >= 1 && clusterId.length > 0);
  const topic = topics.stack.uniqueName('admin-');
  const wanted = { topic, partitions: 1, replication: brokers + 1, settings: {} };
  const failure = (await rejection(createTopic(client, wanted))) as UnderstudyError;
  assert.is(failure.code, 'PREREQUISITE');
  assert.match(failure.hint, /kafka\.replication/);
  const odd = { topic, partitions: 1, replication: 1, settings: { 'cleanup.policy': 'sometimes' } };
  assert.is((await rejection(createTopic(client, odd))).code, 'CONFIG_INVALID');
});

test('a setting of the brokers is read, and an unknown one is null', async () => {
  assert.is(await brokerSetting(topics.client, 'transaction.max.timeout.ms'), '900000');
  assert.is(await brokerSetting(topics.client, 'no.such.setting'), null);
});

test('brokers that are down, or do not answer, are named with a hint', async () => {
  await probeKafka(topics.client, 5_000);
  const sasl = { mechanism: 'plain', username: 'u', password: 'secret' } as const;
  const away = connectKafka({ brokers: ['127.0.0.1:1'], clientId: 'test', sasl }, testLog);
  const refused = (await rejection(probeKafka(away, 5_000))) as UnderstudyError;
  assert.is(refused.code, 'KAFKA_UNREACHABLE');
  assert.match(refused.message, /127\.0\.0\.1:1 .*ECONNREFUSED/);
  assert.match(refused.hint, /kafka\.brokers/);
  assert.not.match(JSON.stringify(refused) + String(refused.cause), /secret/);
  const silent = createServer((socket) => socket.resume());
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const { port } = silent.address() as { port: number };
  const mute = connectKafka({ brokers: [`127.0.0.1:${port}`], clientId: 'test' }, testLog);
  const startedMs = Date.now();
  assert.match((await rejection(probeKafka(mute, 300))).message, /does not answer within 300 ms/);
  assert.ok(Date.now() - startedMs < 2_000);
  await new Promise((resolve) => silent.close(resolve));
});

test('idle connections set no timers of their own', async () => {
  const topic = await topics.topic(1);
  const reader = topics.reader(topic, 1);
  await reader.watermarks();
  const before = process.cpuUsage();
  let armed = 0;
  const { setTimeout: original } = globalThis;
  globalThis.setTimeout = ((...args: Parameters<typeof original>) => {
    armed += 1;
    return original(...args);
  }) as typeof original;
  await new Promise((resolve) => original(resolve, 500));
  globalThis.setTimeout = original;
  assert.ok(armed < 5, `${armed} timers in half a second`);
  assert.ok(process.cpuUsage(before).user < 250_000);
});

test.run();
