/**
 * Updates that leave a large value alone: Postgres does not send it, followers keep the one they
 * have, through any number of updates, changes of the key and swaps in one batch or in many. Rows
 * are compared whole: a value that was lost, kept too long or taken from another row is found.
 * Tests run in order, on one fleet.
 */
// runs: ci, since test/integration/reselect.test.ts has partial rows
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { seeded, seedOfRun } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';

/** Values above 2 kB are stored out of line, uncompressed; a large key is sent as an old key. */
const tables = `
  CREATE TABLE doc (id int PRIMARY KEY, rank int UNIQUE, n int, body text, extra bytea);
  ALTER TABLE doc ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
  CREATE TABLE always (id int PRIMARY KEY, seq int GENERATED ALWAYS AS IDENTITY, n int, body text);
  ALTER TABLE always ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE keyed (k text PRIMARY KEY, n int, body text);
  ALTER TABLE keyed ALTER k SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL`;

const large = (text: string): string => `repeat('${text} ', 700)`;

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions: 4, tables });
  await fleet.startAgents();
  await fleet.sql(
    'a',
    `INSERT INTO doc SELECT i, i, 0, ${large("' || i || '")}, decode(repeat('ab', 3000), 'hex')
     FROM generate_series(1, 20) AS i;
     INSERT INTO always (id, n, body) SELECT i, 0, ${large("' || i || '")}
     FROM generate_series(1, 5) AS i;
     INSERT INTO keyed VALUES (repeat('k', 2500), 0, ${large('body')})`,
  );
  await fleet.caughtUp();
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function isSame(): Promise<void> {
  await fleet.caughtUp();
  for (const table of ['doc', 'always', 'keyed']) await fleet.assertSame(table);
}

/** Runs while the follower’s agent is away: all of it is one fold then. */
async function inOneFold(...statements: readonly string[]): Promise<void> {
  await fleet.agent('b').stop();
  for (const statement of statements) await fleet.sql('a', statement);
  await fleet.startAgent('b');
  await isSame();
}

test('an update of another column keeps large values', async () => {
  await fleet.sql('a', 'UPDATE doc SET n = n + 1');
  await isSame();
  await inOneFold(
    'UPDATE doc SET n = n + 1',
    `UPDATE doc SET body = ${large('new')} WHERE id < 5`,
    'UPDATE doc SET n = n + 1 WHERE id < 10',
    'UPDATE doc SET body = NULL WHERE id = 7',
    'UPDATE doc SET n = n + 1, extra = NULL WHERE id < 8',
  );
});

test('a changed key keeps the large values of its row, through several keys', async () => {
  await fleet.sql('a', 'UPDATE doc SET id = 101 WHERE id = 1');
  await isSame();
  await inOneFold(
    'UPDATE doc SET id = 102, n = 5 WHERE id = 101',
    'UPDATE doc SET id = 103 WHERE id = 102',
    `INSERT INTO doc VALUES (101, 101, 1, ${large('another')}, NULL)`,
    'UPDATE doc SET id = 104 WHERE id = 101',
    'UPDATE doc SET id = 101 WHERE id = 103',
    'UPDATE doc SET n = 6 WHERE id IN (101, 104)',
  );
});

test('more rows than are held at once keep the large values that a move deletes', async () => {
  await fleet.sql(
    'a',
    `INSERT INTO doc SELECT i, i, 0, ${large("' || i || '")}, decode(repeat('cd', 3000), 'hex')
     FROM generate_series(1001, 1130) AS i;
     INSERT INTO always (id, n, body) SELECT i, 0, ${large("' || i || '")}
     FROM generate_series(1001, 1070) AS i`,
  );
  await isSame();
  await inOneFold(
    `BEGIN; UPDATE doc SET id = id + 1000, n = 7 WHERE id > 1000;
     UPDATE always SET n = 7 WHERE id > 1000; COMMIT`,
    'UPDATE doc SET id = 9000 - id WHERE id BETWEEN 2001 AND 2060',
  );
  await fleet.sql('a', 'DELETE FROM doc WHERE id > 1000; DELETE FROM always WHERE id > 1000');
  await isSame();
});

