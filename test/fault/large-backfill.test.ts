/**
 * What breaks: a table has five million rows, and another rows of many sizes, before the stream
 * begins; transactions larger than what an agent remembers of changed keys run meanwhile, and the
 * agents are killed on the way. The rules: the backfill resumes where the last point says, memory
 * stays bounded on both sides, writers are not blocked, and in the end every node has the rows.
 */
// runs: full, since five million rows take minutes
// time-limit: 1500s
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { peakMemoryBytes } from '../support/process-cost.ts';
import { type Stack, useStack } from '../support/stack.ts';

const rows = 5_000_000;
/** An agent remembers 100,000 changed keys. */
const changedAtOnce = 300_000;
const step = Math.floor(rows / changedAtOnce);
const patienceMs = 900_000;
const memoryMaxBytes = 400 * 1024 * 1024;
let stack: Stack;
let fleet: Fleet;

const tables = `
  CREATE TABLE many (id bigint PRIMARY KEY, n int NOT NULL, note text);
  CREATE TABLE wide (id int PRIMARY KEY, n int, body text);
  ALTER TABLE wide ALTER body SET STORAGE EXTERNAL`;

/** One row in a hundred is of 3 MB. */
const existing = `
  INSERT INTO many SELECT i * 3, 0, 'a note of a row ' || i FROM generate_series(1, ${rows}) AS i;
  INSERT INTO wide SELECT i, 0, repeat('x', CASE WHEN i % 100 = 0 THEN 3000000 ELSE i END)
    FROM generate_series(1, 3000) AS i;
  ANALYZE`;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions: 2, tables, tablesOn: { a: existing } });
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

/** How many rows were inserted, roughly: those that a kill rolled back count too. */
async function arrived(): Promise<number> {
  const [row] = await fleet.sql<{ n: string }>(
    'b',
    `SELECT n_tup_ins AS n FROM pg_stat_user_tables WHERE relname = 'many'`,
  );
  return Number(row?.n ?? 0);
}

async function memoryIsBounded(): Promise<void> {
  for (const node of fleet.nodes) {
    const peak = await peakMemoryBytes(fleet.agent(node).pid);
    process.stderr.write(`the agent of ${node} took ${Math.round(peak / 2 ** 20)} MB at most\n`);
    assert.ok(peak < memoryMaxBytes, `the agent of ${node} took ${peak} bytes`);
  }
}

test('five million rows are backfilled under load, past kills of both agents', async () => {
  await fleet.startAgents();
  const beganMs = Date.now();
  for (const part of [0.2, 0.5]) {
    const reached = (count: number): boolean => count >= rows * part;
    const patience = { pollMs: 500, timeoutMs: patienceMs };
    await fleet.until(`${part} of the rows on b`, arrived, { ...patience, reached });
    await fleet.sql('a', `UPDATE many SET n = n + 1 WHERE id % ${step} = 0`);
    await Promise.all([fleet.agent('a').kill(), fleet.agent('b').kill()]);
    await fleet.startAgents();
  }
  await fleet.complete('b', patienceMs);
  const seconds = (Date.now() - beganMs) / 1_000;
  process.stderr.write(`read in ${Math.round(seconds)} s, kills and updates included\n`);
  const inserted = await arrived();
  assert.ok(inserted < rows * 1.1, `it resumes where the last point says: ${inserted} inserts`);
  await fleet.caughtUp('a', fleet.nodes, patienceMs);
  await memoryIsBounded();
  for (const table of ['many', 'wide']) await fleet.assertSame(table);
});

test.run();
