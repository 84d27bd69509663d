/**
 * A new follower is built from a topic that the broker has really compacted, while the leader's
 * agent is stopped: rows, key changes, deletes, truncates and large values are the leader's, by SQL
 * and by verify. It can be killed at any time, is never promoted before it is exact, and leads
 * afterwards.
 */
// time-limit: 300s
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CleaningBroker } from '../support/cleaning-broker.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';

const tables = `
  CREATE TABLE item (id int PRIMARY KEY, body text);
  CREATE TABLE price (amount numeric PRIMARY KEY, note text UNIQUE);
  CREATE TABLE page (id int, lang text, small int, large text, PRIMARY KEY (id, lang));
  ALTER TABLE page ALTER COLUMN large SET STORAGE EXTERNAL;
  CREATE TABLE gone (id int PRIMARY KEY);
  CREATE TABLE never (id int PRIMARY KEY, at timestamptz);
  CREATE TABLE tick (id int PRIMARY KEY, n int)`;
const names = ['item', 'price', 'page', 'gone', 'never', 'tick'];
/** Nothing here is built that slowly. */
const retentionMs = 600_000;
const exactMaxMs = 60_000;

let broker: CleaningBroker;
let fleet: Fleet;

test.before(async () => {
  broker = await CleaningBroker.start();
});

test.after(() => broker.close());

test.after.each(() => fleet.close());

/** Nodes a and b are made by init; c comes later. */
async function begin(partitions: number, retention = retentionMs): Promise<void> {
  const { brokers } = broker;
  fleet = await startFleet({ nodes: 3, brokers, partitions, tables, init: false });
  const { nodes, ...rest } = fleet.config as { nodes: Record<string, object> };
  const topic = broker.topicSettings(retention);
  const kafka = { brokers, partitions, topic };
  await fleet.configure({ ...rest, nodes: { a: nodes['a'], b: nodes['b'] }, kafka });
  const { code, stdout } = await fleet.cli('init');
  assert.is(code, 0, stdout);
  await fleet.configure({ ...rest, nodes, kafka });
  await fleet.startAgent('a');
}

async function write(): Promise<void> {
  await fleet.sql('a', `INSERT INTO item SELECT i, 'first' FROM generate_series(1, 500) AS i`);
  await fleet.sql('a', `INSERT INTO gone SELECT i FROM generate_series(1, 50) AS i`);
  await fleet.sql('a', `INSERT INTO price VALUES (1.0, 'one'), (2.0, 'two'), (3, 'three')`);
  const large = `(SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 200) AS j)`;
  await fleet.sql(
    'a',
    `INSERT INTO page SELECT i, 'en', 0, ${large} FROM generate_series(1, 20) i`,
  );
  await fleet.sql('a', `UPDATE page SET small = id`);
  for (const body of ['second', 'third', 'last']) {
    await fleet.sql('a', `UPDATE item SET body = '${body}' || id`);
  }
  await fleet.sql('a', `DELETE FROM item WHERE id % 7 = 0`);
  await fleet.sql('a', `UPDATE price SET amount = 1.00 WHERE amount = 1`);
  await fleet.sql('a', `UPDATE price SET amount = 2.000 WHERE amount = 2`);
  await fleet.sql('a', `DELETE FROM price WHERE amount = 2`);
  await fleet.sql(
    'a',
    `BEGIN; DELETE FROM price WHERE amount = 3;
                        UPDATE price SET note = 'three'; COMMIT`,
  );
  await fleet.sql('a', `UPDATE page SET id = id + 100, small = 9 WHERE id < 5`);
  await fleet.sql('a', `TRUNCATE gone; INSERT INTO gone VALUES (7), (8)`);
}

let ticks = 0;
async function tick(): Promise<void> {
  ticks += 1;
  await fleet.sql(
    'a',
    `INSERT INTO tick VALUES (1, ${ticks}) ON CONFLICT (id) DO UPDATE SET n = excluded.n`,
  );
}

/** Of more than 2,000 records no more is left than what the newest rows need. */
async function cleaned(partitions: number): Promise<void> {
  await broker.cleans(fleet, partitions, tick, (records) => {
    const rows = records.filter(({ key }) => key.includes('public.item'));
    return rows.length > 0 && rows.length <= 520;
  });
}

async function statusOf(node: string) {
  const { json } = await fleet.cli('status');
  return json.nodes.find(({ name }: { name: string }) => name === node);
}

async function exact(node: 'b' | 'c'): Promise<void> {
  for (const deadlineMs = Date.now() + exactMaxMs; ; ) {
    const status = await statusOf(node);
    if (status.exact === true) return;
    const late = Date.now() > deadlineMs || fleet.agent(node).ended;
    assert.not(late, `${JSON.stringify(status)}\n${fleet.logs()}`);
  }
}

async function sameEverywhere(node: 'b' | 'c'): Promise<void> {
  for (const name of names) {
    await fleet.assertSame(`(SELECT * FROM ${name})`, 'a', [node]);
  }
  const [price] = await fleet.sql(node, 'SELECT amount::text, note FROM price');
  assert.equal(price, { amount: '1.00', note: 'three' });
}

for (const partitions of [1, 4]) {
  test(`built from ${partitions} compacted partitions with the leader stopped`, async () => {
    await begin(partitions);
    await write();
    await cleaned(partitions);
    assert.is(await fleet.agent('a').stop(), 0);
    const agent = fleet.spawnAgent('c');
    await agent.says(/"message":"(following|leading)"/);
    await exact('c');
    await sameEverywhere('c');
    const status = await statusOf('c');
    assert.is(status.promotable, true, JSON.stringify(status));
    await fleet.startAgent('a');
    await tick();
    await fleet.caughtUp('a', ['c']);
    const verified = await fleet.cli('verify', 'c');
    assert.is(verified.code, 0, JSON.stringify(verified.json));
    assert.is(verified.json.equal, true);
    await fleet.agent('a').kill();
    const led = await fleet.cli('failover', 'c', '--allow-data-loss', '--reason', 'test');
    assert.is(led.code, 0, `${led.stdout}\n${fleet.logs()}`);
    await fleet.sql('c', `INSERT INTO never VALUES (1, now())`);
    await fleet.sql('c', `UPDATE item SET body = 'by c' WHERE id < 10`);
    await fleet.startAgent('b');
    await fleet.caughtUp('c', ['b']);
    for (const name of names) await fleet.assertSame(`(SELECT * FROM ${name})`, 'c', ['b']);
  });
}

test.run();
