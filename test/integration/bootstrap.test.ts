/**
 * A new follower is built from a topic that the broker has really compacted, while the leader's
 * agent is stopped: rows, key changes, deletes, truncates and large values are the leader's, by SQL
 * and by verify. It leads afterwards, and the next new follower is built from both reigns.
 */
// time-limit: 300s
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CleaningBroker } from '../support/cleaning-broker.ts';
import type { Fleet } from '../support/fleet.ts';
import { isFull } from '../support/fleet-under-load.ts';
import { GrowingFleet } from '../support/growing-fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TABLE item (id int PRIMARY KEY, body text);
  CREATE TABLE price (amount numeric PRIMARY KEY, note text UNIQUE);
  CREATE TABLE page (id int, lang text, small int, large text, PRIMARY KEY (id, lang));
  ALTER TABLE page ALTER COLUMN large SET STORAGE EXTERNAL;
  CREATE TABLE gone (id int PRIMARY KEY);
  CREATE TABLE never (id int PRIMARY KEY, at timestamptz)`;
const names = ['item', 'price', 'page', 'gone', 'never', 'tick'];

let stack: Stack;
let broker: CleaningBroker;
let fleet: Fleet;

test.before(async () => {
  [stack, broker] = await Promise.all([useStack({ postgres: 3 }), CleaningBroker.start()]);
});

test.after(async () => {
  await broker.close();
  await stack.close();
});

test.after.each(() => fleet.close());

/** Some 2,500 records, of which 500 are the newest of their rows. */
async function write(): Promise<void> {
  const large = `(SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 200) AS j)`;
  const statements = [
    `INSERT INTO item SELECT i, 'first' FROM generate_series(1, 500) AS i`,
    'INSERT INTO gone SELECT i FROM generate_series(1, 50) AS i',
    `INSERT INTO price VALUES (1.0, 'one'), (2.0, 'two'), (3, 'three')`,
    `INSERT INTO page SELECT i, 'en', 0, ${large} FROM generate_series(1, 20) AS i`,
    'UPDATE page SET small = id',
    ...['second', 'third', 'last'].map((body) => `UPDATE item SET body = '${body}' || id`),
    'DELETE FROM item WHERE id % 7 = 0',
    'UPDATE price SET amount = 1.00 WHERE amount = 1',
    'UPDATE price SET amount = 2.000 WHERE amount = 2',
    'DELETE FROM price WHERE amount = 2',
    `BEGIN; DELETE FROM price WHERE amount = 3; UPDATE price SET note = 'three'; COMMIT`,
    'UPDATE page SET id = id + 100, small = 9 WHERE id < 5',
    'TRUNCATE gone; INSERT INTO gone VALUES (7), (8)',
  ];
  for (const statement of statements) await fleet.sql('a', statement);
}

for (const partitions of isFull ? [1, 4] : [4]) {
  test(`built from ${partitions} compacted partitions with the leader stopped`, async () => {
    const growing = await GrowingFleet.begin({ stack, broker, tables, partitions });
    fleet = growing.fleet;
    await write();
    await growing.cleaned('public.item', 520);
    assert.is(await fleet.agent('a').stop(), 0);
    await fleet.startAgent('c');
    await growing.exact('c');
    await growing.assertSame(names, 'a', 'c');
    const [price] = await fleet.sql('c', 'SELECT amount::text, note FROM price');
    assert.equal(price, { amount: '1.00', note: 'three' });
    assert.is((await growing.statusOf('c')).promotable, true);
    await fleet.startAgent('a');
    await growing.tick();
    await fleet.caughtUp('a', ['c']);
    const verified = await fleet.cli('verify', 'c');
    assert.is(verified.code, 0, JSON.stringify(verified.json));
    await fleet.agent('a').kill();
    const led = await fleet.cli('failover', 'c', '--allow-data-loss', '--reason', 'test');
    assert.is(led.code, 0, `${led.stdout}\n${fleet.logs()}`);
    await fleet.sql('c', `INSERT INTO never VALUES (1, now())`);
    await fleet.sql('c', `UPDATE item SET body = 'by c' WHERE id < 10`);
    await fleet.startAgent('b');
    await growing.exact('b');
    await fleet.caughtUp('c', ['b']);
    await growing.assertSame(names, 'c', 'b');
  });
}

test.run();
