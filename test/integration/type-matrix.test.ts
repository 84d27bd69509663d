/**
 * Every value of every type is the same on the follower as on the leader, by its text and by its
 * binary form, as a column, in arrays and as a key; whatever settings the databases have.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { type Matrix, MatrixRun, matrixFor, matrixTables } from '../support/type-matrix.ts';
import { matrixTypes } from '../support/type-values.ts';

/** Steps after which every value was updated to every other; a few show most of it. */
const steps = isFull ? 100 : 4;

let stack: Stack;
let fleet: Fleet;
let matrix: Matrix;
let run: MatrixRun;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  matrix = await matrixFor(stack.postgres.slice(0, 2).map((server) => server.superuserUrl));
  if (matrix.missing.length > 0) console.log(`not on these servers: ${matrix.missing.join(', ')}`);
  fleet = await startFleet({ stack, partitions: 3, tables: matrixTables(matrix, true) });
  // Settings for all clients of a database, different in everything.
  await setForDatabase('a', {
    ...{ DateStyle: 'SQL, DMY', IntervalStyle: 'sql_standard', TimeZone: 'Asia/Kathmandu' },
    ...{ bytea_output: 'escape', extra_float_digits: '-5', search_path: 'pg_temp' },
  });
  await setForDatabase('b', {
    ...{ DateStyle: 'German', IntervalStyle: 'iso_8601', TimeZone: 'America/St_Johns' },
    ...{ bytea_output: 'escape', extra_float_digits: '-15', xmloption: 'document' },
    ...{ array_nulls: 'off', standard_conforming_strings: 'off', transform_null_equals: 'on' },
    ...{ client_encoding: 'LATIN1', default_transaction_isolation: 'serializable' },
    ...{ default_transaction_deferrable: 'on', quote_all_identifiers: 'on' },
  });
  await fleet.startAgents();
  run = new MatrixRun(fleet, matrix);
});

test.after(async () => {
  await run?.close();
  await fleet?.close();
  await stack?.close();
});

async function setForDatabase(
  node: 'a' | 'b',
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  const database = new URL(fleet.url(node)).pathname.slice(1);
  const statements = Object.entries(settings).map(([name, value], at) => {
    const whose = at % 2 === 0 ? `DATABASE ${database}` : `ROLE postgres IN DATABASE ${database}`;
    return `ALTER ${whose} SET ${name} = '${value}'`;
  });
  await fleet.sql(node, statements.join('; '));
}

test('the matrix has every type of Postgres that a column can hold a value of', async () => {
  const { rows } = await run.reader.read(
    'a',
    `SELECT format_type(oid, NULL) FROM pg_type
     WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')
       AND (typcategory <> 'A' OR typname IN ('oidvector', 'int2vector')) ORDER BY 1`,
  );
  const isIn = new Set(matrixTypes.map(({ type }) => type));
  const aliases: Readonly<Record<string, string>> = {
    bit: 'bit(5)',
    'time without time zone': 'time',
    'timestamp with time zone': 'timestamptz',
    'timestamp without time zone': 'timestamp',
  };
  const missing = rows.flatMap(([type]) => {
    return isIn.has(type ?? '') || isIn.has(aliases[type ?? ''] ?? '') ? [] : [type];
  });
  // Statistics and plans of the system’s own: their input refuses every text.
  assert.equal(missing, [
    ...['gtsvector', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'pg_dependencies'],
    ...['pg_mcv_list', 'pg_ndistinct', 'pg_node_tree'],
  ]);
});

test('values of every type arrive, each updated to others', () => run.columns(steps));

test('arrays of every type arrive', () => run.arrays());

test('rows under keys of every type arrive, change their keys and are deleted', () =>
  run.keys(steps + 4));

test('a timestamp past what Avro holds arrives in an array, else it stops the leader', async () => {
  const column = `v${matrix.types.findIndex(({ type }) => type === 'timestamp')}`;
  await fleet.sql('a', `INSERT INTO listed (id, ${column}) VALUES (900, '{294276-12-31}')`);
  await fleet.caughtUp();
  assert.is((await fleet.sql('b', 'SELECT FROM listed WHERE id = 900')).length, 1);
  await fleet.sql('a', `INSERT INTO plain (id, ${column}) VALUES (900, '294276-12-31')`);
  assert.is(await fleet.agent('a').exitCode(), 4, fleet.logs());
  assert.match(fleet.agent('a').log, /"code":\s*"TYPE_RANGE"/);
  assert.is((await fleet.sql('b', 'SELECT FROM plain WHERE id = 900')).length, 0);
});

test.run();
