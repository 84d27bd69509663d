/**
 * What a real server prints and describes: conversions give its very text back for random and
 * extreme values, tables and their problems are read as they are, and the SQL of every hint works.
 */
import type { Client } from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadKnownRelations, saveRelations } from '../../src/catalog/known-relations.ts';
import {
  connectPostgres,
  inTransaction,
  onLost,
  sessionSettings,
} from '../../src/catalog/postgres-session.ts';
import { readServer, readTables } from '../../src/catalog/read-catalog.ts';
import { assignColumnIds, compareWithTable, shapeOf } from '../../src/catalog/relation-ids.ts';
import { readFirstValues, readSequences, readSequenceValues } from '../../src/catalog/sequences.ts';
import type { TableShape } from '../../src/catalog/table.ts';
import { problemsOf } from '../../src/catalog/table-problems.ts';
import { conversionOf } from '../../src/catalog/types/column-types.ts';
import { installUnderstudySchema } from '../../src/catalog/understudy-schema.ts';
import type { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { commandsIn } from '../support/hint-places.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let url: string;
let client: Client;

test.before(async () => {
  stack = await useStack({ postgres: 1 });
  url = (await stack.createDatabases('catalog'))[0] ?? '';
  client = await connectPostgres(url, { applicationName: 'understudy test', replica: true });
});

test.after(async () => {
  await client?.end();
  await stack?.close();
});

async function column(text: string, values: unknown[] = []): Promise<string[]> {
  const { rows } = await client.query<[string]>({ text, values, rowMode: 'array' });
  return rows.map(([value]) => value);
}

function random(limit: number): number {
  return Math.floor(Math.random() * limit);
}

/** Bits of every kind: any at all, small odd ones by a power of two, short decimals, denormals. */
function randomDouble(): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint32(0, random(2 ** 32));
  view.setUint32(4, random(2 ** 32));
  const kinds = [
    view.getFloat64(0),
    2 ** (random(2098) - 1074),
    (1 + 2 * random(2 ** random(52))) * 2 ** -random(120),
    Number(`${random(10 ** random(17))}e${random(40) - 15}`),
    Math.random() * 2 ** (50 + random(40)),
    random(3000) * 5e-324,
  ];
  return kinds[random(kinds.length)] ?? 0;
}

const numbersCount = 20_000;

for (const type of ['double precision', 'real']) {
  test(`${type}: the bits go in, the text of the server comes back`, async () => {
    const { fromAvro, toAvro } = conversionOf(type);
    const round = type === 'real' ? Math.fround : Number;
    const numbers = Array.from({ length: numbersCount }, () => round(randomDouble()));
    const texts = await column(
      `SELECT x::text FROM unnest($1::${type}[]) WITH ORDINALITY AS t (x, n) ORDER BY n`,
      [`{${numbers.map((x) => (Object.is(x, -0) ? '-0' : String(x))).join(',')}}`],
    );
    assert.is(texts.length, numbersCount);
    texts.forEach((text, at) => {
      assert.ok(Object.is(toAvro(text), numbers[at]), `${text} is not ${numbers[at]}`);
      assert.is(fromAvro(numbers[at]), text);
    });
  });
}

/** SQL that makes one random or extreme value as text. */
const expressions: readonly (readonly [string, string])[] = [
  ['date', `('4713-01-01 BC'::date + (random() * 2147483000)::int)::text`],
  ['date', `('1970-01-01'::date + (n - 1000)::int)::text`],
  [
    'timestamp without time zone',
    `(to_timestamp(2e11 * (random() - 0.5)) AT TIME ZONE 'UTC')::text`,
  ],
  ['timestamp(3) without time zone', `now()::timestamp(3)::text`],
  ['timestamp with time zone', `to_timestamp(9.2e12 * random())::text`],
  ['timestamp with time zone', `to_timestamp(1.8e10 * (random() - 0.5))::text`],
  ['timestamp with time zone', `('4713-01-01 BC'::timestamptz + n * '1 day 1 us'::interval)::text`],
  ['bigint', `(9.2e18 * 2 * (random() - 0.5))::bigint::text`],
  ['integer', `(4e9 * (random() - 0.5))::int::text`],
  ['oid', `(4294967295 - n)::oid::text`],
  ['bytea', `decode(md5(random()::text), 'hex')::text`],
  ['uuid', `gen_random_uuid()::text`],
  ['boolean', `random() < 0.5`],
];

for (const [type, expression] of expressions) {
  test(`${type} from ${expression}`, async () => {
    const { fromAvro, toAvro } = conversionOf(type);
    const texts = await column(`SELECT ${expression} FROM generate_series(1, 5000) AS n`);
    for (const text of texts) assert.is(fromAvro(toAvro(text)), text);
  });
}

