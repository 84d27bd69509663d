/**
 * A follower without tables gets the leader's schema at init; the topic holds it for later nodes,
 * and readers of rows skip its record. What a server lacks is named, and leaves nothing behind.
 * Tests run in order, on one fleet.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createCommittedReader } from '../../src/topic/kafka/committed-reader.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { changesTopic } from '../../src/topic/records/layout.ts';
import { readSchemaRecord, type SchemaRecord } from '../../src/topic/records/schema-record.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const stack = await useStack({ postgres: 2 });
const check = await testWithDump(stack);
let fleet: Fleet;
const role = `only_on_a_${process.pid}`;

test.before(async () => {
  fleet = await startFleet({
    stack,
    init: false,
    partitions: 2,
    tablesOn: {
      a: `CREATE ROLE ${role};
        CREATE TYPE mood AS ENUM ('fine', 'so; so');
        CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, v text);
        CREATE TABLE child (a int NOT NULL, b text NOT NULL, parent int REFERENCES parent,
          twice int GENERATED ALWAYS AS (a * 2) STORED);
        CREATE UNIQUE INDEX child_key ON child (b, a);
        ALTER TABLE child REPLICA IDENTITY USING INDEX child_key;
        CREATE INDEX child_parent ON child (parent) WHERE a > 0;
        CREATE TABLE event (at date, id int, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
        CREATE TABLE event_old PARTITION OF event FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
        CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql
          AS 'BEGIN NEW.v := upper(NEW.v); RETURN NEW; END';
        CREATE TRIGGER loud BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION shout();
        ALTER TABLE parent ENABLE ALWAYS TRIGGER loud;
        CREATE VIEW shown AS SELECT p.id, c.b FROM parent p LEFT JOIN child c ON c.parent = p.id;
        GRANT SELECT ON parent TO ${role}`,
    },
  });
});

test.after(async () => {
  await fleet.tamper('a', `DROP OWNED BY ${role}; DROP ROLE ${role}`);
  await fleet.close();
  await stack.close();
});

async function schemaRecord(): Promise<SchemaRecord | null> {
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  const topic = changesTopic(fleet.cluster);
  const reader = createCommittedReader(client, { topic, partitions: 2 });
  try {
    const [fetched] = await reader.fetch(new Map([[0, 0n]]), { maxWaitMs: 1_000 });
    const decoder = new RecordDecoder({ schemaById: async () => ({}) });
    return readSchemaRecord(decoder.schemaParts(fetched?.records ?? []));
  } finally {
    await reader.close();
  }
}

/** What the public schema is made of, as each server prints it. */
const objectsQuery = `
  SELECT c.relkind::text || ' ' || c.relname AS what FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace
  UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
  UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
    WHERE NOT tgisinternal AND tgname NOT LIKE 'understudy%'
  UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
  ORDER BY 1`;

check('a follower with some of the tables is refused, and nothing is created', async () => {
  await fleet.sql('b', 'CREATE TABLE parent (id int PRIMARY KEY)');
  const { code, json } = await fleet.cli('init');
  assert.is(code, 4, JSON.stringify(json));
  assert.is(json.error.code, 'SCHEMA_DIFFERS');
  await fleet.sql('b', 'DROP TABLE parent');
});

check('an object in the way is named, and all that was created is removed again', async () => {
  await fleet.sql('b', `CREATE TYPE mood AS ENUM ('other')`);
  const { code, json } = await fleet.cli('init');
  assert.is(code, 4, JSON.stringify(json));
  assert.is(json.error.code, 'SCHEMA_BUILD_FAILED');
  assert.match(json.error.message, /node b refuses CREATE TYPE public\.mood AS ENUM: .*exists/);
  await fleet.sql('b', 'DROP TYPE mood');
  assert.equal(await fleet.sql('b', objectsQuery), []);
});

check('a pg_dump that is missing, or fails, is refused with its remedy', async () => {
  const { config } = fleet;
  await fleet.configure({ ...config, pgDump: '/no/such/pg_dump' });
  for (const verb of ['check', 'init']) {
    const { code, json } = await fleet.cli(verb);
    assert.is(code, 4, JSON.stringify(json));
    assert.match(JSON.stringify(json), /SCHEMA_DUMP_FAILED.*\/no\/such\/pg_dump.*ddl: manual/);
  }
  await fleet.configure(config);
});

