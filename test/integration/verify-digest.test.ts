/**
 * The digest of a table, computed by real servers: the same rows give the same number under any
 * version, encoding and default of a database, and rows that differ in any printed value do not.
 */
import type { Client } from 'pg';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres, quoteIdentifier } from '../../src/catalog/postgres-session.ts';
import { digestBuckets } from '../../src/verify/bucket-digest.ts';
import { keyDigits } from '../../src/verify/narrowing.ts';
import type { PublishedTable } from '../../src/verify/published-tables.ts';
import { digestTable } from '../../src/verify/table-digest.ts';
import { type Stack, useStack } from '../support/stack.ts';

const digests = suite('digests');
const sessions: Client[] = [];
let stack: Stack;

/** Other ways to print, over which the settings of our sessions must win. */
const otherDefaults = [
  `DateStyle = 'German'`,
  `IntervalStyle = 'iso_8601'`,
  `TimeZone = 'Asia/Tokyo'`,
  `bytea_output = 'escape'`,
  'extra_float_digits = 0',
];

/** By type; all within LATIN1. Some print spaces that a C library may or may not take for such. */
const values: Readonly<Record<string, string>> = {
  int8: `'-9223372036854775808'`,
  text: `E'\\u00e0\\u0085x\\u00a0y,"''\\\\ '`,
  'text[]': `ARRAY[NULL, 'NULL', '', 'a,b', E'\\u00a0']`,
  numeric: `'1.500'`,
  float8: `'-0'`,
  float4: `'1e-7'`,
  'char(5)': `'ab'`,
  bpchar: `'ab '`,
  '"char"': `'x'`,
  bool: `true`,
  timestamptz: `'2024-02-29 12:34:56.789012+09'`,
  timetz: `'01:00+01'`,
  date: `'infinity'`,
  interval: `'1 mon -2 days 03:04:05.6'`,
  bytea: `'\\x00ff41'`,
  json: `'{"b": 1 , "a":"\u00e9"}'`,
  jsonb: `'{"b": 1.0 , "a":"\u00e9"}'`,
  inet: `'10.0.0.1'`,
  int4range: `'[1,5]'`,
  uuid: `'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'`,
  pair: `ROW(NULL, E'\\u00e9 b')`,
  mood: `E'\\u00e9 mood'`,
  point: `'(1.5,-0)'`,
  money: `'1234.5'`,
};

/** As it came out on 15.18, 16.14, 17.10 and 18.4. Another one is another digest everywhere. */
const knownDigest = '2 2796673798429000162 -97008686995075401 523c31f21fb88d81430ee45a45a1b211';

digests.before(async () => {
  stack = await useStack({ postgres: 2 });
  for (const server of stack.postgres) {
    for (const encoding of ['UTF8', 'LATIN1']) sessions.push(await openDatabase(server, encoding));
  }
});

digests.after(async () => {
  for (const session of sessions) await session.end();
  await stack.close();
});

async function openDatabase(server: Stack['postgres'][number], encoding: string): Promise<Client> {
  const [first = ''] = await stack.createDatabases('digest');
  const name = new URL(first).pathname.slice(1);
  const admin = await connectPostgres(server.superuserUrl, { applicationName: 'test' });
  const quoted = quoteIdentifier(name);
  await admin.query(`DROP DATABASE ${quoted}`);
  await admin.query(
    `CREATE DATABASE ${quoted} TEMPLATE template0 ENCODING '${encoding}' LOCALE 'C'`,
  );
  if (encoding === 'LATIN1') {
    for (const setting of otherDefaults)
      await admin.query(`ALTER DATABASE ${quoted} SET ${setting}`);
  }
  await admin.end();
  const client = await connectPostgres(server.url(name), { applicationName: 'test' });
  await client.query('SET search_path = public');
  await client.query('CREATE TYPE pair AS (a int, b text)');
  await client.query(`CREATE TYPE mood AS ENUM (E'\\u00e9 mood', 'sad')`);
  return client;
}

function tableOf(name: string, columns: number): PublishedTable {
  const names = Array.from({ length: columns }, (_, at) => ({ id: `c${at}`, name: `c${at}` }));
  return {
    ...{ relationId: name, oid: 0, schema: 'public', name, columns: names },
    ...{ identity: ['c0'], pages: 0 },
  };
}