test('microseconds are those of the server', async () => {
  const { toAvro } = conversionOf('timestamp without time zone');
  const { rows } = await client.query<{ text: string; micros: string }>(
    `SELECT ts::text AS text, (extract(epoch FROM ts) * 1000000)::bigint AS micros
     FROM generate_series('4713-01-01 BC'::timestamp, '290000-01-01', '3 years 1 day 1 us') AS ts`,
  );
  assert.ok(rows.length > 90_000);
  for (const { text, micros } of rows) assert.is(BigInt(toAvro(text) as bigint), BigInt(micros));
});

test('the settings of a session override those of the database', async () => {
  const database = (await column('SELECT current_database()'))[0] ?? '';
  await client.query(`ALTER DATABASE ${database} SET default_transaction_read_only = on`);
  await client.query(`ALTER DATABASE ${database} SET search_path = public`);
  const session = await connectPostgres(`${url}?options=-c%20DateStyle%3DGerman`, {
    applicationName: 'understudy x',
  });
  try {
    for (const [name, wanted] of Object.entries(sessionSettings)) {
      const { rows } = await session.query<{ value: string }>(
        `SELECT setting AS value FROM pg_settings WHERE name = $1`,
        [name],
      );
      const value = rows[0]?.value ?? '';
      assert.is(name === 'DateStyle' ? value.split(',')[0] : value.replaceAll('"', ''), wanted);
    }
    const { rows } = await session.query(`SELECT true AS a, 1.50::numeric AS b, '{1}'::int[] AS c`);
    assert.equal({ ...rows[0] }, { a: 't', b: '1.50', c: '{1}' });
  } finally {
    await session.end();
    await client.query(`ALTER DATABASE ${database} RESET ALL`);
  }
});

test('a lost connection is reported once, and only when it was not closed on purpose', async () => {
  const lost: string[] = [];
  const session = await connectPostgres(url, { applicationName: 'understudy lost' });
  const seen = new Promise<void>((resolve) => {
    onLost(session, (error) => {
      lost.push(error.code);
      resolve();
    });
  });
  const [pid] = (await session.query('SELECT pg_backend_pid() AS pid')).rows;
  await client.query('SELECT pg_terminate_backend($1)', [pid?.pid]);
  await seen;
  const late = await new Promise<UnderstudyError>((resolve) => onLost(session, resolve));
  assert.equal([...lost, late.code], ['POSTGRES_UNREACHABLE', 'POSTGRES_UNREACHABLE']);

  const ended = await connectPostgres(url, { applicationName: 'understudy ended' });
  onLost(ended, () => lost.push('after our own end'));
  await ended.end();
  assert.is(lost.length, 1);
});

test('a missing database is named with the SQL that creates it', async () => {
  const missing = url.replace(/[^/]*$/, 'no_such');
  try {
    await connectPostgres(missing, { applicationName: 'understudy x' });
    assert.unreachable();
  } catch (error) {
    assert.match(String(error), /database "no_such" does not exist/);
    assert.is((error as UnderstudyError).hint, 'Create the database: `CREATE DATABASE "no_such";`');
  }
});

test('a transaction is committed, or its error is thrown', async () => {
  await client.query('CREATE TABLE public.tx (id int PRIMARY KEY)');
  await inTransaction(client, () => client.query('INSERT INTO public.tx VALUES (1)'));
  const failing = inTransaction(client, () =>
    client.query('INSERT INTO public.tx VALUES (2), (1)'),
  );
  assert.is(await failing.catch((error) => error.code), '23505');
  const swallowed = inTransaction(client, () =>
    client.query('INSERT INTO public.tx VALUES (1)').catch(() => undefined),
  );
  assert.is(await swallowed.catch((error) => error.code), 'BUG');
  assert.equal(await column('SELECT id FROM public.tx'), ['1']);
  await client.query('DROP TABLE public.tx');
});

