/**
 * A fleet whose leader holds rows before the stream begins, and what is waited for of it. Flows in:
 * a stack; flows out: fleets that end with the test, and the moment when every row is in the
 * topic and on the follower, whole.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { type Fleet, type FleetOptions, type NodeName, startFleet } from './fleet.ts';
import { newestRecords } from './newest-records.ts';
import type { Stack } from './stack.ts';

export const partitions = 3;
const finishedWithinMs = 60_000;
/** What an update leaves out. */
export const large = 'repeat(md5(i::text), 100)';

/** Nothing is unfinished, nothing unhealed, in the topic as compaction would leave it. */
export async function finished(stack: Stack, fleet: Fleet): Promise<void> {
  // The topic is read as a whole: not before the follower has heard that nothing is unfinished.
  const holdsAll = async (): Promise<boolean> => {
    const rows = await fleet.sql('b', `SELECT FROM understudy.position WHERE unfinished = '{}'`);
    return rows.length === 1;
  };
  await until(fleet, holdsAll, 'all rows on b');
  for (const deadlineMs = Date.now() + finishedWithinMs; ; await sleep(1_000)) {
    const { lastPoint, lacking } = await newestRecords(stack, fleet, partitions);
    const isDone = lastPoint?.unfinished.length === 0 && lastPoint.unhealed === null;
    if (isDone) {
      assert.equal(lacking, []);
      return;
    }
    const left = JSON.stringify(lastPoint?.unfinished);
    assert.ok(Date.now() < deadlineMs, `not finished: ${left}\n${fleet.logs()}`);
  }
}

export const busyTables = `
  CREATE TABLE doc (id int PRIMARY KEY, n int NOT NULL, body text);
  ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE plain (id numeric PRIMARY KEY, n int NOT NULL);
  CREATE TABLE gone (id int PRIMARY KEY, n int NOT NULL)`;

const busyRows = `
  INSERT INTO doc SELECT i, 0, ${large} FROM generate_series(1, 4000) AS i;
  INSERT INTO plain SELECT i + 0.5, 0 FROM generate_series(1, 6000) AS i;
  INSERT INTO gone SELECT i, 0 FROM generate_series(1, 4000) AS i`;

/** The leader holds rows before init; the fleet ends with the work, whatever comes of it. */
export async function withBusyRows(
  stack: Stack,
  work: (fleet: Fleet) => Promise<void>,
  servers: FleetOptions['servers'] = {},
): Promise<void> {
  const options = { stack, servers, partitions, tables: busyTables, tablesOn: { a: busyRows } };
  const fleet = await startFleet(options);
  try {
    await work(fleet);
  } finally {
    await fleet.close();
  }
}

export async function isExact(stack: Stack, fleet: Fleet): Promise<void> {
  await finished(stack, fleet);
  await fleet.caughtUp();
  for (const name of ['doc', 'plain', 'gone']) await fleet.assertSame(name);
  const newest = await newestRecords(stack, fleet, partitions);
  for (const name of ['doc', 'plain', 'gone']) {
    const [row] = await fleet.sql<{ n: string }>('a', `SELECT count(*) AS n FROM ${name}`);
    assert.is(newest.rows.get(`public.${name}`)?.size ?? 0, Number(row?.n), name);
  }
}

/** Of a row of `plain`. */
export async function value(fleet: Fleet, node: NodeName, id: string): Promise<number | undefined> {
  const [row] = await fleet.sql<{ n: number }>(node, 'SELECT n FROM plain WHERE id = $1', [id]);
  return row?.n;
}

export async function until(
  fleet: Fleet,
  reached: () => Promise<boolean>,
  what: string,
): Promise<void> {
  for (const deadlineMs = Date.now() + finishedWithinMs; !(await reached()); await sleep(50)) {
    assert.ok(Date.now() < deadlineMs, `never: ${what}\n${fleet.logs()}`);
  }
}
