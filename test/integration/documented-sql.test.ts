/**
 * The SQL that the pages for users name is SQL: each statement is parsed by a real server, within a
 * function that is never called. So is what hints name. A statement that the page leaves open with
 * `…` outside of quotes cannot be parsed and is left out; there are few.
 */
import pg from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { commandsOfPages } from '../support/pages.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let client: pg.Client;

test.before(async () => {
  stack = await useStack({ postgres: 1 });
  const [url = ''] = await stack.createDatabases('pages');
  client = new pg.Client({ connectionString: url });
  await client.connect();
});

test.after(async () => {
  await client.end();
  await stack.close();
});

async function parse(statement: string): Promise<string | null> {
  // A page may say behind it what it gives.
  const alone = statement.replace(/\s+--\s.*$/, '').replace(/;\s*$/, '');
  const body = `BEGIN ${alone}; END`;
  const create = `CREATE OR REPLACE FUNCTION pg_temp.never() RETURNS void LANGUAGE plpgsql AS `;
  return client.query(create + pg.escapeLiteral(body)).then(
    () => null,
    (error: Error) => error.message,
  );
}

/** A word and another: a lone word is the name of a command. */
const statement = new RegExp(
  '^(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|GRANT|REVOKE|SET|TRUNCATE|' +
    '(?:COMMIT|ROLLBACK) PREPARED) [A-Za-z_"(]',
);
const isOpen = (sql: string): boolean => /…/.test(sql.replace(/'[^']*'/g, "''"));
/** Names of statements, which say which one is meant. */
const names = /^(?:[A-Z]+ )*[A-Z]+$/;

test('a statement that a page names is SQL', async () => {
  const all = commandsOfPages(statement).filter(({ command }) => !names.test(command));
  const whole = all.filter(({ command }) => !isOpen(command));
  assert.ok(whole.length > 20, String(whole.length));
  const refused: string[] = [];
  for (const { page, command } of whole) {
    const problem = await parse(command);
    if (problem !== null) refused.push(`${page}: ${command}: ${problem}`);
  }
  assert.equal(refused, []);
  assert.is.not(await parse('ALTER TABL x'), null, 'what is no SQL is refused');
});

test.run();
