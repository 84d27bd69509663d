// time-limit: 900s
/**
 * The type matrix between servers of different versions, and between two of the newest: what one
 * prints the other reads as the same value. Each pair has servers of its own.
 */
// runs: full, since it needs servers of all versions
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ExactReader } from '../support/exact-rows.ts';
import { startFleet } from '../support/fleet.ts';
import { isFull } from '../support/form.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';
import { MatrixRun, matrixFor, matrixTables } from '../support/type-matrix.ts';

/** Enough to see every value; the full form updates each to every other, and has keys too. */
const steps = isFull ? 100 : 1;

/** As a server’s own configuration file may have it. */
const settings = {
  ...{ DateStyle: 'Postgres, DMY', IntervalStyle: 'postgres_verbose', TimeZone: 'Asia/Tokyo' },
  ...{ bytea_output: 'escape', extra_float_digits: '-3', xmloption: 'document' },
};

let stack: Stack;
let old: OwnServer;
let recent: OwnServer;

test.before(async () => {
  stack = await useStack({ postgres: 1 });
  [old, recent] = await Promise.all([
    ownServer({ postgresVersion: '15' }),
    ownServer({ postgresVersion: '18' }),
  ]);
  await Promise.all([old, recent].map(({ server }) => server.configure(settings)));
});

test.after(async () => {
  await Promise.all([old?.close(), recent?.close()]);
  await stack?.close();
});

/** Columns that only the newer server can have, and keys over ranges that must not overlap. */
const newerTables = `
  CREATE TABLE computed (id int PRIMARY KEY, n int,
    stored int GENERATED ALWAYS AS (n * 2) STORED, virtual int GENERATED ALWAYS AS (n * 3));
  CREATE TABLE stay (room int4range, span daterange, note text,
    PRIMARY KEY (room, span WITHOUT OVERLAPS));`;

async function carries(from: () => OwnServer, to: () => OwnServer): Promise<void> {
  const servers = { a: from().server, b: to().server };
  const matrix = await matrixFor([servers.a.url(), servers.b.url()]);
  const isNew = servers.a.major >= 18 && servers.b.major >= 18;
  const tables = matrixTables(matrix, isFull) + (isNew ? newerTables : '');
  const fleet = await startFleet({ stack, servers, tables });
  const run = new MatrixRun(fleet, matrix);
  try {
    await fleet.startAgents();
    await run.columns(steps);
    await run.arrays();
    if (isFull) await run.keys(steps);
    if (isNew) await sendNewer(fleet);
    const { code, json } = await fleet.cli('verify');
    assert.is(code, 0, JSON.stringify(json));
  } finally {
    await run.close();
    await fleet.close();
  }
}

async function sendNewer(fleet: Awaited<ReturnType<typeof startFleet>>): Promise<void> {
  const reader = new ExactReader(fleet);
  for (const statement of [
    `INSERT INTO computed VALUES (1, 1), (2, 2), (3, NULL)`,
    `UPDATE computed SET n = n + 1; DELETE FROM computed WHERE id = 2`,
    `INSERT INTO stay VALUES ('[1,2)', '[2024-01-01,2024-02-01)', 'a'),
       ('[1,2)', '[2024-02-01,2024-03-01)', 'b'), ('[2,3)', '[2024-01-01,2024-02-01)', 'c')`,
    `UPDATE stay SET note = note || '!'`,
    `UPDATE stay SET span = '[2024-05-01,2024-06-01)' WHERE note = 'a!'`,
    `UPDATE stay SET span = '[2024-01-01,2024-01-15)' WHERE note = 'b!'`,
    `DELETE FROM stay WHERE note = 'c!'`,
  ]) {
    await fleet.sql('a', statement);
    await fleet.caughtUp();
    await reader.assertSame('SELECT * FROM public.computed ORDER BY id', statement);
    const stays = await reader.assertSame(
      'SELECT * FROM public.stay ORDER BY room, span',
      statement,
    );
    assert.ok(stays.rows.length < 4);
  }
  await reader.close();
}

test('15 leads, 18 follows', () =>
  carries(
    () => old,
    () => recent,
  ));

test('18 leads, 15 follows', () =>
  carries(
    () => recent,
    () => old,
  ));

if (isFull) {
  test('18 leads, 18 follows', () =>
    carries(
      () => recent,
      () => recent,
    ));
}

test.run();
