/**
 * A fleet whose leader holds rows that predate the stream, and the waits of a backfill: until every
 * row is in the topic and on the follower, whole, and until the leader has tried to read.
 */
import * as assert from 'uvu/assert';
import { type Fleet, withFleet } from './fleet.ts';
import type { FleetOptions, NodeName } from './fleet-options.ts';
import { newestRecords } from './newest-records.ts';
import type { Stack } from './stack.ts';

export const partitions = 3;
/** A value that an update of another column leaves out. */
export const large = 'repeat(md5(i::text), 100)';

/** No table is backfilling and no row is partial, on node b and in the topic. */
export async function backfilled(fleet: Fleet): Promise<void> {
  // The topic is read as a whole: not before the follower has read that no table is unfinished.
  await fleet.complete('b');
  await reselected(fleet);
}

/** The same of the topic alone, as compaction would leave it. */
export async function reselected(fleet: Fleet): Promise<void> {
  const found = await fleet.until('a complete backfill', () => newestRecords(fleet), {
    pollMs: 1_000,
    reached: ({ lastPoint }) => lastPoint?.unfinished.length === 0 && lastPoint.unhealed === null,
  });
  assert.equal(found.partial, []);
}

/**
 * Waits until the leader has tried that many times more to read rows, for a backfill or a reselect:
 * a test that nothing is read proves as much as was tried.
 */
export async function readsTried(fleet: Fleet, count: number): Promise<void> {
  const tried = new Set<string>();
  // Between two attempts its session is idle, with the time of its last statement.
  const idle = `SELECT query_start::text AS at FROM pg_stat_activity
    WHERE application_name = 'understudy a reads' AND datname = current_database()
      AND state = 'idle'`;
  const probe = async (): Promise<number> => {
    for (const { at } of await fleet.sql<{ at: string }>('a', idle)) tried.add(at);
    return tried.size;
  };
  // The first that is seen may be of an attempt before.
  await fleet.until(`${count} attempts`, probe, { pollMs: 5, reached: (n) => n > count });
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

/** The leader holds rows before init; the fleet is closed after the work, or its failure. */
export async function withBusyRows(
  stack: Stack,
  work: (fleet: Fleet) => Promise<void>,
  servers: FleetOptions['servers'] = {},
): Promise<void> {
  const options = { stack, servers, partitions, tables: busyTables, tablesOn: { a: busyRows } };
  await withFleet(options, work);
}

export async function isExact(fleet: Fleet): Promise<void> {
  await backfilled(fleet);
  await fleet.caughtUp();
  const names = ['doc', 'plain', 'gone'];
  for (const name of names) await fleet.assertSame(name);
  const newest = await newestRecords(fleet);
  for (const name of names) {
    const [row] = await fleet.sql<{ n: number }>('a', `SELECT count(*)::int AS n FROM ${name}`);
    assert.is(newest.rows.get(`public.${name}`)?.size ?? 0, row?.n, name);
  }
}

/** Of a row of `plain`. */
export async function value(fleet: Fleet, node: NodeName, id: string): Promise<number | undefined> {
  const [row] = await fleet.sql<{ n: number }>(node, 'SELECT n FROM plain WHERE id = $1', [id]);
  return row?.n;
}
