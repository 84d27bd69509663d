/**
 * What breaks: one statement leaves more partial rows in the topic than an agent remembers. The
 * rules: the rest is searched for in the topic once there is room, part by part; points carry
 * `unhealed` until the last row is whole; memory stays bounded, also when the agent is killed in
 * the middle and has to search for all of them. Tests run in order, on one fleet.
 */
// runs: full, since its rows take minutes
// time-limit: 900s
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { newestRecords } from '../support/newest-records.ts';
import { peakMemoryBytes } from '../support/process-cost.ts';
import { type Stack, useStack } from '../support/stack.ts';

const partitions = 2;
/** An agent remembers 50,000. */
const rows = 70_000;
const patienceMs = 300_000;
const memoryMaxBytes = 400 * 1024 * 1024;

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({
    stack,
    partitions,
    tables: `CREATE TABLE doc (id int PRIMARY KEY, n int NOT NULL, body text);
      ALTER TABLE doc ALTER body SET STORAGE EXTERNAL`,
  });
  await fleet.startAgents();
  await fleet.sql(
    'a',
    `INSERT INTO doc SELECT i, 0, repeat(md5(i::text), 70) FROM generate_series(1, ${rows}) AS i`,
  );
  await fleet.caughtUp('a', fleet.nodes, patienceMs);
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function isWhole(): Promise<void> {
  await fleet.caughtUp('a', fleet.nodes, patienceMs);
  const summary = async () => {
    const { lastPoint, partial } = await newestRecords(fleet);
    return { unhealed: lastPoint?.unhealed, partial: partial.length };
  };
  const { partial } = await fleet.until('no row is unhealed', summary, {
    ...{ pollMs: 3_000, timeoutMs: patienceMs, reached: ({ unhealed }) => unhealed === null },
  });
  assert.is(partial, 0, 'a point without unhealed rows, and a partial row');
  await fleet.assertSame('doc');
  for (const node of fleet.nodes) {
    const peak = await peakMemoryBytes(fleet.agent(node).pid);
    process.stderr.write(`the agent of ${node} took ${Math.round(peak / 2 ** 20)} MB at most\n`);
    assert.ok(peak < memoryMaxBytes, `the agent of ${node} took ${peak} bytes`);
  }
}

test('more partial rows than an agent remembers are all reselected', async () => {
  await fleet.sql('a', 'UPDATE doc SET n = n + 1');
  await isWhole();
});

test('an agent that is killed meanwhile finds the partial rows in the topic', async () => {
  await fleet.sql('a', 'UPDATE doc SET n = n + 1');
  await fleet.caughtUp('a', fleet.nodes, patienceMs);
  await sleep(2_000);
  await fleet.agent('a').kill();
  await fleet.startAgent('a');
  await isWhole();
});

test.run();
