/**
 * The remedies of `understudy check`: each is followed as printed, and then the finding is gone.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  checked,
  soundFleet as newFleet,
  nodesAt,
  onBoth,
  only,
  orders,
  query,
} from '../support/checked.ts';
import type { Fleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';
import { ownServer, type Stack, useStack } from '../support/stack.ts';

interface Context {
  stack: Stack;
}

const check = suite<Context>('remedies of check');
const fleets: Fleet[] = [];

check.before(async (context) => {
  context.stack = await useStack({ postgres: 2 });
});

check.after(async ({ stack }) => {
  for (const fleet of fleets) await fleet.abandon();
  await stack.close();
});

const soundFleet = (stack: Stack): Promise<Fleet> => newFleet(stack, fleets);

check('a wrong password is a finding without the password', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const wrong = new URL(fleet.url('b'));
  wrong.password = 'wr0ngs3cret';
  const answer = await checked(fleet, nodesAt(fleet.url('a'), wrong.href));
  assert.is(answer.exit, 2);
  assert.match(only(answer).message, /password authentication failed/);
  assert.match(only(answer).hint, /^Correct the password in the URL/);
  assert.not.match(answer.output, 'wr0ngs3cret');
  const role = stack.uniqueName('role');
  wrong.username = role;
  await query(fleet.url('b'), `CREATE ROLE ${role} SUPERUSER LOGIN PASSWORD 'another'`);
  try {
    const { hint } = only(await checked(fleet, nodesAt(fleet.url('a'), wrong.href)));
    const fill = { password: 'wr0ngs3cret' };
    await followHint(fleet, 'connectHint: ALTER ROLE', hint, { on: ['b'], fill });
    assert.is((await checked(fleet, nodesAt(fleet.url('a'), wrong.href))).exit, 0);
  } finally {
    await query(fleet.url('b'), `DROP ROLE ${role}`);
  }
});

check('a database that is missing is named with the statement that creates it', async (context) => {
  const { stack } = context;
  const fleet = await soundFleet(stack);
  const other = new URL(fleet.url('b'));
  const name = stack.uniqueName('absent');
  other.pathname = `/${name}`;
  const answer = await checked(fleet, nodesAt(fleet.url('a'), other.href));
  assert.is(answer.exit, 2);
  await followHint(fleet, 'connectHint: DATABASE', only(answer).hint, { on: ['b'] });
  try {
    assert.is((await checked(fleet, nodesAt(fleet.url('a'), other.href))).exit, 0);
  } finally {
    await query(fleet.url('b'), `DROP DATABASE ${name}`);
  }
});

check('an encoding that cannot be, and a schema of that name, are corrected', async (context) => {
  const { stack } = context;
  const fleet = await soundFleet(stack);
  const [narrow, wide] = [stack.uniqueName('narrow'), stack.uniqueName('wide')];
  const at = (name: string): Record<string, unknown> => {
    const other = new URL(fleet.url('b'));
    other.pathname = `/${name}`;
    return nodesAt(fleet.url('a'), other.href);
  };
  const create = `CREATE DATABASE ${narrow} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`;
  await query(fleet.url('b'), `${create} ENCODING 'SQL_ASCII'`);
  try {
    const { hint } = only(await checked(fleet, at(narrow)));
    const fill = { database: wide };
    await followHint(fleet, 'newDatabase: ENCODING', hint, { on: ['b'], fill });
    assert.is((await checked(fleet, at(wide))).exit, 0);
  } finally {
    for (const name of [narrow, wide]) {
      await query(fleet.url('b'), `DROP DATABASE IF EXISTS ${name}`);
    }
  }
  await query(fleet.url('b'), 'CREATE SCHEMA understudy');
  const { hint } = only(await checked(fleet));
  await followHint(fleet, 'foreignUnderstudySchema', hint, { on: ['b'], fill: { name: 'ours' } });
  assert.equal((await checked(fleet)).findings, []);
});

check('settings of a server are named with statements that correct them', async ({ stack }) => {
  const { server, close } = await ownServer();
  try {
    await query(server.url(), orders);
    await server.configure({
      wal_level: 'replica',
      max_slot_wal_keep_size: '-1',
      max_prepared_transactions: '2',
    });
    await server.stop();
    await server.start();
    const fleet = await soundFleet(stack);
    const answerNow = () => checked(fleet, nodesAt(fleet.url('a'), server.url()));
    const answer = await answerNow();
    assert.is(answer.exit, 4);
    assert.match(only(answer).message, /^wal_level of node b is replica/);
    const operator = { on: ['b'], urls: { b: server.url() } } as const;
    await followHint(fleet, 'judgeServer', only(answer).hint, operator);
    await server.stop();
    await server.start();
    for (const name of ['one', 'two']) {
      const change = `INSERT INTO orders VALUES (${name.length + name.charCodeAt(0)})`;
      await query(server.url(), 'BEGIN', change, `PREPARE TRANSACTION '${name}'`);
    }
    const { findings } = await answerNow();
    const [unlimited, prepared, ...more] = findings;
    assert.equal(
      findings.map(({ code }) => code),
      ['SLOT_UNLIMITED', 'PREPARED_TRANSACTIONS'],
    );
    assert.equal(more, []);
    for (const marker of ['afterReload: ALTER SYSTEM', 'afterReload: pg_reload_conf']) {
      await followHint(fleet, marker, unlimited?.hint ?? '', operator);
    }
    for (const [marker, name] of [
      ['judgePreparedTransactions: COMMIT', 'one'],
      ['judgePreparedTransactions: ROLLBACK', 'two'],
    ] as const) {
      await followHint(fleet, marker, prepared?.hint ?? '', { ...operator, fill: { name } });
    }
    await query(server.url(), 'TRUNCATE orders');
    assert.equal((await answerNow()).findings, []);
  } finally {
    await close();
  }
});

check(
  'a role without rights gets a finding for each right, with the SQL that grants it',
  async ({ stack }) => {
    const fleet = await soundFleet(stack);
    const b = fleet.url('b');
    const role = stack.uniqueName('role');
    const owner = stack.uniqueName('owner');
    const url = new URL(b);
    [url.username, url.password] = [role, 'pw'];
    const answerNow = () => checked(fleet, nodesAt(fleet.url('a'), url.href));
    await query(b, `CREATE ROLE ${role} LOGIN PASSWORD 'pw'`, `CREATE ROLE ${owner}`);
    await query(b, `ALTER TABLE orders OWNER TO ${owner}`);
    await query(
      b,
      'ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
      'CREATE SCHEMA closed',
      'CREATE SEQUENCE closed.numbers',
    );
    try {
      const { exit, findings } = await answerNow();
      assert.is(exit, 4);
      const [superuser, ...others] = findings.map(({ hint }) => hint);
      const follow = (marker: string, hint = ''): Promise<unknown> => {
        return followHint(fleet, marker, hint, { on: ['b'], fill: { schema: 'closed' } });
      };
      await follow('judgePermissions: REPLICATION', others[0]);
      await follow('judgePermissions: PARAMETER', others[1]);
      await follow('judgePermissions: CREATE ON DATABASE', others[2]);
      await follow('judgePermissions: OWNER TO', others[3]);
      await follow('judgePermissions: pg_read_all_stats', others[4]);
      await follow('judgePermissions: GRANT', others[5]);
      await follow('judgePermissions: BYPASSRLS', others[6]);
      await follow('judgeSequences: ALL SEQUENCES', others[7]);
      await follow('judgeSequences: USAGE', others[7]);
      assert.is(others.length, 8);
      const left = await answerNow();
      assert.equal(
        left.findings.map(({ hint }) => hint),
        [superuser],
      );
      await follow('judgePermissions: SUPERUSER', superuser);
      assert.is((await answerNow()).exit, 0);
    } finally {
      await query(
        b,
        `REASSIGN OWNED BY ${role}, ${owner} TO CURRENT_USER`,
        `DROP OWNED BY ${role}, ${owner}`,
        `DROP ROLE ${role}, ${owner}`,
      );
    }
  },
);

check('a table without identity is named with the SQL that gives it one', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  await onBoth(fleet, 'CREATE TABLE log (line varchar(80))');
  const answer = await checked(fleet);
  assert.is(answer.exit, 4);
  assert.is(only(answer).object, 'public.log');
  const { hint } = only(answer);
  assert.match(hint, /^`ALTER TABLE "public"."log" ADD COLUMN/);
  assert.equal(
    only(answer).sql.map(({ node, caution }) => [node, caution]),
    fleet.nodes.map((node) => [node, null]),
  );
  await followHint(fleet, 'hintOf', hint, { on: fleet.nodes });
  assert.is((await checked(fleet)).exit, 0);
});

check('partitioned tables get a key on their root, whatever they lack', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  for (const [name, columns, more] of [
    ['plain', 'region int, body text', ''],
    ['with_id', 'id int, region int', ''],
    ['with_unique', 'region int, n int', 'CREATE UNIQUE INDEX ON with_unique (region, n)'],
    [
      'no_default',
      'region int NOT NULL, n int NOT NULL',
      'ALTER TABLE no_default REPLICA IDENTITY FULL',
    ],
    ['later', 'region int, n int, PRIMARY KEY (region, n) DEFERRABLE', ''],
  ]) {
    const create = `CREATE TABLE ${name} (${columns}) PARTITION BY LIST (region)`;
    const part = `CREATE TABLE ${name}_one PARTITION OF ${name} FOR VALUES IN (1)`;
    await onBoth(fleet, create, part, ...(more === '' ? [] : [String(more)]));
  }
  const answer = await checked(fleet);
  assert.is(answer.exit, 4);
  // Those of partitions repeat what is done above them.
  const roots = answer.findings.filter(({ object }) => !object.endsWith('_one'));
  assert.equal(
    roots.map(({ object }) => object),
    ['later', 'no_default', 'plain', 'with_id', 'with_unique'].map((name) => `public.${name}`),
  );
  const follow = async (findings: readonly { hint: string }[]): Promise<void> => {
    for (const { hint } of findings) {
      await followHint(fleet, 'hintOf', hint, { on: fleet.nodes });
    }
  };
  await follow(roots);
  // Where the root could not get a primary key, a partition chooses the index of its new one.
  await follow((await checked(fleet)).findings);
  assert.equal((await checked(fleet)).findings, []);
  await onBoth(fleet, 'CREATE TABLE by_ten (n int) PARTITION BY RANGE ((n % 10))');
  assert.match(only(await checked(fleet)).hint, /No statement gives it a primary key as it is/);
});

check(
  'a table that a follower lacks, or has otherwise, is named with the node',
  async ({ stack }) => {
    const fleet = await soundFleet(stack);
    const b = fleet.url('b');
    await query(b, 'ALTER TABLE orders ALTER total TYPE float8');
    const differs = await checked(fleet);
    assert.is(differs.exit, 4);
    assert.match(only(differs).message, /node b .*total is double precision instead of numeric/);
    await query(b, 'DROP TABLE orders');
    // Where it has none of them, init creates them, unless ddl is manual.
    assert.is((await checked(fleet, { ddl: 'manual' })).exit, 4);
    await onBoth(fleet, 'CREATE TABLE kept (id int PRIMARY KEY)');
    const lacks = await checked(fleet);
    assert.is(lacks.exit, 4);
    assert.is(only(lacks).message, 'node b lacks the table public.orders');
    await followHint(fleet, 'copyTables', only(lacks).hint, { on: ['b'] });
    assert.is((await checked(fleet)).exit, 0);
  },
);

check('what may fail later is a warning, with exit code 0', async ({ stack }) => {
  const fleet = await soundFleet(stack);
  const b = fleet.url('b');
  const statements = [
    'CREATE TABLE notes (id int PRIMARY KEY, body text)',
    'CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY)',
  ];
  await onBoth(fleet, ...statements);
  await query(
    b,
    `CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'`,
    'CREATE TRIGGER stamp BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stamp()',
    'ALTER TABLE orders ENABLE ALWAYS TRIGGER stamp',
    'ALTER TABLE notes ALTER body SET NOT NULL',
  );
  const { exit, findings } = await checked(fleet);
  assert.is(exit, 0);
  assert.equal(
    findings.map(({ code, object }) => `${code} ${object}`),
    [
      'TABLE_UNLOGGED public.scratch',
      'NOT_NULL_DIFFERS node b: public.notes',
      'TRIGGER_HELD node b: public.orders',
    ],
  );
  const hintOf = (wanted: string): string => {
    return findings.find(({ code }) => code === wanted)?.hint ?? '';
  };
  await followHint(fleet, 'judgeStorage', hintOf('TABLE_UNLOGGED'), { on: fleet.nodes });
  await followHint(fleet, 'judgeNullability', hintOf('NOT_NULL_DIFFERS'), { on: ['b'] });
  await followHint(fleet, 'judgeTriggers', hintOf('TRIGGER_HELD'), { on: ['b'] });
  assert.equal((await checked(fleet)).findings, []);
  await query(b, 'ALTER TABLE notes SET UNLOGGED');
  await followHint(fleet, 'judgeCopy', only(await checked(fleet)).hint, { on: ['b'] });
  assert.equal((await checked(fleet)).findings, []);
});

check.run();