test('a key that was deleted and inserted again has its new large value', async () => {
  await inOneFold(
    `BEGIN; DELETE FROM doc WHERE id = 2; INSERT INTO doc VALUES (2, 2, 0, ${large('again')}, NULL);
     UPDATE doc SET n = 1 WHERE id = 2; COMMIT`,
    'DELETE FROM doc WHERE id = 3',
    `INSERT INTO doc VALUES (3, 3, 0, NULL, NULL)`,
    'UPDATE doc SET n = 1 WHERE id = 3',
  );
});

test('rows that swap a unique value keep their own large values', async () => {
  await inOneFold(
    `BEGIN; UPDATE doc SET rank = -rank WHERE id IN (10, 11);
     UPDATE doc SET rank = CASE id WHEN 10 THEN 11 ELSE 10 END WHERE id IN (10, 11); COMMIT`,
  );
  await inOneFold(
    `BEGIN; UPDATE doc SET id = -id WHERE id IN (12, 13);
     UPDATE doc SET id = CASE id WHEN -12 THEN 13 ELSE 12 END WHERE id IN (-12, -13); COMMIT`,
  );
});

test('rows that can only be replaced, and large keys, keep their large values', async () => {
  await inOneFold('UPDATE always SET n = n + 1', 'UPDATE always SET id = id + 10 WHERE id < 4');
  await fleet.sql('a', 'UPDATE keyed SET n = 1');
  await fleet.sql('a', `UPDATE keyed SET k = k || 'x', n = 2`);
  await isSame();
});

test('a table that is truncated and filled again has its new rows', async () => {
  await inOneFold(
    'UPDATE always SET n = n + 1',
    `TRUNCATE always; INSERT INTO always (id, n, body) VALUES (1, 0, ${large('after')})`,
    'UPDATE always SET n = 7',
  );
});

/** What a statement does is left to chance; one that Postgres refuses is no statement. */
function anyStatement(random: () => number): string {
  const id = (): number => 1 + Math.floor(random() * 25);
  const value = (): string => large(`v${Math.floor(random() * 1e6)}`);
  switch (Math.floor(random() * 6)) {
    case 0:
      return `INSERT INTO doc VALUES (${id()}, ${id()}, 0, ${value()}, NULL)`;
    case 1:
      return `DELETE FROM doc WHERE id = ${id()}`;
    case 2:
      return `UPDATE doc SET id = ${id()}, n = n + 1 WHERE id = ${id()}`;
    case 3:
      return `UPDATE doc SET body = ${value()} WHERE id = ${id()}`;
    default:
      return `UPDATE doc SET n = n + 1, rank = ${id()} WHERE id = ${id()}`;
  }
}

test('any history ends in the same rows, with restarts in between', async () => {
  const random = seeded(seedOfRun());
  for (let round = 0; round < 6; round += 1) {
    for (let transaction = 0; transaction < 40; transaction += 1) {
      await fleet.sql('a', 'BEGIN');
      for (let n = 0; n < 4; n += 1) {
        await fleet.sql('a', 'SAVEPOINT s');
        await fleet.sql('a', anyStatement(random)).catch(() => fleet.sql('a', 'ROLLBACK TO s'));
      }
      await fleet.sql('a', 'COMMIT');
    }
    const killed = round % 2 === 0 ? 'a' : 'b';
    await fleet.agent(killed).kill();
    await fleet.startAgent(killed);
    await isSame();
  }
});

test('a row that was deleted on the follower stops it', async () => {
  await fleet.tamper('b', 'DELETE FROM doc WHERE id = (SELECT min(id) FROM doc)');
  await fleet.sql('a', 'UPDATE doc SET n = n + 1');
  const agent = fleet.agent('b');
  assert.is(await agent.exitCode(), 4, agent.log);
  assert.match(
    agent.log,
    /"code":"NODE_DAMAGED".*changes a row of public.doc that this node does not/,
  );
});

test.run();