const tables = `
  CREATE SCHEMA "My ""shop""";
  CREATE TYPE public.mood AS ENUM ('good');
  CREATE TABLE public.good (b numeric(10,2), a public.mood, t timestamptz(3), PRIMARY KEY (a, b));
  ALTER TABLE public.good DROP COLUMN t, ADD COLUMN c text[] NOT NULL DEFAULT '{}';
  CREATE TABLE public.full_key (id int PRIMARY KEY);
  ALTER TABLE public.full_key REPLICA IDENTITY FULL;
  CREATE TABLE public.by_index (x int NOT NULL, y int NOT NULL, z int);
  CREATE UNIQUE INDEX by_index_i ON public.by_index (y, x) INCLUDE (z);
  ALTER TABLE public.by_index REPLICA IDENTITY USING INDEX by_index_i;
  CREATE TABLE public.root (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
  CREATE TABLE "My ""shop""".leaf PARTITION OF public.root
    FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
  CREATE UNLOGGED TABLE public.scratch (a int);
  CREATE TEMPORARY TABLE temp (a int);
  CREATE TABLE "My ""shop"""."Keyless" (a int, "id" text);
  CREATE TABLE public.no_id (a int);
  CREATE TABLE public.nullable (a int, b int UNIQUE, "Ä" int UNIQUE NOT NULL);
  CREATE TABLE public.nullable_only (a int UNIQUE);
  CREATE TABLE public.deferrable (id int PRIMARY KEY DEFERRABLE);
  CREATE TABLE public.nothing (id int PRIMARY KEY);
  ALTER TABLE public.nothing REPLICA IDENTITY NOTHING;
  CREATE TABLE public.deferrable_nothing (id int PRIMARY KEY DEFERRABLE);
  ALTER TABLE public.deferrable_nothing REPLICA IDENTITY NOTHING;
  CREATE TABLE public.full_only (a int);
  ALTER TABLE public.full_only REPLICA IDENTITY FULL;
  CREATE TABLE public.generated (a int, g int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY);
  CREATE TABLE public.partial (a int NOT NULL);
  CREATE UNIQUE INDEX ON public.partial (a) WHERE a > 0;
  CREATE VIEW public.view AS SELECT 1;`;

async function read(...patterns: string[]): Promise<Map<string, TableShape>> {
  const found = await readTables(client, patterns);
  return new Map(found.map((table) => [`${table.schema}.${table.name}`, table]));
}

test('tables are read as they are, with the identity that Postgres uses', async () => {
  await client.query(tables);
  const all = await read('*.*');
  assert.not.ok([...all.keys()].some((name) => name.includes('temp') || name.includes('view')));
  const good = all.get('public.good');
  assert.equal(
    good?.columns.map(({ attnum, name, type, notNull }) => ({ attnum, name, type, notNull })),
    [
      { attnum: 1, name: 'b', type: 'numeric(10,2)', notNull: true },
      { attnum: 2, name: 'a', type: 'public.mood', notNull: true },
      { attnum: 4, name: 'c', type: 'text[]', notNull: true },
    ],
  );
  assert.equal(good?.identityAttnums, [2, 1]);
  assert.equal(all.get('public.by_index')?.identityAttnums, [2, 1]);
  assert.equal(all.get('public.full_key')?.identityAttnums, [1]);
  assert.is(all.get('public.scratch')?.persistence, 'unlogged');
  const leaf = all.get('My "shop".leaf');
  assert.is(leaf?.parentOid, all.get('public.root')?.oid);
  assert.is(all.get('public.root')?.kind, 'partitioned');
  for (const table of all.values()) {
    if (table.replicaIdentity === 'full') continue;
    const [attnums] = await column(
      `SELECT (x.indkey::int2[])[0:x.indnkeyatts - 1]
       FROM pg_index x WHERE x.indexrelid = pg_get_replica_identity_index($1)`,
      [table.oid],
    );
    const own = table.identityAttnums === null ? undefined : `{${table.identityAttnums.join(',')}}`;
    assert.is(own, attnums, table.name);
  }
});

test('a partition is read with its root, under its own name', async () => {
  assert.ok((await read('public.*')).has('My "shop".leaf'));
  assert.equal([...(await read('My "shop".leaf')).keys()], ['My "shop".leaf']);
  assert.is((await read('nowhere.*')).size, 0);
});

test('the SQL of every hint solves its problem', async () => {
  const problems = [...(await read('*.*')).values()].flatMap((table) => problemsOf(table));
  assert.equal(problems.map((problem) => problem.code).sort(), [
    'DEFERRABLE_IDENTITY',
    'FULL_WITHOUT_PRIMARY_KEY',
    'GENERATED_IDENTITY',
    'IDENTITY_NOTHING',
    'IDENTITY_NOTHING',
    'NO_IDENTITY',
    'NO_IDENTITY',
    'NO_IDENTITY',
    'NO_IDENTITY',
    'NO_IDENTITY',
  ]);
  for (const { hint } of problems) {
    for (const command of commandsIn(hint)) await client.query(command);
  }
  const left = [...(await read('*.*')).values()].flatMap((table) => problemsOf(table));
  assert.equal(left, []);
});

