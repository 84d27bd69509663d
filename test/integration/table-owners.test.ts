/**
 * An owner of published tables, who is no superuser, wants to become one by what the follower's
 * applier runs: constraints, generated columns, indexes, domains, casts, triggers, policies, and
 * what such code leaves in the session. On node b each of them tries it, and records as whom it
 * ran. Tests run in order, on one fleet.
 */
// time-limit: 300s
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { connectTo, type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let fleet: Fleet;
let hostile = '';
let other = '';

/** On node a the functions do nothing; on node b they are replaced. */
const tables = (): string => `
  CREATE ROLE ${hostile} LOGIN PASSWORD 'pw'; CREATE ROLE ${other};
  CREATE SCHEMA spy AUTHORIZATION ${hostile};
  GRANT CREATE ON SCHEMA public TO ${hostile}, ${other};
  SET ROLE ${hostile};
  CREATE TABLE spy.seen (via text, who text, super boolean, error text);
  CREATE TABLE spy.late (n int);
  CREATE FUNCTION spy.strike(via text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
  CREATE FUNCTION spy.late() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM spy.strike(''deferred trigger''); RETURN NULL; END';
  CREATE CONSTRAINT TRIGGER late AFTER INSERT ON spy.late DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION spy.late();
  CREATE FUNCTION spy.check(via text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN RETURN spy.strike(via); END';
  CREATE FUNCTION spy.number(via text, n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN PERFORM spy.strike(via); RETURN n; END';
  CREATE FUNCTION spy.leave() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
  CREATE FUNCTION spy.fire() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM spy.strike(TG_ARGV[0]); RETURN NEW; END';
  CREATE DOMAIN spy.key AS int CHECK (spy.check('domain of a key') AND VALUE > 0);
  CREATE DOMAIN spy.word AS text CHECK (spy.check('domain'));
  CREATE TYPE spy.mood AS ENUM ('good', 'bad');
  CREATE FUNCTION spy.mood_text(spy.mood) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN PERFORM spy.strike(''cast''); RETURN ''no mood''; END';
  CREATE CAST (spy.mood AS text) WITH FUNCTION spy.mood_text(spy.mood);
  CREATE TABLE checked (id int PRIMARY KEY, v int CHECK (spy.check('constraint')));
  CREATE TABLE made (id int PRIMARY KEY, v int,
    g int GENERATED ALWAYS AS (spy.number('generated column', v)) STORED);
  CREATE TABLE indexed (id int PRIMARY KEY, v int);
  CREATE INDEX ON indexed (spy.number('index', v));
  CREATE INDEX ON indexed ((id + spy.number('constant in an index', 5)));
  CREATE TABLE partly (id int PRIMARY KEY, v int);
  CREATE INDEX ON partly (v) WHERE spy.check('index predicate') AND v > 0;
  CREATE TABLE keyed (id spy.key PRIMARY KEY, word spy.word, v int);
  CREATE TABLE moods (id int PRIMARY KEY, mood spy.mood, body text, v int);
  ALTER TABLE moods ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE fired (id int PRIMARY KEY, v int);
  CREATE TRIGGER fired BEFORE INSERT OR UPDATE ON fired FOR EACH ROW
    EXECUTE FUNCTION spy.fire('trigger');
  ALTER TABLE fired ENABLE ALWAYS TRIGGER fired;
  CREATE TABLE forced (id int PRIMARY KEY, v int CHECK (spy.check('forced row security')));
  ALTER TABLE forced ENABLE ROW LEVEL SECURITY;
  ALTER TABLE forced FORCE ROW LEVEL SECURITY;
  CREATE POLICY odd ON forced USING (v % 2 = 1 AND spy.check('policy'));
  CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
  CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
  CREATE TABLE spy.child (id int PRIMARY KEY) PARTITION BY RANGE (id);
  CREATE TABLE spy.leaf PARTITION OF spy.child FOR VALUES FROM (100) TO (200);
  CREATE INDEX ON spy.leaf ((id + spy.number('index of a partition', 5)));
  CREATE TABLE leaving (id int PRIMARY KEY, v int CHECK (spy.leave()));
  RESET ROLE;
  SET ROLE ${other};
  CREATE TABLE lists (id int PRIMARY KEY, v text[]);
  RESET ROLE;
  CREATE TABLE lists_of_superuser (id int PRIMARY KEY, v text[])`;

const published = [
  ...['checked', 'made', 'indexed', 'partly', 'keyed', 'moods', 'fired', 'forced', 'leaving'],
  ...['lists', 'lists_of_superuser'],
];

/** Each attempt in a subtransaction: what it could not do is recorded too. */
const attacks = (): string => `
  CREATE OR REPLACE FUNCTION spy.strike(via text) RETURNS boolean LANGUAGE plpgsql AS $$
  DECLARE
    attempt text;
    errors text := '';
  BEGIN
    -- A session of the test, which reads rows as a superuser.
    IF current_setting('application_name') = 'reader' THEN RETURN true; END IF;
    FOREACH attempt IN ARRAY ARRAY['RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT',
      'ALTER ROLE ${hostile} SUPERUSER'] LOOP
      BEGIN EXECUTE attempt; EXCEPTION WHEN OTHERS THEN errors := errors || SQLERRM || '; '; END;
    END LOOP;
    INSERT INTO spy.seen SELECT via, current_user, r.rolsuper, errors
    FROM pg_catalog.pg_roles r WHERE r.rolname = current_user;
    RETURN true;
  END $$;
  CREATE OR REPLACE FUNCTION spy.leave() RETURNS boolean LANGUAGE plpgsql AS $$
  DECLARE
    attempt text;
  BEGIN
    FOREACH attempt IN ARRAY ARRAY[
      'DECLARE held CURSOR WITH HOLD FOR SELECT spy.strike(''cursor'')',
      'DEALLOCATE ALL',
      'PREPARE "understudy relation" AS SELECT spy.strike(''prepared statement'')::text || $1',
      'PREPARE "understudy operators of a table" AS
         SELECT spy.strike(''prepared statement'')::text || $1',
      'SET array_nulls = off',
      'SET search_path = spy',
      'CREATE TEMPORARY TABLE pg_class AS SELECT spy.strike(''temporary table'')',
      'ALTER TABLE spy.late ENABLE ALWAYS TRIGGER late',
      'ALTER FUNCTION understudy_rows.owned_1(text[]) SECURITY INVOKER',
      'CREATE FUNCTION understudy_rows.mine() RETURNS void LANGUAGE sql AS ''SELECT''',
      'INSERT INTO spy.late VALUES (1)'] LOOP
      BEGIN
        EXECUTE attempt;
        INSERT INTO spy.seen VALUES (left(attempt, 30), current_user, false, NULL);
      EXCEPTION WHEN OTHERS THEN
        INSERT INTO spy.seen VALUES (left(attempt, 30), current_user, false, SQLERRM);
      END;
    END LOOP;
    RETURN true;
  END $$;`;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  [hostile, other] = [stack.uniqueName('hostile'), stack.uniqueName('other')];
  fleet = await startFleet({ stack, partitions: 2, tables: tables(), init: false });
  await fleet.configure({ ...fleet.config, tables: ['public.*'] });
  const { code, stdout, stderr } = await fleet.cli('init');
  assert.is(code, 0, `${stdout} ${stderr}`);
  await fleet.tamper('b', `SET ROLE ${hostile}; ${attacks()}`);
  for (const node of fleet.nodes) await fleet.sql(node, `SET application_name = 'reader'`);
  await fleet.startAgents();
});

