/**
 * `understudy check` against real servers, one thing wrong at a time: one cause, one remedy, the
 * right exit code, no secret, and a database that looks afterwards as it did before.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createTopic, deleteTopic } from '../../src/topic/kafka/admin.ts';
import { connectKafka, type KafkaClient } from '../../src/topic/kafka/client.ts';
import { changesTopicSettings, controlTopicSettings } from '../../src/topic/records/layout.ts';
import {
  checked,
  nobody,
  only,
  orders,
  query,
  soundFleet,
  understudy,
} from '../support/checked-fleet.ts';
import { ownServer, type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';

interface Context {
  stack: Stack;
  kafka: KafkaClient;
  directory: string;
  /** Topics to delete at the end. */
  made: string[];
}

const check = suite<Context>('check');

check.before(async (context) => {
  context.stack = await useStack({ postgres: 2 });
  context.kafka = connectKafka({ brokers: context.stack.brokers, clientId: 'test' }, testLog);
  context.directory = await mkdtemp(join(tmpdir(), 'understudy-check-'));
  context.made = [];
});

check.after(async ({ stack, kafka, directory, made }) => {
  await Promise.all(made.map((topic) => deleteTopic(kafka, topic)));
  await stack.close();
  await rm(directory, { recursive: true });
});

/** All that `check` could leave behind in a database, and on its server. */
const traces = `
  SELECT (SELECT json_agg(nspname ORDER BY 1) FROM pg_namespace) AS schemas,
         (SELECT json_agg(relname ORDER BY 1) FROM pg_class WHERE relkind <> 't') AS relations,
         (SELECT json_agg(tgname ORDER BY 1) FROM pg_trigger) AS triggers,
         (SELECT json_agg(evtname) FROM pg_event_trigger) AS event_triggers,
         (SELECT json_agg(pubname) FROM pg_publication) AS publications,
         (SELECT json_agg(setconfig) FROM pg_db_role_setting) AS settings`;

check(
  'a sound fleet has no finding, exits 0, and is left as it was',
  async ({ stack, directory }) => {
    const fleet = await soundFleet(stack);
    const [url = ''] = fleet.urls;
    const before = await query(url, traces);
    const { exit, findings } = await checked(directory, fleet);
    assert.equal(findings, []);
    assert.is(exit, 0);
    assert.equal(await query(url, traces), before);
    const people = await understudy(directory, fleet, ['check']);
    assert.is(people.stdout, 'no errors, no warnings');
    assert.is(people.code, 0);
  },
);

check('a Postgres that nobody serves is said once, for its node', async ({ stack, directory }) => {
  const fleet = await soundFleet(stack);
  const [url = ''] = fleet.urls;
  const answer = await checked(directory, { ...fleet, urls: [url, `postgres://u:p@${nobody}/x`] });
  assert.is(answer.exit, 2);
  assert.is(only(answer).code, 'POSTGRES_UNREACHABLE');
  assert.match(only(answer).message, /^node b: cannot connect to 127.0.0.1:9\/x as u: .*REFUSED/);
  assert.match(only(answer).hint, /^Start Postgres at 127.0.0.1:9, or correct the URL/);
});

check('a wrong password is said without the password', async ({ stack, directory }) => {
  const fleet = await soundFleet(stack);
  const [a = '', b = ''] = fleet.urls;
  const wrong = new URL(b);
  wrong.password = 'wr0ngs3cret';
  const answer = await checked(directory, { ...fleet, urls: [a, wrong.href] });
  assert.is(answer.exit, 2);
  assert.match(only(answer).message, /password authentication failed/);
  assert.match(only(answer).hint, /^Correct the password in the URL/);
  assert.not.match(answer.output, 'wr0ngs3cret');
});

check('brokers that nobody serves are said once', async ({ stack, directory }) => {
  const answer = await checked(directory, { ...(await soundFleet(stack)), brokers: [nobody] });
  assert.is(answer.exit, 2);
  assert.is(only(answer).code, 'KAFKA_UNREACHABLE');
  assert.match(only(answer).message, nobody);
  assert.match(only(answer).hint, /kafka.brokers/);
});

check('a registry that nobody serves is said once', async ({ stack, directory }) => {
  const registryUrl = `http://${nobody}/apis/ccompat/v7`;
  const answer = await checked(directory, { ...(await soundFleet(stack)), registryUrl });
  assert.is(answer.exit, 2);
  assert.is(only(answer).code, 'REGISTRY_UNREACHABLE');
  assert.match(only(answer).hint, /registry.url/);
});

