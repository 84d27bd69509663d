/**
 * `verify` against agents that run: it finds what differs and nothing else, at one LSN while writes
 * go on, and leaves nothing behind, whatever ends it.
 */
// time-limit: 480s
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import {
  lockTables,
  readLockedTables,
  readPublishedTables,
} from '../../src/verify/published-tables.ts';
import { digestTable } from '../../src/verify/table-digest.ts';
import { query } from '../support/checked-fleet.ts';
import { RunningFleet } from '../support/running-fleet.ts';

interface VerifyAnswer {
  readonly lsn: string;
  readonly equal: boolean;
  readonly nodes: readonly {
    readonly name: string;
    readonly equal: boolean;
    readonly tables: readonly { readonly table: string; readonly rows: number; equal: boolean }[];
  }[];
  readonly error?: { readonly code: string; readonly message: string; readonly hint: string };
}

const verify = suite('verify');
let fleet: RunningFleet;

verify.before(async () => {
  fleet = await RunningFleet.begin(2, [
    'CREATE TABLE "odd ""Name" (k text PRIMARY KEY, "a,b" text)',
    'CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric)',
  ]);
  await fleet.start('a', 'b');
});

verify.after(async () => {
  await fleet.close();
});

/** Rows of `orders` and whether they are equal. */
async function orders(): Promise<readonly [number | undefined, boolean | undefined]> {
  const { value } = await fleet.ask<VerifyAnswer>('verify');
  const found = value.nodes[0]?.tables.find(({ table }) => table === 'public.orders');
  return [found?.rows, found?.equal];
}

async function slotsAndSessions(): Promise<readonly string[]> {
  return query(
    fleet.url('a'),
    `SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'understudy_verify%'`,
    `SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%verify%'`,
  );
}

verify('equal rows are equal, and the exit code says so', async () => {
  await query(
    fleet.url('a'),
    `INSERT INTO orders VALUES (1, NULL, 1.0), (2, '', 2.50), (3, 'a,"b\\', NULL)`,
    `INSERT INTO "odd ""Name" VALUES ('x,y', '(1)')`,
  );
  const { exit, value } = await fleet.ask<VerifyAnswer>('verify');
  assert.is(exit, 0, JSON.stringify(value));
  assert.match(value.lsn, /^1:[0-9A-F]+\/[0-9A-F]+$/);
  assert.equal(value.nodes, [
    {
      name: 'b',
      equal: true,
      tables: [
        { table: 'public.odd "Name', rows: 1, equal: true },
        { table: 'public.orders', rows: 3, equal: true },
      ],
    },
  ]);
});

verify('every kind of difference is found', async () => {
  const changes: readonly (readonly [string, string])[] = [
    ["UPDATE orders SET note = '' WHERE id = 1", 'UPDATE orders SET note = NULL WHERE id = 1'],
    ['UPDATE orders SET total = 2.5 WHERE id = 2', 'UPDATE orders SET total = 2.50 WHERE id = 2'],
    ['UPDATE orders SET id = 4 WHERE id = 3', 'UPDATE orders SET id = 3 WHERE id = 4'],
    ['DELETE FROM orders WHERE id = 2', "INSERT INTO orders VALUES (2, '', 2.50)"],
  ];
  for (const [change, back] of changes) {
    await fleet.tamper('b', change);
    const { exit, value } = await fleet.ask<VerifyAnswer>('verify', 'b');
    assert.is(exit, 8, change);
    assert.is(value.equal, false, change);
    const different = value.nodes[0]?.tables.filter(({ equal }) => !equal);
    assert.equal(
      different?.map(({ table }) => table),
      ['public.orders'],
      change,
    );
    await fleet.tamper('b', back);
    assert.equal(await orders(), [3, true], back);
  }
});

verify('two rows that swap their values are a difference', async () => {
  await fleet.tamper(
    'b',
    `UPDATE orders SET note = CASE id WHEN 2 THEN 'a,"b\\' ELSE '' END
    WHERE id IN (2, 3)`,
  );
  assert.equal(await orders(), [3, false]);
  await fleet.tamper(
    'b',
    `UPDATE orders SET note = CASE id WHEN 3 THEN 'a,"b\\' ELSE '' END
    WHERE id IN (2, 3)`,
  );
  assert.equal(await orders(), [3, true]);
});