test.after(async () => {
  for (const node of fleet?.nodes ?? []) await fleet.agent(node).kill();
  const drop = `DROP OWNED BY ${hostile}, ${other} CASCADE; DROP ROLE ${hostile}, ${other}`;
  for (const node of fleet?.nodes ?? []) await fleet.tamper(node, drop);
  await fleet?.close();
  await stack?.close();
});

interface Seen {
  readonly via: string;
  readonly who: string;
  readonly super: boolean;
  readonly error: string | null;
}

/** What ran on b since the last call. */
async function seen(): Promise<readonly Seen[]> {
  await fleet.caughtUp();
  const found = await fleet.sql<Seen>('b', 'SELECT * FROM spy.seen');
  await fleet.tamper('b', 'TRUNCATE spy.seen');
  const [role] = await fleet.sql<{ rolsuper: boolean }>(
    'b',
    'SELECT rolsuper FROM pg_roles WHERE rolname = $1',
    [hostile],
  );
  const asSuperuser = found.filter((one) => one.super);
  assert.equal(asSuperuser, [], 'nothing ran as a superuser');
  assert.is(role?.rolsuper, false, 'the owner is no superuser');
  return found;
}

async function same(): Promise<void> {
  await fleet.caughtUp();
  for (const table of published) await fleet.assertSame(table);
}