test('with ddl: manual a follower without tables is refused', async () => {
  const { config } = fleet;
  await fleet.configure({ ...config, ddl: 'manual', pgDump: '/no/such/pg_dump' });
  const { code, json } = await fleet.cli('init');
  assert.is(code, 4, JSON.stringify(json));
  assert.is(json.error.code, 'SCHEMA_DIFFERS');
  await fleet.configure(config);
});

check('an init that fails later leaves the tables, which the next one accepts', async () => {
  const { code, json } = await fleet.cliDyingAt('own.before-epoch-begin=error', 'init');
  assert.is(code, 5, JSON.stringify(json));
  assert.equal(await fleet.sql('b', objectsQuery), await fleet.sql('a', objectsQuery));
  const again = await fleet.cli('check');
  assert.is(again.code, 0, JSON.stringify(again.json));
  await fleet.sql('b', 'DROP SCHEMA public CASCADE; CREATE SCHEMA public');
});

/** The number of b's pending statements. */
async function leftOnB(): Promise<number> {
  const rows = await fleet.sql<{ n: number }>(
    'b',
    'SELECT count(*)::int AS n FROM understudy.schema_build WHERE NOT done',
  );
  return rows[0]?.n ?? -1;
}

check('a follower without tables gets them; the rest once its rows are exact', async () => {
  await fleet.sql('a', `INSERT INTO parent (m, v) VALUES ('fine', 'before init')`);
  const { code, json, stderr } = await fleet.cli('init');
  assert.is(code, 0, stderr);
  assert.equal(json.built, ['b']);
  assert.equal(json.unfinished, ['public.parent']);
  assert.match(stderr, new RegExp(`roles.*${role}|${role}.*roles`));
  const [first] = await fleet.sql<{ n: number }>('b', 'SELECT count(*)::int AS n FROM child');
  assert.equal(first, { n: 0 });
  assert.ok((await leftOnB()) > 2, 'indexes wait for the rows');
  await fleet.startAgent('b');
  await fleet.agent('b').logged(/"message":"building the schema"/);
  const { json: status } = await fleet.cli('status');
  const why = JSON.stringify(status.nodes[1].why);
  assert.match(why, /post-data is being built: 0 of \d/, 'no row has arrived yet');
  await fleet.startAgent('a');
  await fleet.until('no statement is pending on b', leftOnB, { reached: (left) => left === 0 });
  assert.equal(await fleet.sql('b', objectsQuery), await fleet.sql('a', objectsQuery));
  await fleet.sql(
    'a',
    `INSERT INTO parent (m, v) VALUES ('so; so', 'quiet');
     INSERT INTO child VALUES (1, 'x', 1); INSERT INTO event VALUES ('2001-01-01', 1);
     UPDATE child SET b = 'y'; UPDATE parent SET v = 'as it is'`,
  );
  await fleet.caughtUp();
  await fleet.assertAllSame(['parent', 'child', 'event', 'shown']);
});

check('the topic holds the schema and the ids of the stream’s tables', async () => {
  const record = await schemaRecord();
  assert.ok(record !== null);
  assert.is(record.at.epoch, 1);
  const names = record.schema.relations.map(({ id }) => id).sort();
  assert.equal(names, ['public.child', 'public.event', 'public.event_old', 'public.parent']);
  assert.not(JSON.stringify(record.schema).includes('understudy'));
});

check('a restart and a failover skip the record at the end of the log', async () => {
  assert.is(await fleet.agent('a').stop(), 0);
  await fleet.startAgent('a');
  await fleet.sql('a', `INSERT INTO parent (v) VALUES ('again')`);
  await fleet.caughtUp();
  assert.is(await fleet.agent('a').stop(), 0);
  const { code, json } = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'test');
  assert.is(code, 0, JSON.stringify(json));
  await fleet.sql('b', `INSERT INTO parent (v) VALUES ('and triggers fire')`);
  const [row] = await fleet.sql('b', `SELECT v FROM parent WHERE v ILIKE 'and%'`);
  assert.equal(row, { v: 'AND TRIGGERS FIRE' });
});

test.run();
