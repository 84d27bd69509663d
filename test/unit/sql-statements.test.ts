/**
 * A dump is taken apart exactly where psql would: nothing inside of a string, a comment, a name, a
 * rule or a body ends a statement, and no byte of a statement is changed.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { splitStatements } from '../../src/catalog/dump/sql-statements.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

/** Each is one statement, whatever surrounds it. */
const whole: Readonly<Record<string, string>> = {
  'a string': `COMMENT ON TABLE t IS 'a; b -- no comment /* nor this'`,
  'a string with quotes in it': `COMMENT ON TABLE t IS 'it''s; a '';'''`,
  'a backslash that is one': `COMMENT ON TABLE t IS 'C:\\'`,
  'an escape string': `COMMENT ON TABLE t IS E'a\\';b\\\\'`,
  'a name that ends in e before a string': `SELECT fe'x\\'`,
  'a quoted name': `CREATE TABLE "a;b""c;" (id int)`,
  'a quoted name with a quote in it': `CREATE TABLE "it's" (id int)`,
  'a dollar string': `CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$SELECT 1; SELECT ';$_$'$$`,
  'a dollar string with a tag': `DO $_a1$ BEGIN; $$ END; $b$ ; $_a1$`,
  'a parameter that begins no string': `CREATE FUNCTION f(int) RETURNS int RETURN $1 + $1`,
  'a dollar in a name': `CREATE TABLE a$b$ (x$y$ int DEFAULT 1)`,
  'a line comment inside': 'CREATE TABLE t ( -- the; table\n id int)',
  'a comment inside that nests': 'CREATE TABLE t (/* a; /* b; */ c; */ id int)',
  'a rule with several actions':
    'CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v)',
  'a body': `CREATE FUNCTION f() RETURNS int LANGUAGE sql
    BEGIN ATOMIC
     SELECT CASE WHEN true THEN 1 ELSE 2 END AS "end";
     SELECT 2;
    END`,
  'a body of a procedure that is replaced': `CREATE OR REPLACE PROCEDURE p()
    BEGIN ATOMIC DELETE FROM t; END`,
  'a body that reads a column called begin': `CREATE FUNCTION f() RETURNS int
    BEGIN ATOMIC SELECT t.begin FROM t; END`,
  'a routine called begin': `CREATE FUNCTION public.begin() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
  'a column called begin': 'CREATE TABLE t (begin int, "end" int)',
  'a default of a routine that ends': `CREATE FUNCTION f(i int DEFAULT (CASE WHEN true THEN 1 END))
    RETURNS int LANGUAGE sql AS 'SELECT 1;'`,
  'letters behind a number': `SELECT 1E5, 0x1F, 1e`,
  'letters that are not ASCII': 'CREATE TABLE größe (é int)',
};

for (const [name, statement] of Object.entries(whole)) {
  test(`${name} does not end its statement`, () => {
    assert.equal(splitStatements(`${statement};\nSELECT 1;\n`), [statement, 'SELECT 1']);
  });
}

test('comments before a statement are not part of it, nor is the space around', () => {
  const script = '\n-- Name: t; Type: TABLE\n/* x */\n\nCREATE TABLE t ()  \n ;;\n ; -- end';
  assert.equal(splitStatements(script), ['CREATE TABLE t ()']);
});

test('what tells psql to trust nothing in the dump is left out, but not from a string', () => {
  const body = `CREATE FUNCTION f() AS '\n\\restrict x\n'`;
  const script = `--\n\\restrict abc\n\nSELECT 1;\n${body};\n\\unrestrict abc\n`;
  assert.equal(splitStatements(script), ['SELECT 1', body]);
});

for (const [name, script] of Object.entries({
  'a command of psql': 'SELECT 1;\n\\connect other\n',
  'a restrict inside of a statement': 'SELECT 1\n\\restrict x\n;',
  'a string without an end': `SELECT 'a;`,
  'a name without an end': 'SELECT "a;',
  'a comment without an end': 'SELECT /* a; /* b */;',
  'a dollar string without an end': 'SELECT $a$ b; $$;',
  'a statement without an end': 'SELECT 1; SELECT 2',
  'a body without an end': 'CREATE FUNCTION f() BEGIN ATOMIC SELECT 1;',
  'a parenthesis without an end': 'CREATE RULE r AS DO (SELECT 1;',
})) {
  test(`${name} is refused, with its place`, () => {
    const refuse = (): unknown => splitStatements(script);
    assert.throws(refuse, (error: unknown) => {
      return error instanceof UnderstudyError && /^line \d+ of the schema dump/.test(error.message);
    });
  });
}

test('statements come out as they went in, whatever is in them and between them', () => {
  const inner = fc.string({ maxLength: 12 });
  const tag = fc.constantFrom('$$', '$a$', '$_1$');
  const piece = fc.oneof(
    fc.constantFrom('SELECT', 'begin', 'END', 'case', 'x', '1', '+', ',', ' ', '\n', '$1', "e''"),
    inner.map((text) => `'${text.replaceAll("'", "''")}'`),
    inner.map((text) => `E'${text.replace(/['\\]/g, '\\$&')}'`),
    inner.map((text) => `"${text.replaceAll('"', '""')}"`),
    fc.tuple(tag, inner).map(([quote, text]) => ` ${quote}${text.replaceAll('$', '')};${quote}`),
    inner.map((text) => `--${text.replace(/[\n\r]/g, '')};'\n`),
    inner.map((text) => `/*;'${text.replace(/[*/]/g, '')}*/`),
    inner.map((text) => `(;${text.replace(/[^a-z ]/g, '')})`),
  );
  const statement = fc.array(piece, { maxLength: 12 }).map((pieces) => `a ${pieces.join(' ')} z`);
  const between = fc.constantFrom(';', ';\n', ' ; ', ';\n-- x; y\n', '; /* ; */ ');
  const script = fc.array(fc.tuple(statement, between));
  fc.assert(
    fc.property(script, (parts) => {
      const text = parts.map(([sql, gap]) => sql + gap).join('');
      assert.equal(
        splitStatements(text),
        parts.map(([sql]) => sql),
      );
    }),
  );
});

test.run();