const rows = `
  INSERT INTO checked SELECT i, i FROM generate_series(1, 5) AS i;
  INSERT INTO made (id, v) SELECT i, i FROM generate_series(1, 5) AS i;
  INSERT INTO indexed SELECT i, i FROM generate_series(1, 5) AS i;
  INSERT INTO partly SELECT i, i FROM generate_series(1, 5) AS i;
  INSERT INTO keyed SELECT i, 'w', i FROM generate_series(1, 5) AS i;
  INSERT INTO moods SELECT i, 'good', repeat('b', 9000), i FROM generate_series(1, 5) AS i;
  INSERT INTO fired SELECT i, i FROM generate_series(1, 5) AS i;
  INSERT INTO forced SELECT i, i FROM generate_series(1, 5) AS i`;

test('rows that are written run the code of their table as the owner', async () => {
  await fleet.sql('a', rows);
  await fleet.caughtUp();
  for (const table of published.slice(0, 8)) {
    await fleet.sql('a', `UPDATE ${table} SET v = v + 10 WHERE id > 1`);
    await fleet.sql('a', `DELETE FROM ${table} WHERE id = 2`);
    await fleet.sql('a', `UPDATE ${table} SET id = 9 WHERE id = 3`);
  }
  await same();
  const found = await seen();
  const vias = [...new Set(found.map(({ via }) => via))].sort();
  assert.equal(vias, [
    ...['constant in an index', 'constraint', 'domain', 'domain of a key', 'forced row security'],
    ...['generated column', 'index', 'index predicate'],
  ]);
  const [forced] = found.filter(({ via }) => via === 'forced row security');
  assert.match(forced?.who ?? '', /^understudy_rows_\d+_\d+$/);
  const others = found.filter(({ via }) => via !== 'forced row security');
  assert.equal([...new Set(others.map(({ who }) => who))], [hostile]);
});

test('a restart and the tables’ TRUNCATE, DELETE and resnapshot do so too', async () => {
  await fleet.agent('b').kill();
  await fleet.startAgent('b');
  await fleet.sql('a', `TRUNCATE ${published.slice(0, 8).join(', ')}; ${rows}`);
  await fleet.caughtUp();
  const { code, stdout, stderr } = await fleet.cli('resnapshot', 'public.keyed', 'public.forced');
  assert.is(code, 0, `${stdout} ${stderr}`);
  await fleet.complete('b');
  await same();
  const found = await seen();
  assert.ok(found.some(({ via }) => via === 'domain of a key'));
});

