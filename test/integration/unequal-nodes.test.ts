/**
 * Nodes whose schemas look alike and mean different things: what would merge rows, swap values or
 * lose rows on a follower without an error is named by check and refused by init, or stops the
 * follower. Rules that fire in the applier are disabled, as triggers are, and are back after a
 * failover.
 */
// runs: ci, since test/unit/preflight-copies.test.ts has the decisions
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import type { FleetOptions } from '../support/fleet-options.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
const fleets: Fleet[] = [];

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after(async () => {
  for (const fleet of fleets) await fleet.close();
  await stack.close();
});

async function newFleet(options: FleetOptions): Promise<Fleet> {
  await fleets.pop()?.close();
  const fleet = await startFleet({ stack, partitions: 2, ...options });
  fleets.push(fleet);
  return fleet;
}

const folded = `CREATE COLLATION folded
  (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`;

const ofShapes = 'CREATE TABLE item (id int PRIMARY KEY, s shape)';

for (const [what, leader, follower, message] of [
  [
    'takes other keys for equal',
    `${folded}; CREATE TABLE item (id int, k text, PRIMARY KEY (k, id))`,
    `${folded}; CREATE TABLE item (id int, k text COLLATE folded, PRIMARY KEY (k, id))`,
    /the identity of public.item compares its columns by .*und-u-ks-level2/,
  ],
  [
    'has a row type with its columns in another order',
    `CREATE TABLE shape (id int PRIMARY KEY, a text); ${ofShapes}`,
    `CREATE TABLE shape (a text, id int PRIMARY KEY); ${ofShapes}`,
    /the type public.shape, which public.item has, is another one on .*: it is \(a text/,
  ],
] as const) {
  test(`a follower that ${what} is refused`, async () => {
    const fleet = await newFleet({ tablesOn: { a: leader, b: follower }, init: false });
    for (const verb of ['check', 'init']) {
      const { code, json } = await fleet.cli(verb);
      assert.is(code, 4, verb);
      assert.match(JSON.stringify(json), message);
      assert.match(JSON.stringify(json), /SCHEMA_DIFFERS/);
    }
  });
}

test('neither the name of a collation nor the schema of an extension matters', async () => {
  const table = (schema: string, collation: string): string => `
    CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ${schema};
    ${folded.replace('folded', collation)};
    CREATE TABLE item (k text COLLATE ${collation} PRIMARY KEY);
    CREATE TABLE by_index (k text COLLATE ${collation} NOT NULL);
    CREATE UNIQUE INDEX k ON by_index (k COLLATE "C");
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX k`;
  const tablesOn = { a: table('public', 'one'), b: table('ext', 'other') };
  const fleet = await newFleet({ tablesOn, init: false });
  const { code, json } = await fleet.cli('init');
  assert.is(code, 0, JSON.stringify(json));
});

test('a generated column that is computed otherwise is a warning', async () => {
  const table = (factor: number): string => `CREATE TABLE item
    (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n * ${factor}) STORED)`;
  const fleet = await newFleet({ tablesOn: { a: table(2), b: table(3) }, init: false });
  const { code, json } = await fleet.cli('check');
  assert.is(code, 0);
  assert.match(
    JSON.stringify(json),
    /GENERATED_DIFFERS.*by \(n \* 3\) on node b and by \(n \* 2\)/,
  );
});

const item = 'CREATE TABLE item (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)';
const leaf = 'leaf PARTITION OF item DEFAULT';

for (const [what, own, message] of [
  ['unlogged', `CREATE UNLOGGED TABLE ${leaf}`, /it is unlogged here/],
  [
    'partitioned',
    `CREATE TABLE ${leaf} PARTITION BY RANGE (id); CREATE TABLE deep PARTITION OF leaf DEFAULT`,
    /the stream has rows of public.leaf itself, which is partitioned on this node/,
  ],
] as const) {
  test(`a new partition that is ${what} on a follower stops it until it is corrected`, async () => {
    const fleet = await newFleet({ tables: item });
    await fleet.startAgents();
    await fleet.tamper('b', own);
    await fleet.sql('a', `CREATE TABLE ${leaf}; INSERT INTO item VALUES (1, 1), (2, 2)`);
    assert.is(await fleet.agent('b').exitCode(), 4, fleet.logs());
    assert.match(fleet.agent('b').log, message);
    assert.equal(await fleet.sql('b', 'SELECT FROM item'), []);
    await fleet.tamper('b', `DROP TABLE leaf; CREATE TABLE ${leaf}`);
    await fleet.startAgent('b');
    await fleet.sql('a', 'DELETE FROM item WHERE id = 1');
    await fleet.caughtUp();
    await fleet.assertSame('item');
  });
}

const ruled = `
  CREATE TABLE item (id int PRIMARY KEY, n int); CREATE TABLE noted (id int PRIMARY KEY);
  CREATE TABLE kept (id int PRIMARY KEY, n int);
  CREATE RULE note AS ON INSERT TO item DO ALSO INSERT INTO noted VALUES (NEW.id);
  CREATE RULE keep AS ON DELETE TO kept DO INSTEAD NOTHING;
  CREATE RULE never AS ON UPDATE TO kept WHERE NEW.id < 0 DO INSTEAD NOTHING;
  ALTER TABLE item ENABLE ALWAYS RULE note; ALTER TABLE kept ENABLE REPLICA RULE keep`;

test('rules act once, on the leader, and are back on a promoted node', async () => {
  const fleet = await newFleet({ tables: ruled });
  const { json } = await fleet.cli('check');
  const held = json.findings.filter(({ code }: { code: string }) => code === 'TRIGGER_HELD');
  assert.equal(
    held.map(({ object }: { object: string }) => object),
    ['node b: public.item', 'node b: public.kept'],
  );
  await fleet.startAgents();
  for (const statement of [
    'INSERT INTO item VALUES (1, 1), (2, 2); INSERT INTO kept VALUES (1, 1), (2, 2)',
    'UPDATE item SET n = 7; UPDATE kept SET n = 7',
    'DELETE FROM kept WHERE id = 1; DELETE FROM item WHERE id = 1',
  ]) {
    await fleet.sql('a', statement);
    await fleet.caughtUp();
    for (const table of ['item', 'noted', 'kept']) await fleet.assertSame(table);
  }
  assert.equal(await fleet.sql('b', 'SELECT id FROM kept'), [{ id: 2 }]);
  await fleet.agent('a').stop();
  const { code } = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'test');
  assert.is(code, 0, fleet.logs());
  const modes = `SELECT rulename::text AS rule, ev_enabled::text AS mode FROM pg_rewrite
    WHERE ev_class IN ('item'::regclass, 'kept'::regclass) ORDER BY 1`;
  assert.equal(await fleet.sql('b', modes), await fleet.sql('a', modes));
});

test.run();