check(
  'all away at once: each is said once, and nothing that follows from it',
  async ({ directory }) => {
    const registryUrl = `http://${nobody}/apis`;
    const urls = [`postgres://u:p@${nobody}/x`];
    const fleet = { cluster: 'away', urls, brokers: [nobody], registryUrl };
    const { exit, findings } = await checked(directory, fleet);
    assert.is(exit, 2);
    assert.equal(findings.map(({ code }) => code).sort(), [
      'KAFKA_UNREACHABLE',
      'POSTGRES_UNREACHABLE',
      'REGISTRY_UNREACHABLE',
    ]);
  },
);

check(
  'a server with wal_level = replica is named with its ALTER SYSTEM',
  async ({ stack, directory }) => {
    const { server, close } = await ownServer();
    try {
      await query(server.url(), orders);
      await server.configure({ wal_level: 'replica' });
      await server.stop();
      await server.start();
      const fleet = await soundFleet(stack);
      const [url = ''] = fleet.urls;
      const answer = await checked(directory, { ...fleet, urls: [url, server.url()] });
      assert.is(answer.exit, 4);
      assert.match(only(answer).message, /^wal_level of node b is replica/);
      assert.match(only(answer).hint, /^ALTER SYSTEM SET wal_level = logical; then restart/);
    } finally {
      await close();
    }
  },
);

check(
  'a role without rights is told each right, and the SQL that gives it',
  async ({ stack, directory }) => {
    const fleet = await soundFleet(stack);
    const [a = '', b = ''] = fleet.urls;
    const role = stack.uniqueName('role');
    const owner = stack.uniqueName('owner');
    const url = new URL(b);
    [url.username, url.password] = [role, 'pw'];
    const database = url.pathname.slice(1);
    const answerNow = () => checked(directory, { ...fleet, urls: [a, url.href] });
    await query(b, `CREATE ROLE ${role} LOGIN PASSWORD 'pw'`, `CREATE ROLE ${owner}`);
    await query(b, `ALTER TABLE orders OWNER TO ${owner}`);
    try {
      const { exit, findings } = await answerNow();
      assert.is(exit, 4);
      assert.equal(
        findings.map(({ hint }) => hint.replace('As a superuser: ', '')),
        [
          `ALTER ROLE "${role}" SUPERUSER; which also grants every other permission.`,
          `ALTER ROLE "${role}" REPLICATION;`,
          `GRANT SET ON PARAMETER session_replication_role TO "${role}";`,
          `GRANT CREATE ON DATABASE "${database}" TO "${role}";`,
          `ALTER DATABASE "${database}" OWNER TO "${role}";`,
          `GRANT pg_read_all_stats TO "${role}";`,
          `GRANT ${owner} TO "${role}"; or make it the owner of these tables.`,
        ],
      );
      // What the hints say is what helps.
      const sql = findings.slice(1).map(({ hint }) => /: (.*?;)/.exec(hint)?.[1] ?? '');
      await query(b, ...sql);
      assert.match(only(await answerNow()).hint, 'SUPERUSER');
      await query(b, `ALTER ROLE ${role} SUPERUSER`);
      assert.is((await answerNow()).exit, 0);
    } finally {
      await query(
        b,
        `REASSIGN OWNED BY ${role}, ${owner} TO CURRENT_USER`,
        `DROP OWNED BY ${role}, ${owner}`,
        `DROP ROLE ${role}, ${owner}`,
      );
    }
  },
);

check(
  'a table without identity is named with the SQL that gives it one',
  async ({ stack, directory }) => {
    const fleet = await soundFleet(stack);
    await Promise.all(fleet.urls.map((url) => query(url, 'CREATE TABLE log (line varchar(80))')));
    const answer = await checked(directory, fleet);
    assert.is(answer.exit, 4);
    assert.is(only(answer).object, 'public.log');
    const { hint } = only(answer);
    assert.match(hint, /^ALTER TABLE "public"."log" ADD COLUMN/);
    await Promise.all(fleet.urls.map((url) => query(url, hint)));
    assert.is((await checked(directory, fleet)).exit, 0);
  },
);

