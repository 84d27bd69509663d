/**
 * `understudy check` against real servers, one thing wrong at a time: one cause, one remedy, the
 * right exit code, no secret, and a database that is unchanged afterwards.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createTopic, deleteTopic } from '../../src/topic/kafka/admin.ts';
import { connectKafka, type KafkaClient } from '../../src/topic/kafka/client.ts';
import { changesTopicSettings, controlTopicSettings } from '../../src/topic/records/layout.ts';
import {
  checked,
  kafkaWith,
  soundFleet as newFleet,
  nodesAt,
  only,
  query,
} from '../support/checked.ts';
import type { Fleet } from '../support/fleet.ts';
import { unusedAddress } from '../support/fleet-options.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';

interface Context {
  stack: Stack;
  kafka: KafkaClient;
  /** Topics to delete at the end. */
  topics: string[];
}

const check = suite<Context>('check');
const fleets: Fleet[] = [];

check.before(async (context) => {
  context.stack = await useStack({ postgres: 2 });
  context.kafka = connectKafka({ brokers: context.stack.brokers, clientId: 'test' }, testLog);
  context.topics = [];
});

check.after(async ({ stack, kafka, topics }) => {
  await Promise.all(topics.map((topic) => deleteTopic(kafka, topic)));
  for (const fleet of fleets) await fleet.abandon();
  await stack.close();
});

/** All that `check` could leave behind in a database, and on its server. */
const traces = `
  SELECT (SELECT json_agg(nspname ORDER BY 1) FROM pg_namespace) AS schemas,
         (SELECT json_agg(relname ORDER BY 1) FROM pg_class WHERE relkind <> 't') AS relations,
         (SELECT json_agg(tgname ORDER BY 1) FROM pg_trigger) AS triggers,
         (SELECT json_agg(evtname) FROM pg_event_trigger) AS event_triggers,
         (SELECT json_agg(pubname) FROM pg_publication) AS publications,
         (SELECT json_agg(setconfig) FROM pg_db_role_setting) AS settings`;

const soundFleet = (stack: Stack): Promise<Fleet> => newFleet(stack, fleets);

check('a sound fleet has no finding, exits 0, and is left as it was', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const before = await query(fleet.url('a'), traces);
  const { exit, findings } = await checked(fleet);
  assert.equal(findings, []);
  assert.is(exit, 0);
  assert.equal(await query(fleet.url('a'), traces), before);
  const people = await fleet.text('check');
  assert.is(people.stdout, 'ready: no errors, no warnings');
  assert.is(people.code, 0);
});

check('a Postgres that is down is one finding, of its node', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const down = `postgres://u:p@${unusedAddress}/x`;
  const answer = await checked(fleet, nodesAt(fleet.url('a'), down));
  assert.is(answer.exit, 2);
  assert.is(only(answer).code, 'POSTGRES_UNREACHABLE');
  assert.match(only(answer).message, /^node b: cannot connect to 127.0.0.1:9\/x as u: .*REFUSED/);
  assert.match(only(answer).hint, /^Start Postgres at 127.0.0.1:9, or correct the URL/);
});

check('brokers that are down are one finding', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const answer = await checked(fleet, kafkaWith(fleet, { brokers: [unusedAddress] }));
  assert.is(answer.exit, 2);
  assert.is(only(answer).code, 'KAFKA_UNREACHABLE');
  assert.match(only(answer).message, unusedAddress);
  assert.match(only(answer).hint, /kafka.brokers/);
});

check('a registry that is down is one finding', async ({ stack }) => {
  const registry = { url: `http://${unusedAddress}/apis/ccompat/v7` };
  const answer = await checked(await soundFleet(stack), { registry });
  assert.is(answer.exit, 2);
  assert.is(only(answer).code, 'REGISTRY_UNREACHABLE');
  assert.match(only(answer).hint, /registry.url/);
});

check(
  'all down at once: each is one finding, and nothing that follows from it',
  async ({ stack }) => {
    const fleet = await soundFleet(stack);
    const { exit, findings } = await checked(fleet, {
      ...nodesAt(`postgres://u:p@${unusedAddress}/x`),
      ...kafkaWith(fleet, { brokers: [unusedAddress] }),
      registry: { url: `http://${unusedAddress}/apis` },
    });
    assert.is(exit, 2);
    assert.equal(findings.map(({ code }) => code).sort(), [
      'KAFKA_UNREACHABLE',
      'POSTGRES_UNREACHABLE',
      'REGISTRY_UNREACHABLE',
    ]);
  },
);

check(
  'a type that is defined otherwise on a follower is named with a table that has it',
  async ({ stack }) => {
    const fleet = await soundFleet(stack);
    const make = (pair: string, labels: string): string =>
      `CREATE TYPE mood AS ENUM (${labels}); CREATE TYPE pair AS (${pair});
       CREATE DOMAIN pairs AS pair[]; CREATE TYPE many AS RANGE (subtype = text);
       CREATE TABLE typed (id int PRIMARY KEY, m mood, p pairs, r many)`;
    await query(fleet.url('a'), make('x int, y int', `'sad', 'ok'`));
    await query(fleet.url('b'), make('y int, x int', `'ok'`));
    const { exit, findings } = await checked(fleet);
    assert.is(exit, 4);
    const messages = findings.map(({ message }) => message).join('\n');
    assert.match(messages, /public\.mood, which public\.typed has, .* lacks the label "sad"/);
    assert.match(
      messages,
      /public\.pair, .*\(y integer, x integer\) instead of \(x integer, y int/,
    );
    assert.is(findings.filter(({ severity }) => severity === 'error').length, 2);
  },
);

check('rows of a follower are a finding before init refuses them', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  await query(fleet.url('b'), 'INSERT INTO orders VALUES (1)');
  const answer = await checked(fleet);
  assert.is(answer.exit, 4);
  assert.is(only(answer).code, 'TABLE_NOT_EMPTY');
  assert.match(only(answer).message, /node b, which is to follow, hold rows: public.orders/);
});

check('two nodes that are one database are refused', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const answer = await checked(fleet, nodesAt(fleet.url('a'), fleet.url('a')));
  assert.is(answer.exit, 4);
  assert.match(only(answer).message, 'the nodes a and b are the same database');
});

check('two databases of one server are a warning', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const other = await soundFleet(stack);
  const answer = await checked(fleet, nodesAt(fleet.url('a'), other.url('a')));
  assert.is(answer.exit, 0);
  assert.is(only(answer).code, 'SHARED_SERVER');
});

check('topics that exist have to fit', async ({ stack, kafka, topics }) => {
  const fleet = await soundFleet(stack);
  const changes = changesTopicSettings(1, {});
  for (const { topic, partitions, settings } of [
    { topic: `${fleet.cluster}.changes`, partitions: 2, settings: changes },
    { topic: `${fleet.cluster}.control`, partitions: 1, settings: controlTopicSettings(1) },
  ]) {
    topics.push(topic);
    await createTopic(kafka, { topic, partitions, replication: 1, settings });
  }
  const wrong = await checked(fleet);
  assert.is(wrong.exit, 4);
  assert.is(only(wrong).message, `${fleet.cluster}.changes has 2 partitions, 1 were expected`);
  const fits = await checked(fleet, kafkaWith(fleet, { partitions: 2 }));
  assert.equal(fits.findings, []);
});

check('more replicas than brokers are refused', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const answer = await checked(fleet, kafkaWith(fleet, { replication: 100 }));
  assert.is(answer.exit, 4);
  assert.match(only(answer).message, /kafka.replication is 100 and there are \d+ brokers/);
});

check.run();