const options = { signal: new AbortController().signal, onRead: () => undefined };

/** Of a table that is made for it, with these columns and rows. */
async function digest(
  client: Client,
  types: readonly string[],
  ...rows: readonly (readonly string[])[]
): Promise<string> {
  const columns = types.map((type, at) => `c${at} ${type}`).join(', ');
  await client.query(`CREATE TABLE digested (${columns})`);
  for (const row of rows) await client.query(`INSERT INTO digested VALUES (${row.join(', ')})`);
  const table = tableOf('digested', types.length);
  const { sums } = await digestTable(client, table, options);
  const question = { digits: keyDigits, within: [''] };
  const [bucket] = await digestBuckets(client, table, question, options);
  await client.query('DROP TABLE digested');
  return `${rows.length} ${sums.join(' ')} ${bucket?.[0]}`;
}

digests('the same rows have the same digest on every server, in every version', async () => {
  const [types, row] = [Object.keys(values), Object.values(values)];
  for (const session of sessions) {
    const { rows } = await session.query<{ is: string }>(
      `SELECT version() || ' ' || getdatabaseencoding() AS is`,
    );
    const found = await digest(
      session,
      types,
      row,
      row.map(() => 'NULL'),
    );
    assert.is(found, knownDigest, rows[0]?.is);
  }
});

digests('a row that prints otherwise has another digest', async () => {
  const pairs: readonly (readonly [string, string, string])[] = [
    ['float8', `'0'`, `'-0'`],
    ['float8', `'0.1'`, `'0.10000000000000002'`],
    ['numeric', `'1.0'`, `'1.00'`],
    ['bpchar', `'a'`, `'a '`],
    ['json', `'{"a":1}'`, `'{"a": 1}'`],
    ['text', `''`, 'NULL'],
    ['text', `'NULL'`, 'NULL'],
    ['text', `'a'`, `'A'`],
    ['text', `E'e\\u0301'`, `E'\\u00e9'`],
    ['text[]', `'{NULL}'`, `'{"NULL"}'`],
    ['interval', `'1 day'`, `'24:00:00'`],
    ['timetz', `'00:00+00'`, `'01:00+01'`],
    ['pair', 'ROW(NULL, NULL)', 'NULL'],
    ['int4', '1', '-1'],
  ];
  const [session] = sessions;
  assert.ok(session);
  for (const [type, one, other] of pairs) {
    const both = [await digest(session, [type], [one]), await digest(session, [type], [other])];
    assert.is.not(both[0], both[1], `${type}: ${one} is not ${other}`);
  }
});

digests(
  'values do not run into one another, and rows are counted as often as they are',
  async () => {
    const [session] = sessions;
    assert.ok(session);
    const sets: readonly (readonly (readonly string[])[])[] = [
      [[`'a'`, `'b,c'`]],
      [[`'a,b'`, `'c'`]],
      [[`'a'',''b'`, `'c'`]],
      [[`'a'`, `'b'',''c'`]],
      [[`'a'`, 'NULL']],
      [['NULL', `'a'`]],
      [[`''`, `'a'`]],
      // Values that were swapped; and pairs of equal rows, which an XOR would leave out.
      [
        ['1', '2'],
        ['3', '4'],
      ],
      [
        ['1', '4'],
        ['3', '2'],
      ],
      [
        ['1', '1'],
        ['1', '1'],
      ],
      [
        ['2', '2'],
        ['2', '2'],
      ],
    ];
    const found = new Set<string>();
    for (const rows of sets) found.add(await digest(session, ['text', 'text'], ...rows));
    assert.is(found.size, sets.length);
    const [first = [], second = []] = sets[7] ?? [];
    assert.is(
      await digest(session, ['text', 'text'], first, second),
      await digest(session, ['text', 'text'], second, first),
      'in any order',
    );
  },
);

digests('tables of more columns than a function has arguments are read', async () => {
  const [session] = sessions;
  assert.ok(session);
  const types = Array.from({ length: 250 }, () => 'int4');
  const row = types.map((_, at) => String(at));
  const other = [...row.slice(0, 249), '0'];
  assert.is.not(await digest(session, types, row), await digest(session, types, other));
});

digests.run();
