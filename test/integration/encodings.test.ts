/**
 * Databases of other encodings: text that both can store arrives letter by letter, in values, keys
 * and names; a letter that a follower's encoding lacks stops it; SQL_ASCII, whose bytes have no
 * meaning, and encodings with two spellings of a letter are refused.
 */
// runs: ci, since test/integration/type-matrix.test.ts has UTF-8
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ExactReader } from '../support/exact-rows.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { isFull } from '../support/form.ts';
import { type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TYPE "humør" AS ENUM ('glæde', 'ærgrelse');
  CREATE TABLE "straße" ("schlüssel" text PRIMARY KEY, c char(5), t text[], j jsonb, x xml,
    v tsvector, "e é" "humør", b bytea, n name)`;

/** All that LATIN1 has beyond ASCII. */
const letters = Array.from({ length: 0x5f }, (_, i) => String.fromCodePoint(0xa1 + i)).join('');
const rows = `
  INSERT INTO "straße" VALUES
    ('${letters}', 'é', ARRAY['ü', NULL, '${letters}'], '{"ä": "ö"}', '<é>ß</é>', '''ç'':1',
     'glæde', '\\xe4c3a4', 'ñ'),
    ('a', 'abcde', '{}', '"€ is not here"', '', '', 'ærgrelse', '', '');
  UPDATE "straße" SET "schlüssel" = 'ÿ', t = '{"æ"}' WHERE "schlüssel" = '${letters}';
  INSERT INTO "straße" ("schlüssel") VALUES ('é'), ('è');
  DELETE FROM "straße" WHERE "schlüssel" = 'é'`.replace('€', 'euro');

let stack: Stack;
const fleets: Fleet[] = [];

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after(async () => {
  for (const fleet of fleets) await fleet.close();
  await stack?.close();
});

/** Of databases with these encodings; the one before is over then. */
async function fleetOf(...encodings: readonly string[]): Promise<Fleet> {
  await fleets.pop()?.close();
  const databases = encodings.map((name) => {
    return `TEMPLATE template0 ENCODING '${name}' LC_COLLATE 'C' LC_CTYPE 'C'`;
  });
  const fleet = await startFleet({ stack, databases, partitions: 2, tables, init: false });
  fleets.push(fleet);
  return fleet;
}

const pairs = [
  ['LATIN1', 'UTF8'],
  ['UTF8', 'LATIN1'],
  ['WIN1252', 'LATIN1'],
] as const;

for (const [leader, follower] of isFull ? pairs : pairs.slice(0, 1)) {
  test(`${leader} leads, ${follower} follows: the same letters`, async () => {
    const fleet = await fleetOf(leader, follower);
    const { code, json } = await fleet.cli('init');
    assert.is(code, 0, JSON.stringify(json));
    await fleet.startAgents();
    await fleet.sql('a', rows);
    await fleet.caughtUp();
    const reader = new ExactReader(fleet);
    const same = await reader.assertSame('SELECT * FROM public."straße" ORDER BY 1', leader);
    await reader.close();
    assert.equal(same.rows.map(([key]) => key).sort(), ['a', 'è', 'ÿ']);
    assert.is((await fleet.cli('verify')).code, 0);
  });
}

test('a letter that the follower’s encoding lacks stops it', async () => {
  const fleet = await fleetOf('UTF8', 'LATIN1');
  const { json } = await fleet.cli('check');
  assert.match(JSON.stringify(json), /ENCODING_DIFFERS/);
  await fleet.cli('init');
  await fleet.startAgents();
  await fleet.sql('a', `INSERT INTO "straße" ("schlüssel") VALUES ('€')`);
  assert.is(await fleet.agent('b').exitCode(), 4, fleet.logs());
  assert.match(fleet.agent('b').log, /ROW_REFUSED.*22P05/);
  assert.not(fleet.agent('a').ended);
});

for (const encodings of [
  ['SQL_ASCII', 'UTF8'],
  ['UTF8', 'EUC_JP'],
]) {
  test(`${encodings.join(' and ')} are refused`, async () => {
    const fleet = await fleetOf(...encodings);
    for (const verb of ['check', 'init']) {
      const { code, json } = await fleet.cli(verb);
      assert.is(code, 4);
      assert.match(
        JSON.stringify(json),
        /is SQL_ASCII|is EUC_JP, which writes some letters in two w/,
      );
    }
  });
}

/** Up to three bytes in a row, and the four of EUC_TW, that may be a letter. */
function* anyLetters(): Generator<Buffer> {
  for (let first = 0x80; first <= 0xff; first += 1) {
    yield Buffer.from([first]);
    for (let second = 0x21; second <= 0xff; second += 1) {
      const pair = [first, second];
      yield* [pair, [0x8f, ...pair], [0x8e, 0xa1, ...pair], [0x8e, 0xa2, ...pair]].map(Buffer.from);
    }
  }
}

const letterOf = `CREATE FUNCTION letter(bytes bytea, encoding name) RETURNS text
  LANGUAGE plpgsql AS 'BEGIN RETURN convert_from(bytes, encoding);
  EXCEPTION WHEN OTHERS THEN RETURN NULL; END'`;

/** Without UTF8, and those of which Postgres makes no UTF8. */
const encodingsQuery = `SELECT pg_encoding_to_char(i) AS encoding FROM generate_series(0, 34) AS i
  WHERE pg_encoding_to_char(i) NOT IN ('UTF8', 'SQL_ASCII', 'MULE_INTERNAL')`;

test('those are all the encodings of servers with two spellings of a letter', async () => {
  const fleet = await fleetOf('UTF8', 'UTF8');
  await fleet.sql('a', letterOf);
  const candidates = [...anyLetters()].map((bytes) => bytes.toString('hex'));
  const double = await fleet.sql<{ encoding: string }>(
    'a',
    `SELECT e.encoding FROM (${encodingsQuery}) AS e
     CROSS JOIN LATERAL (
       SELECT count(l) > count(DISTINCT l COLLATE "C") AS is_double
       FROM unnest($1::text[]) AS hex CROSS JOIN LATERAL letter(decode(hex, 'hex'), e.encoding) AS l
       WHERE length(l) = 1) AS d
     WHERE d.is_double ORDER BY 1`,
    [candidates],
  );
  assert.equal(
    double.map(({ encoding }) => encoding),
    ['EUC_JP', 'EUC_TW'],
  );
});

test.run();