check(
  'a type that is defined otherwise on a follower is named with a table that has it',
  async ({ stack, directory }) => {
    const fleet = await soundFleet(stack);
    const make = (pair: string, labels: string): string =>
      `CREATE TYPE mood AS ENUM (${labels}); CREATE TYPE pair AS (${pair});
       CREATE DOMAIN pairs AS pair[]; CREATE TYPE many AS RANGE (subtype = text);
       CREATE TABLE typed (id int PRIMARY KEY, m mood, p pairs, r many)`;
    const [a = '', b = ''] = fleet.urls;
    await query(a, make('x int, y int', `'sad', 'ok'`));
    await query(b, make('y int, x int', `'ok'`));
    const { exit, findings } = await checked(directory, fleet);
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

check(
  'a table that a follower lacks, or has otherwise, is named with the node',
  async ({ stack, directory }) => {
    const fleet = await soundFleet(stack);
    const [, b = ''] = fleet.urls;
    await query(b, 'ALTER TABLE orders ALTER total TYPE float8');
    const differs = await checked(directory, fleet);
    assert.is(differs.exit, 4);
    assert.match(only(differs).message, /node b .*total is double precision instead of numeric/);
    await query(b, 'DROP TABLE orders');
    // Where it has none of them, init makes them, unless that is left to people.
    assert.is((await checked(directory, { ...fleet, ddl: 'manual' })).exit, 4);
    for (const url of fleet.urls) await query(url, 'CREATE TABLE kept (id int PRIMARY KEY)');
    const lacks = await checked(directory, fleet);
    assert.is(lacks.exit, 4);
    assert.is(only(lacks).message, 'node b lacks the table public.orders');
    assert.match(only(lacks).hint, /pg_dump --schema-only -t 'public.orders'/);
  },
);

check(
  'rows that are there before init are said before init refuses them',
  async ({ stack, directory }) => {
    const fleet = await soundFleet(stack);
    await query(fleet.urls[1] ?? '', 'INSERT INTO orders VALUES (1)');
    const answer = await checked(directory, fleet);
    assert.is(answer.exit, 4);
    assert.is(only(answer).code, 'TABLE_NOT_EMPTY');
    assert.match(only(answer).message, /node b, which is to follow, hold rows: public.orders/);
  },
);

check('two nodes that are one database are refused', async ({ stack, directory }) => {
  const fleet = await soundFleet(stack);
  const [a = ''] = fleet.urls;
  const answer = await checked(directory, { ...fleet, urls: [a, a] });
  assert.is(answer.exit, 4);
  assert.match(only(answer).message, 'the nodes a and b are the same database');
});

check('two databases of one server are a warning', async ({ stack, directory }) => {
  const fleet = await soundFleet(stack);
  const [a = ''] = fleet.urls;
  const { urls } = await soundFleet(stack);
  const answer = await checked(directory, { ...fleet, urls: [a, urls[0] ?? ''] });
  assert.is(answer.exit, 0);
  assert.is(only(answer).code, 'SHARED_SERVER');
});

check('what may go wrong later is warned of, and is no failure', async ({ stack, directory }) => {
  const fleet = await soundFleet(stack);
  const [, b = ''] = fleet.urls;
  const statements = [
    'CREATE TABLE notes (id int PRIMARY KEY, body text)',
    'CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY)',
  ];
  await Promise.all(fleet.urls.map((url) => query(url, ...statements)));
  await query(
    b,
    `CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'`,
    'CREATE TRIGGER stamp BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stamp()',
    'ALTER TABLE orders ENABLE ALWAYS TRIGGER stamp',
  );
  const { exit, findings } = await checked(directory, fleet);
  assert.is(exit, 0);
  assert.equal(
    findings.map(({ code, object }) => `${code} ${object}`),
    ['TABLE_UNLOGGED public.scratch', 'TRIGGER_HELD node b: public.orders'],
  );
});

check('topics that are there have to fit', async ({ stack, directory, kafka, made }) => {
  const fleet = await soundFleet(stack);
  const changes = changesTopicSettings(1, {});
  const topics = [
    { topic: `${fleet.cluster}.changes`, partitions: 2, settings: changes },
    { topic: `${fleet.cluster}.control`, partitions: 1, settings: controlTopicSettings(1) },
  ];
  for (const { topic, partitions, settings } of topics) {
    await createTopic(kafka, { topic, partitions, replication: 1, settings });
  }
  made.push(...topics.map(({ topic }) => topic));
  const wrong = await checked(directory, fleet);
  assert.is(wrong.exit, 4);
  assert.is(only(wrong).message, `${fleet.cluster}.changes has 2 partitions, 1 were expected`);
  const fits = await checked(directory, { ...fleet, kafka: { partitions: 2 } });
  assert.equal(fits.findings, []);
});

check('more replicas than brokers are refused', async ({ stack, directory }) => {
  const fleet = await soundFleet(stack);
  const answer = await checked(directory, { ...fleet, kafka: { replication: 100 } });
  assert.is(answer.exit, 4);
  assert.match(only(answer).message, /kafka.replication is 100 and there are \d+ brokers/);
});

check.run();