verify('nodes are compared at one LSN while writes go on', async () => {
  const client = new pg.Client({ connectionString: fleet.url('a') });
  await client.connect();
  let isOver = false;
  const write = async (): Promise<void> => {
    for (let id = 100; !isOver; id = id === 400 ? 100 : id + 1) {
      await client.query('DELETE FROM orders WHERE id = $1', [id + 7]);
      await client.query(
        `INSERT INTO orders VALUES ($1, 'x', 1)
         ON CONFLICT (id) DO UPDATE SET total = orders.total + 1`,
        [id],
      );
    }
  };
  const writing = write();
  const lsns = new Set<string>();
  try {
    for (let round = 0; round < 4; round += 1) {
      const { exit, value } = await fleet.ask<VerifyAnswer>('verify');
      assert.is(exit, 0, JSON.stringify(value));
      lsns.add(value.lsn);
    }
  } finally {
    isOver = true;
    await writing;
    await client.end();
  }
  assert.is(lsns.size, 4);
});

verify('what would block the snapshot is named; stopping leaves nothing behind', async () => {
  const blocker = new pg.Client({ connectionString: fleet.url('a') });
  await blocker.connect();
  await blocker.query('BEGIN');
  await blocker.query(`INSERT INTO orders VALUES (9000, 'open', 1)`);
  const { rows } = await blocker.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  const waiting = fleet.ask<VerifyAnswer>('verify');
  const { exit, value } = await waiting;
  assert.is(exit, 5);
  assert.match(value.error?.message ?? '', `pid ${rows[0]?.pid}`);
  assert.equal(await slotsAndSessions(), ['[]', '[]']);

  const child = spawn(process.execPath, fleet.words('verify'), {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  for await (const text of child.stderr.setEncoding('utf8')) {
    if (String(text).includes('snapshot')) break;
  }
  await sleep(500);
  child.kill('SIGINT');
  assert.is(await ended, 130);
  assert.equal(await slotsAndSessions(), ['[]', '[]']);
  await blocker.query('ROLLBACK');
  await blocker.end();
  assert.is((await orders())[1], true, 'the follower was let go on');
});

verify('pages read one range after the other come to the same', async () => {
  await query(
    fleet.url('a'),
    // One row a page, and more pages than one statement reads.
    `ALTER TABLE orders ALTER note SET STORAGE PLAIN`,
    `INSERT INTO orders SELECT g, repeat('x', 7000), g FROM generate_series(10000, 18500) g`,
  );
  const client = await connectPostgres(fleet.url('a'), { applicationName: 'test' });
  const table = (await readPublishedTables(client)).find(({ name }) => name === 'orders');
  assert.ok(table !== undefined && table.pages > 8192, String(table?.pages));
  const parts: bigint[] = [];
  const { signal } = new AbortController();
  const onRows = (rows: bigint): number => parts.push(rows);
  const inRanges = await digestTable(client, table, { signal, onRows });
  assert.ok(parts.length > 1 && parts.every((rows) => rows > 0n), String(parts));
  const atOnce = await digestTable(client, { ...table, pages: 0 }, { signal, onRows });
  assert.equal(inRanges, atOnce);
  await client.end();
  assert.is((await orders())[1], true);
});

verify('a table that was truncated behind the snapshot is refused, not compared', async () => {
  const client = await connectPostgres(fleet.url('a'), { applicationName: 'test' });
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const found = await readPublishedTables(client);
  await query(fleet.url('a'), 'TRUNCATE orders');
  await lockTables(client, found);
  const error: unknown = await readLockedTables(client, found).catch((reason: unknown) => reason);
  assert.match(String(error), 'public.orders was changed');
  await client.end();
});

verify('an agent that does not answer is named', async () => {
  await fleet.stop('b');
  const { exit, value } = await fleet.ask<VerifyAnswer>('verify');
  assert.is(exit, 5);
  assert.is(value.error?.message, 'the agent of node b does not answer');
  assert.is(value.error?.hint, 'Start it: understudy run b');
});

verify.run();