test('what such code leaves in the session is gone before the next statement', async () => {
  await fleet.sql('a', `INSERT INTO leaving VALUES (1, 1)`);
  await fleet.caughtUp();
  await fleet.sql(
    'a',
    `BEGIN; INSERT INTO leaving VALUES (2, 2);
     INSERT INTO lists VALUES (1, '{a,NULL}');
     INSERT INTO lists_of_superuser VALUES (1, '{a,NULL}');
     COMMIT`,
  );
  // A relation record is compared with the catalog, by statements that had names.
  await fleet.sql('a', 'ALTER TABLE lists ALTER v SET STATISTICS 5; ANALYZE lists');
  await fleet.sql('a', `UPDATE lists SET v = '{b,NULL}'`);
  await same();
  const found = await seen();
  const errors = new Map(found.map(({ via, error }) => [via, error]));
  const refused = (beginning: string): string => {
    const via = [...errors.keys()].find((one) => one.startsWith(beginning)) ?? '';
    return errors.get(via) ?? '';
  };
  assert.is(errors.get('DECLARE held CURSOR WITH HOLD '), null, 'a cursor was left');
  assert.is(errors.get('SET array_nulls = off'), null, 'a setting was left');
  assert.match(refused('CREATE TEMPORARY'), /session of the replica role/);
  assert.match(refused('ALTER TABLE spy.late'), /session of the replica role/);
  assert.match(refused('ALTER FUNCTION'), /session of the replica role|permission denied/);
  assert.match(refused('CREATE FUNCTION'), /session of the replica role|permission denied/);
  assert.not.ok(found.some(({ via }) => ['cursor', 'deferred trigger'].includes(via)));
});

test('a partition that is attached on the leader is read as the attaching role', async () => {
  const url = new URL(fleet.url('a'));
  url.username = hostile;
  url.password = 'pw';
  const session = await connectTo(url.href);
  try {
    await session.query(`BEGIN; ${attacks()}`);
    await session.query(
      'ALTER TABLE parts ATTACH PARTITION spy.child FOR VALUES FROM (100) TO (200)',
    );
    const { rows: found } = await session.query('SELECT via, who, super FROM spy.seen');
    assert.ok(found.length > 0, 'its index was evaluated');
    const asSuperuser = found.filter((one) => one.super);
    assert.equal(asSuperuser, []);
  } finally {
    await session.end();
  }
});

test('an owner cannot change its functions, and what it drops is created again', async () => {
  const session = await fleet.session('b');
  await session.query(
    'SET default_transaction_read_only = off; SET session_replication_role = replica',
  );
  const functions = `SELECT oid::regprocedure AS name FROM pg_proc p
    WHERE pronamespace = 'understudy_rows'::regnamespace AND proowner::regrole::text = $1`;
  const { rows: own } = await session.query(functions, [hostile]);
  assert.ok(own.length > 0, 'there are functions of the owner');
  await session.query(`SET SESSION AUTHORIZATION ${hostile}`);
  for (const { name } of own.slice(0, 2)) {
    for (const change of ['SECURITY INVOKER', 'RESET ALL', `OWNER TO ${hostile}`]) {
      const refusal = await session.query(`ALTER FUNCTION ${name} ${change}`).then(
        () => 'done',
        (error: Error) => error.message,
      );
      assert.match(refusal, /permission denied for schema understudy_rows/);
    }
  }
  await session.query('RESET SESSION AUTHORIZATION');
  await session.query(`REASSIGN OWNED BY ${hostile} TO postgres`);
  await fleet.sql('a', 'INSERT INTO checked VALUES (70, 70)');
  await fleet.until('the agent of b has ended', () => fleet.agent('b').ended);
  const log = fleet.logs();
  assert.match(log, /another owner now/);
});

test('a deferred trigger that would fire at the commit is refused', async () => {
  await fleet.tamper(
    'b',
    `ALTER EXTENSION plpgsql ADD TABLE spy.late; ALTER TABLE spy.late OWNER TO ${other};
     ALTER TABLE spy.late ENABLE ALWAYS TRIGGER late; ALTER TABLE lists OWNER TO ${other};`,
  );
  await fleet.sql('a', `UPDATE lists SET v = '{c}'`);
  const agent = fleet.spawnAgent('b');
  assert.is(await agent.exitCode(), 4);
  assert.match(agent.log, /deferred trigger late of spy\.late would run as the agent’s super/);
  const [, statement = ''] = /psql <url> -c '(ALTER TABLE [^']+)'/.exec(agent.log) ?? [];
  await fleet.tamper('b', statement);
  await fleet.startAgent('b');
  await fleet.caughtUp();
  await fleet.assertSame('lists');
  await fleet.tamper('b', 'ALTER EXTENSION plpgsql DROP TABLE spy.late');
});

test.run();
