/**
 * The leader is lost during the backfill, and the node that is left was built from its schema: the
 * statements that waited for the rows are run before it leads, and those that its rows do not allow
 * are named instead of keeping the only copy from being promoted. The second test continues with
 * the promoted node.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testWithDump } from '../support/with-dump.ts';

const stack: Stack = await useStack({ postgres: 2 });
const check = await testWithDump(stack);

/** Tables are read in the order of their names: children before what they refer to. */
const tables = `
  CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL, code text NOT NULL, shown text);
  CREATE TABLE parent (id int PRIMARY KEY, n int NOT NULL);
  ALTER TABLE child ADD CONSTRAINT has_parent FOREIGN KEY (parent) REFERENCES parent;
  CREATE UNIQUE INDEX child_code ON child (code);
  CREATE UNIQUE INDEX child_shown ON child (shown);
  CREATE INDEX parent_n ON parent (n);
  INSERT INTO parent SELECT i, i FROM generate_series(1, 50) AS i;
  INSERT INTO child SELECT i, i, 'c' || i, 'c' || i FROM generate_series(1, 50) AS i`;

let fleet: Fleet;

test.before(async () => {
  fleet = await startFleet({ stack, tablesOn: { a: tables } });
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function count(table: string): Promise<number> {
  const [row] = await fleet.sql<{ n: number }>('b', `SELECT count(*)::int AS n FROM ${table}`);
  return row?.n ?? -1;
}

check('the only copy is promoted, with all of the schema that its rows allow', async () => {
  const agent = await fleet.startAgent('b');
  await fleet.startAgent('a', 'chunk.after-read=pause:60000:2');
  await fleet.until('the children on b', () => count('child'), { reached: (n) => n === 50 });
  assert.is(await count('parent'), 0);
  // Rows that are read in chunks may have a value twice that the leader never had twice at once.
  await fleet.tamper('b', `UPDATE child SET shown = 'twice'`);
  await fleet.agent('a').kill();
  const refused = await fleet.cli('failover', 'b');
  assert.is(refused.code, 6, JSON.stringify(refused.json));
  assert.match(refused.json.error.message, /is backfilling .*public\.parent/);
  const { code, json } = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'burnt');
  assert.is(code, 0, `${JSON.stringify(json)}\n${fleet.logs()}`);
  assert.is(json.lacks.length, 2, JSON.stringify(json.lacks));
  assert.match(json.lacks[0], /CREATE UNIQUE INDEX child_shown ON public\.child .*: could not/);
  assert.match(json.lacks[1], /public\.child\.has_parent .*NOT VALID/);
  await agent.logged(/this node will lead without parts of the schema/);
});

check('what could be made is in force', async () => {
  const write = (text: string): Promise<string> =>
    fleet.sql('b', text).then(
      () => 'written',
      (error: { code?: string }) => error.code ?? String(error),
    );
  assert.is(await write(`INSERT INTO child VALUES (100, 1, 'new', 'new')`), '23503');
  assert.is(await write(`UPDATE child SET code = 'c2' WHERE id = 1`), '23505');
  assert.is(await write('INSERT INTO parent VALUES (100, 1)'), 'written');
  assert.is(await write(`INSERT INTO child VALUES (100, 100, 'new', 'new')`), 'written');
  const indexes = await fleet.sql(
    'b',
    `SELECT indexrelid::regclass::text AS name FROM pg_index JOIN pg_class t ON t.oid = indrelid
     WHERE t.relname IN ('child', 'parent') AND NOT indisprimary ORDER BY 1`,
  );
  assert.equal(indexes, [{ name: 'child_code' }, { name: 'parent_n' }]);
  const { json } = await fleet.cli('status');
  assert.match(json.nodes[1].why.join(), /it lacks CREATE UNIQUE INDEX child_shown/);
});

test.run();
