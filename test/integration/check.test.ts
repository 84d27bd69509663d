/**
 * `understudy check` against real servers, one thing wrong at a time: one cause, one remedy, the
 * right exit code, no secret, and a database that is unchanged afterwards.
 */
import pg from 'pg';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import { createTopic, deleteTopic } from '../../src/topic/kafka/admin.ts';
import { connectKafka, type KafkaClient } from '../../src/topic/kafka/client.ts';
import { changesTopicSettings, controlTopicSettings } from '../../src/topic/records/layout.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { unusedAddress } from '../support/fleet-options.ts';
import { ownServer, type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';

interface Context {
  stack: Stack;
  kafka: KafkaClient;
  /** Topics to delete at the end. */
  topics: string[];
}

interface Checked {
  readonly exit: number | null;
  readonly findings: readonly Finding[];
  readonly output: string;
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

const orders = 'CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10,2), note varchar(20))';

/** Two databases that have the same table, and nothing wrong with them. */
async function soundFleet(stack: Stack): Promise<Fleet> {
  const fleet = await startFleet({ stack, tables: orders, init: false });
  fleets.push(fleet);
  return fleet;
}

/** `check` with parts of the configuration replaced. */
async function checked(fleet: Fleet, changes: Record<string, unknown> = {}): Promise<Checked> {
  const { config } = fleet;
  await fleet.configure({ ...config, ...changes });
  const { code, json, stdout, stderr } = await fleet.cli('check');
  await fleet.configure(config);
  assert.is(stderr, '', stderr);
  return { exit: code, findings: json.findings, output: stdout };
}

/** The configuration of nodes by their URLs: a, b. */
function nodesAt(...urls: readonly string[]): Record<string, unknown> {
  return { nodes: Object.fromEntries(urls.map((url, at) => ['ab'[at], { url }])) };
}

function kafkaWith(fleet: Fleet, changes: object): Record<string, unknown> {
  return { kafka: { ...(fleet.config['kafka'] as object), ...changes } };
}

/** The one error; warnings are left aside, unless there are no errors. */
function only({ findings }: Checked): Finding {
  const errors = findings.filter(({ severity }) => severity === 'error');
  const [finding, ...more] = errors.length === 0 ? findings : errors;
  assert.ok(finding, 'there is a finding');
  assert.equal(more, []);
  return finding;
}

async function query(url: string, ...statements: readonly string[]): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const answers: string[] = [];
    for (const statement of statements) {
      const { rows } = await client.query<Record<string, unknown>>(statement);
      answers.push(JSON.stringify(rows));
    }
    return answers;
  } finally {
    await client.end();
  }
}

async function onBoth(fleet: Fleet, ...statements: readonly string[]): Promise<void> {
  await Promise.all(fleet.nodes.map((node) => query(fleet.url(node), ...statements)));
}

/** All that `check` could leave behind in a database, and on its server. */
const traces = `
  SELECT (SELECT json_agg(nspname ORDER BY 1) FROM pg_namespace) AS schemas,
         (SELECT json_agg(relname ORDER BY 1) FROM pg_class WHERE relkind <> 't') AS relations,
         (SELECT json_agg(tgname ORDER BY 1) FROM pg_trigger) AS triggers,
         (SELECT json_agg(evtname) FROM pg_event_trigger) AS event_triggers,
         (SELECT json_agg(pubname) FROM pg_publication) AS publications,
         (SELECT json_agg(setconfig) FROM pg_db_role_setting) AS settings`;

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

check('a wrong password is a finding without the password', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const wrong = new URL(fleet.url('b'));
  wrong.password = 'wr0ngs3cret';
  const answer = await checked(fleet, nodesAt(fleet.url('a'), wrong.href));
  assert.is(answer.exit, 2);
  assert.match(only(answer).message, /password authentication failed/);
  assert.match(only(answer).hint, /^Correct the password in the URL/);
  assert.not.match(answer.output, 'wr0ngs3cret');
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

check('a server with wal_level = replica is named with its ALTER SYSTEM', async ({ stack }) => {
  const { server, close } = await ownServer();
  try {
    await query(server.url(), orders);
    await server.configure({ wal_level: 'replica' });
    await server.stop();
    await server.start();
    const fleet = await soundFleet(stack);
    const answer = await checked(fleet, nodesAt(fleet.url('a'), server.url()));
    assert.is(answer.exit, 4);
    assert.match(only(answer).message, /^wal_level of node b is replica/);
    assert.match(only(answer).hint, /^ALTER SYSTEM SET wal_level = logical; then restart/);
  } finally {
    await close();
  }
});

check(
  'a role without rights gets a finding for each right, with the SQL that grants it',
  async ({ stack }) => {
    const fleet = await soundFleet(stack);
    const b = fleet.url('b');
    const role = stack.uniqueName('role');
    const owner = stack.uniqueName('owner');
    const url = new URL(b);
    [url.username, url.password] = [role, 'pw'];
    const database = url.pathname.slice(1);
    const answerNow = () => checked(fleet, nodesAt(fleet.url('a'), url.href));
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
      // The hints are the remedy.
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

check('a table without identity is named with the SQL that gives it one', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  await onBoth(fleet, 'CREATE TABLE log (line varchar(80))');
  const answer = await checked(fleet);
  assert.is(answer.exit, 4);
  assert.is(only(answer).object, 'public.log');
  const { hint, sql } = only(answer);
  assert.match(hint, /^ALTER TABLE "public"."log" ADD COLUMN/);
  assert.equal(
    sql.map(({ node, caution }) => [node, caution]),
    [
      ['a', null],
      ['b', null],
    ],
  );
  for (const { node, statement } of sql) await query(fleet.url(node as 'a'), statement);
  assert.is((await checked(fleet)).exit, 0);
});

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

check(
  'a table that a follower lacks, or has otherwise, is named with the node',
  async ({ stack }) => {
    const fleet = await soundFleet(stack);
    const b = fleet.url('b');
    await query(b, 'ALTER TABLE orders ALTER total TYPE float8');
    const differs = await checked(fleet);
    assert.is(differs.exit, 4);
    assert.match(only(differs).message, /node b .*total is double precision instead of numeric/);
    await query(b, 'DROP TABLE orders');
    // Where it has none of them, init creates them, unless ddl is manual.
    assert.is((await checked(fleet, { ddl: 'manual' })).exit, 4);
    await onBoth(fleet, 'CREATE TABLE kept (id int PRIMARY KEY)');
    const lacks = await checked(fleet);
    assert.is(lacks.exit, 4);
    assert.is(only(lacks).message, 'node b lacks the table public.orders');
    assert.match(only(lacks).hint, /pg_dump --schema-only -t 'public.orders'/);
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

check('what may fail later is a warning, with exit code 0', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const b = fleet.url('b');
  const statements = [
    'CREATE TABLE notes (id int PRIMARY KEY, body text)',
    'CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY)',
  ];
  await onBoth(fleet, ...statements);
  await query(
    b,
    `CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'`,
    'CREATE TRIGGER stamp BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stamp()',
    'ALTER TABLE orders ENABLE ALWAYS TRIGGER stamp',
  );
  const { exit, findings } = await checked(fleet);
  assert.is(exit, 0);
  assert.equal(
    findings.map(({ code, object }) => `${code} ${object}`),
    ['TABLE_UNLOGGED public.scratch', 'TRIGGER_HELD node b: public.orders'],
  );
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