test('sequences are found with the columns that use them, and with their values', async () => {
  await client.query(`
    CREATE SEQUENCE public."Shared" INCREMENT 5 MINVALUE -10 START 7 CACHE 3;
    CREATE TABLE public.seq (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      other text DEFAULT 'n' || nextval('public."Shared"'));
    CREATE DOMAIN public.small AS smallint; CREATE DOMAIN public.smaller AS public.small;
    CREATE TABLE public.uses (more public.smaller DEFAULT nextval('public."Shared"'));
    CREATE SEQUENCE public.unrelated CYCLE; CREATE TEMPORARY SEQUENCE passing`);
  await client.query('INSERT INTO public.seq DEFAULT VALUES');
  const found = (await readSequences(client)).filter(({ schema, name }) => {
    return schema === 'public' && ['Shared', 'seq_id_seq', 'unrelated', 'passing'].includes(name);
  });
  const max = 9223372036854775807n;
  const common = { schema: 'public', increment: 1n, cache: 1n, min: 1n, max, cycles: false };
  const allowed = { mayRead: true, maySet: true };
  const column = { schema: 'public', isPartitioned: false };
  assert.equal(
    found.map(({ oid: _, owner: __, ...rest }) => rest),
    [
      {
        ...{ ...common, ...allowed, name: 'Shared', increment: 5n, cache: 3n, min: -10n },
        columns: [
          { ...column, table: 'seq', column: 'other', max: null },
          { ...column, table: 'uses', column: 'more', max: 32_767n },
        ],
      },
      {
        ...{ ...common, ...allowed, name: 'seq_id_seq' },
        columns: [{ ...column, table: 'seq', column: 'id', max }],
      },
      { ...common, ...allowed, name: 'unrelated', cycles: true, columns: [] },
    ],
  );
  const values = new Map(
    (await readSequenceValues(client)).map(({ name, lastValue }) => [name, lastValue]),
  );
  assert.equal(
    ['Shared', 'seq_id_seq', 'unrelated', 'passing'].map((name) => values.get(name)),
    // A session has taken as many as it caches.
    [17n, 1n, null, undefined],
  );
  await client.query(`ALTER SEQUENCE public.unrelated RESTART WITH 70`);
  const unrelated = found.filter(({ name }) => name === 'unrelated');
  const [oid = 0] = unrelated.map((sequence) => sequence.oid);
  assert.is((await readFirstValues(client, unrelated)).get(oid), 70n);
});

test('the facts of the server are read', async () => {
  const facts = await readServer(client);
  assert.match(facts.systemId, /^[0-9]{15,}$/);
  assert.is(facts.timeline, 1);
  assert.ok(facts.version >= 150_000 && facts.maxSlots > 0);
  const { walLevel, inRecovery, isSuperuser, canReplicate, canSetReplicaRole } = facts;
  assert.equal(
    { walLevel, inRecovery, isSuperuser, canReplicate, canSetReplicaRole },
    {
      walLevel: 'logical',
      inRecovery: false,
      isSuperuser: true,
      canReplicate: true,
      canSetReplicaRole: true,
    },
  );
});

test('relations are kept with the ids of dropped columns', async () => {
  const node = { cluster: 'shop', name: 'a', streamId: 's', role: 'leader', epoch: 1 } as const;
  await installUnderstudySchema(client, { ...node, startNumber: 0n });
  const table = (await read('public.good')).get('public.good') as TableShape;
  const used = new Set<string>();
  const ids = { relation: 'public.good', columns: assignColumnIds(table.columns, used) };
  const shape = shapeOf(table, ids);
  await saveRelations(client, [{ shape, table }]);
  const [known] = await loadKnownRelations(client);
  assert.equal(known?.shape, shape);
  assert.is(known?.tableOid, table.oid);
  assert.equal([...(known?.attnums ?? [])].sort(), [
    ['a', 2],
    ['b', 1],
    ['c', 4],
  ]);
  assert.is(compareWithTable(shape, table), null);

  const columns = shape.columns
    .filter((kept) => kept.id !== 'c')
    .map((kept) => ({ ...kept, name: `${kept.name}2`, missing: kept.id === 'b' ? '1.50' : null }));
  const dropped = { ...shape, columns, dropped: true };
  await saveRelations(client, [{ shape: dropped, table: null }]);
  const [again] = await loadKnownRelations(client);
  assert.equal(again?.shape, dropped);
  assert.is(again?.tableOid, null);
  assert.equal([...(again?.usedColumnIds ?? [])].sort(), ['a', 'b', 'c']);
});

test.run();
