/**
 * A schema that is as before, and was another for a moment or means something else: changes that
 * Postgres did not send, or sent under another identity. The leader stops, although names and types
 * of columns do not differ, and followers keep their rows.
 */
// runs: ci, since test/unit/table-difference.test.ts has the decisions
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TABLE item (id int PRIMARY KEY, n int);
  CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
  CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100);
  CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  CREATE TABLE folded (k text COLLATE folded PRIMARY KEY)`;

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after.each(() => fleet.close());
test.after(() => stack.close());

for (const [what, change] of [
  [
    'a partition that is detached, filled and attached again',
    () => `ALTER TABLE part DETACH PARTITION part_low; INSERT INTO part_low VALUES (2);
      ALTER TABLE part ATTACH PARTITION part_low FOR VALUES FROM (0) TO (100)`,
  ],
  [
    'a table that leaves the publication and comes back',
    (publication: string) => `ALTER PUBLICATION ${publication} DROP TABLE item;
      DELETE FROM item; ALTER PUBLICATION ${publication} ADD TABLE ONLY item`,
  ],
  [
    'a table that is published by halves and wholly again',
    (publication: string) => `ALTER PUBLICATION ${publication} SET (publish = 'insert');
      DELETE FROM item;
      ALTER PUBLICATION ${publication} SET (publish = 'insert, update, delete, truncate')`,
  ],
  [
    'a publication that is dropped and re-created',
    (publication: string) => `DROP PUBLICATION ${publication}; DELETE FROM item;
      CREATE PUBLICATION ${publication} FOR TABLE ONLY item, ONLY part`,
  ],
  [
    'a table whose identity is another one for an update',
    () => `ALTER TABLE item DROP CONSTRAINT item_pkey, ADD PRIMARY KEY (n);
      UPDATE item SET id = id + 100;
      ALTER TABLE item DROP CONSTRAINT item_pkey, ADD PRIMARY KEY (id), ALTER n DROP NOT NULL`,
  ],
  [
    'a key under whose new collation two rows are what was one',
    () =>
      `ALTER TABLE folded ALTER k TYPE text COLLATE "C"; INSERT INTO folded VALUES ('a'), ('A')`,
  ],
] as const) {
  test(`${what}, all within one transaction, stops the leader`, async () => {
    fleet = await startFleet({ stack, tables });
    await fleet.startAgents();
    await fleet.sql('a', 'INSERT INTO item VALUES (1, 1); INSERT INTO part VALUES (1)');
    await fleet.caughtUp();
    await fleet.sql('a', `BEGIN; ${change(`understudy_${fleet.cluster}`)}; COMMIT`);
    for (const next of [() => fleet.agent('a'), () => fleet.spawnAgent('a')]) {
      const agent = next();
      assert.is(await agent.exitCode(), 4, agent.log);
      assert.match(agent.log, /"code":"SCHEMA_CHANGED"/);
    }
    const rows = 'SELECT id FROM item UNION ALL SELECT id FROM part';
    assert.equal(await fleet.sql('b', rows), [{ id: 1 }, { id: 1 }]);
  });
}

test.run();
