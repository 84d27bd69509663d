/**
 * Databases of other encodings: what both can write arrives letter by letter, in values, keys and
 * names; what a follower's encoding does not have stops it; SQL_ASCII, where nobody knows what a
 * byte means, is refused.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ExactReader } from '../support/exact-rows.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
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

const isFull = process.env['UNDERSTUDY_TEST_FULL'] === '1';

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

test('a letter that the follower’s encoding does not have stops it', async () => {
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

test('SQL_ASCII is refused', async () => {
  const fleet = await fleetOf('SQL_ASCII', 'UTF8');
  for (const verb of ['check', 'init']) {
    const { code, json } = await fleet.cli(verb);
    assert.is(code, 4);
    assert.match(JSON.stringify(json), /SQL_ASCII/);
  }
});

test.run();
