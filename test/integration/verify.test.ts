/**
 * `verify` against running agents: it finds the rows that differ and nothing else, at one LSN under
 * load, shows no value unless it is asked to, and leaves nothing behind, however it ends. Tests run
 * in order, on one fleet.
 */
// time-limit: 480s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import { digestBuckets } from '../../src/verify/bucket-digest.ts';
import {
  lockTables,
  readLockedTables,
  readPublishedTables,
} from '../../src/verify/published-tables.ts';
import { digestTable } from '../../src/verify/table-digest.ts';
import { beside } from '../support/beside.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { isShort } from '../support/form.ts';
import { followHint } from '../support/hint-runner.ts';
import { type OwnServer, ownServer } from '../support/stack.ts';

/** Far more than are listed, and enough to be narrowed down in steps. */
/** More than verify lists key by key. */
const manyRows = isShort ? 60_000 : 200_000;

interface TableAnswer {
  readonly table: string;
  readonly rows: number;
  readonly leaderRows?: number;
  readonly equal: boolean;
  readonly difference?: string;
  readonly differing?: Readonly<Record<string, number | boolean>>;
  readonly keys?: readonly Readonly<Record<string, unknown>>[];
}

const verify = suite('verify');
let fleet: Fleet;
/**
 * The leader's: a transaction that is open anywhere on a server keeps `verify` from its snapshot.
 */
let own: OwnServer;

verify.before(async () => {
  own = await ownServer();
  fleet = await startFleet({
    servers: { a: own.server },
    tables: `
      CREATE TABLE "odd ""Name" (k text, "n,1" int, "a,b" text, PRIMARY KEY (k, "n,1"));
      CREATE TABLE many (id bigint PRIMARY KEY, note text, amount numeric);
      CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric)`,
  });
  await fleet.startAgents();
});

verify.after(async () => {
  await fleet.close();
  await own.close();
});

/** The answer about one table, with the exit code that belongs to it. */
async function tableOf(name: string, ...words: readonly string[]): Promise<TableAnswer> {
  const { code, json } = await fleet.cli('verify', ...words);
  const tables: readonly TableAnswer[] = json.nodes?.[0]?.tables ?? [];
  const found = tables.find(({ table }) => table === name);
  assert.ok(found, `${name} in ${JSON.stringify(json)}`);
  assert.is(code, found.equal ? 0 : 8);
  const others = tables.filter(({ table, equal }) => table !== name && !equal);
  assert.equal(others, [], 'no other table differs');
  return found;
}

async function slotsAndSessions(): Promise<readonly unknown[]> {
  return [
    ...(await fleet.sql(
      'a',
      `SELECT slot_name FROM pg_replication_slots
       WHERE slot_name LIKE 'understudy_verify%' AND database = current_database()`,
    )),
    ...(await fleet.sql(
      'a',
      `SELECT pid FROM pg_stat_activity
       WHERE application_name LIKE '%verify%' AND datname = current_database()`,
    )),
  ];
}

verify('equal rows are equal, with exit code 0', async () => {
  await fleet.sql(
    'a',
    `INSERT INTO orders VALUES (1, NULL, 1.0), (2, '', 2.50), (3, 'a,"b\\', NULL)`,
  );
  await fleet.sql('a', `INSERT INTO "odd ""Name" VALUES ('x,y', 1, '(1)'), ('NULL', 2, NULL)`);
  const { code, json, stderr } = await fleet.cli('verify');
  assert.is(code, 0, JSON.stringify(json));
  assert.match(json.lsn, /^1:[0-9A-F]+\/[0-9A-F]+$/);
  assert.is(stderr, '', 'nothing but the answer with --json');
  assert.equal(json.nodes, [
    {
      name: 'b',
      equal: true,
      tables: [
        { table: 'public.many', rows: 0, equal: true },
        { table: 'public.odd "Name', rows: 2, equal: true },
        { table: 'public.orders', rows: 3, equal: true },
      ],
    },
  ]);
});

verify('every kind of difference is found, with its keys', async () => {
  const different = (id: string) => ({ kind: 'different', key: { id } });
  const cases: readonly (readonly [string, string, readonly object[]])[] = [
    [
      "UPDATE orders SET note = '' WHERE id = 1",
      'UPDATE orders SET note = NULL WHERE id = 1',
      [different('1')],
    ],
    [
      'UPDATE orders SET total = 2.5 WHERE id = 2',
      'UPDATE orders SET total = 2.50 WHERE id = 2',
      [different('2')],
    ],
    [
      'UPDATE orders SET id = 4 WHERE id = 3',
      'UPDATE orders SET id = 3 WHERE id = 4',
      [
        { kind: 'missing', key: { id: '3' } },
        { kind: 'extra', key: { id: '4' } },
      ],
    ],
    [
      'DELETE FROM orders WHERE id = 2',
      "INSERT INTO orders VALUES (2, '', 2.50)",
      [{ kind: 'missing', key: { id: '2' } }],
    ],
    [
      "INSERT INTO orders VALUES (10, 'foreign', 1)",
      'DELETE FROM orders WHERE id = 10',
      [{ kind: 'extra', key: { id: '10' } }],
    ],
    [
      `UPDATE orders SET note = CASE id WHEN 2 THEN 'a,"b\\' ELSE '' END WHERE id IN (2, 3)`,
      `UPDATE orders SET note = CASE id WHEN 3 THEN 'a,"b\\' ELSE '' END WHERE id IN (2, 3)`,
      [different('2'), different('3')],
    ],
  ];
  for (const [change, back, keys] of cases) {
    await fleet.tamper('b', change);
    const found = await tableOf('public.orders', 'b');
    assert.is(found.difference, 'rows', change);
    assert.equal(found.keys, keys, change);
    assert.is(found.differing?.['rows'], keys.length, change);
    assert.is(found.differing?.['exact'], true, change);
    await fleet.tamper('b', back);
    assert.is((await tableOf('public.orders')).equal, true, back);
  }
});

verify('composite keys with odd characters are shown as they are', async () => {
  const odd = [`'`, `"`, ',', '\\', '{}', 'ü\u00a0x', 'line\nbreak', '', 'null', '%L', '🦆'];
  for (const [n, k] of odd.entries()) {
    await fleet.sql('a', `INSERT INTO "odd ""Name" VALUES ($1, $2, 'v')`, [k, n]);
  }
  await fleet.caughtUp();
  await fleet.tamper('b', `UPDATE "odd ""Name" SET "a,b" = 'other' WHERE "a,b" = 'v'`);
  const { keys, differing } = await tableOf('public.odd "Name');
  const shown = keys?.map(({ kind, key }) => [kind, key]) ?? [];
  for (const [n, k] of odd.entries()) {
    const key = { k, 'n,1': String(n) };
    assert.ok(
      shown.some((one) => JSON.stringify(one) === JSON.stringify(['different', key])),
      `${JSON.stringify(key)} in ${JSON.stringify(shown)}`,
    );
  }
  assert.is(differing?.['rows'], odd.length);
  await fleet.tamper('b', `UPDATE "odd ""Name" SET "a,b" = 'v' WHERE "a,b" = 'other'`);
});

verify('values are shown only with --show-rows', async () => {
  await fleet.tamper('b', `UPDATE orders SET note = 'sekret' || repeat('x', 500) WHERE id = 1`);
  await fleet.tamper('b', `INSERT INTO orders VALUES (10, 'sekret', NULL)`);
  for (const words of [['verify'], ['--json', 'verify']]) {
    const { code, stdout, stderr } = await fleet.text(...words);
    assert.is(code, 8);
    assert.not.match(stdout + stderr, 'sekret');
  }
  const { keys } = await tableOf('public.orders', '--show-rows');
  const [first, second] = keys ?? [];
  assert.equal(first?.['leader'], { id: '1', note: null, total: '1.0' });
  const shown = first?.['follower'] as Readonly<Record<string, string>>;
  assert.match(shown['note'] ?? '', /^sekretx{294}\.\.\. \(506 characters, sha256 [0-9a-f]{16}\)$/);
  assert.equal(second, {
    kind: 'extra',
    key: { id: '10' },
    leader: null,
    follower: { id: '10', note: 'sekret', total: null },
  });
  const { stdout } = await fleet.text('verify', 'b', '--show-rows');
  assert.match(stdout, /different: id = 1\n {2}COLUMN +ON a +ON b\n {2}note +NULL +sekretx+/);
  // The documented repair by hand: rows that the leader writes again, and a delete past the guard.
  await fleet.tamper('b', 'DELETE FROM orders WHERE id IN (2, 10)');
  await fleet.sql('a', 'UPDATE orders SET id = id WHERE id IN (1, 2)');
  assert.is((await tableOf('public.orders')).equal, true);
});

verify(`three rows among ${manyRows} are found, and many are counted and cut`, async () => {
  await fleet.sql(
    'a',
    `INSERT INTO many SELECT g, 'note ' || g, g / 7.0 FROM generate_series(1, ${manyRows}) AS g`,
  );
  await fleet.caughtUp();
  await fleet.tamper(
    'b',
    `UPDATE many SET note = upper(note) WHERE id = 7777;
     DELETE FROM many WHERE id = 1;
     INSERT INTO many VALUES (${manyRows + 1}, NULL, NULL)`,
  );
  const three = await tableOf('public.many');
  assert.equal([three.rows, three.leaderRows], [manyRows, manyRows]);
  assert.equal(three.differing, { rows: 3, exact: true, missing: 1, extra: 1, different: 1 });
  assert.equal(three.keys, [
    { kind: 'missing', key: { id: '1' } },
    { kind: 'different', key: { id: '7777' } },
    { kind: 'extra', key: { id: String(manyRows + 1) } },
  ]);

  await fleet.tamper('b', 'DELETE FROM many WHERE id BETWEEN 1001 AND 1500');
  const more = await tableOf('public.many', '--keys', '7');
  assert.equal(more.differing, { rows: 503, exact: true, missing: 501, extra: 1, different: 1 });
  assert.is(more.keys?.length, 7);
  const none = await tableOf('public.many', '--keys', '0');
  assert.equal([none.difference, none.keys, none.differing], ['rows', undefined, undefined]);

  await fleet.tamper('b', 'UPDATE many SET amount = -amount');
  const all = await tableOf('public.many', '--keys', '1');
  assert.is(all.differing?.['exact'], false, 'too many to be listed');
  assert.ok(Number(all.differing?.['rows']) > 3_000, JSON.stringify(all.differing));
  assert.ok(Number(all.differing?.['rows']) <= manyRows + 1, JSON.stringify(all.differing));
  await fleet.sql('a', 'TRUNCATE many');
  assert.is((await tableOf('public.many')).equal, true);
});

verify('nodes are compared at one LSN under load', async () => {
  const client = await fleet.session('a');
  const write = async (n: number): Promise<void> => {
    const id = 100 + (n % 300);
    await client.query('DELETE FROM orders WHERE id = $1', [id + 7]);
    await client.query(
      `INSERT INTO orders VALUES ($1, 'x', 1)
       ON CONFLICT (id) DO UPDATE SET total = orders.total + 1`,
      [id],
    );
  };
  const lsns = new Set<string>();
  await beside([write], async () => {
    for (let round = 0; round < 3; round += 1) {
      const { code, json } = await fleet.cli('verify');
      assert.is(code, 0, JSON.stringify(json));
      lsns.add(json.lsn);
    }
    await fleet.tamper('b', `UPDATE orders SET note = 'foreign' WHERE id = 1`);
    const { keys } = await tableOf('public.orders');
    assert.equal(keys, [{ kind: 'different', key: { id: '1' } }]);
    await fleet.tamper('b', 'UPDATE orders SET note = NULL WHERE id = 1');
  });
  assert.is(lsns.size, 3);
});

verify(
  'a transaction that blocks the snapshot is named; a stop leaves nothing behind',
  async () => {
    const blocker = await fleet.session('a');
    await blocker.query(`BEGIN; INSERT INTO orders VALUES (9000, 'open', 1)`);
    const { rows } = await blocker.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const { code, json } = await fleet.cli('verify');
    assert.is(code, 5);
    assert.match(json.error.message, `pid ${rows[0]?.pid}`);
    assert.equal(await slotsAndSessions(), []);

    const stopped = fleet.spawnCommand('verify');
    await stopped.logged(/snapshot/);
    await fleet.until('its slot', slotsAndSessions, { reached: (found) => found.length > 0 });
    assert.is(await stopped.stop('SIGINT'), 130);
    assert.equal(await slotsAndSessions(), []);
    await blocker.query('ROLLBACK');
    assert.is((await tableOf('public.orders')).equal, true, 'the follower continues');
  },
);

/** The rows take a minute on their way, and verify-digest compares the same digests. */
const inLongerForms = isShort ? undefined : verify;

inLongerForms?.('pages that are read in ranges give the same digest', async () => {
  await fleet.sql(
    'a',
    // One row a page, and more pages than one statement reads.
    `ALTER TABLE orders ALTER note SET STORAGE PLAIN;
     INSERT INTO orders SELECT g, repeat('x', 7000), g FROM generate_series(10000, 18500) g`,
  );
  const client = await connectPostgres(fleet.url('a'), { applicationName: 'test' });
  const table = (await readPublishedTables(client)).find(({ name }) => name === 'orders');
  assert.ok(table !== undefined && table.pages > 8192, String(table?.pages));
  const parts: { rows: bigint; pages: number }[] = [];
  const { signal } = new AbortController();
  const onRead = (part: { rows: bigint; pages: number }) => parts.push(part);
  const inRanges = await digestTable(client, table, { signal, onRead });
  assert.ok(parts.length > 1 && parts.every(({ rows }) => rows > 0n), String(parts));
  assert.is(
    parts.reduce((sum, { pages }) => sum + pages, 0),
    table.pages,
  );
  const atOnce = await digestTable(client, { ...table, pages: 0 }, { signal, onRead });
  assert.equal(inRanges, atOnce);
  const question = { digits: 1, within: [''] };
  const reading = { signal, onRead };
  const buckets = await digestBuckets(client, table, question, reading);
  assert.equal(buckets.size, 16);
  const whole = await digestBuckets(client, { ...table, pages: 0 }, question, reading);
  for (const [digits, bucket] of buckets) assert.equal(bucket, whole.get(digits), digits);
  await client.end();
  await fleet.caughtUp();
  await fleet.tamper('b', 'UPDATE orders SET total = 0 WHERE id IN (10000, 18500)');
  const { keys } = await tableOf('public.orders');
  const [first, last] = ['10000', '18500'].map((id) => ({ kind: 'different', key: { id } }));
  assert.equal(keys, [first, last]);
});

verify('a table that is truncated after the snapshot is refused, not compared', async () => {
  const client = await connectPostgres(fleet.url('a'), { applicationName: 'test' });
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const found = await readPublishedTables(client);
  await fleet.sql('a', 'TRUNCATE orders');
  await lockTables(client, found);
  const error: unknown = await readLockedTables(client, found).catch((reason: unknown) => reason);
  assert.match(String(error), 'public.orders was changed');
  await client.end();
});

verify('an agent that does not answer is named', async () => {
  await fleet.agent('b').stop();
  const refused = await fleet.cli('verify');
  assert.is(refused.code, 5);
  assert.is(refused.json.error.message, 'the agent of node b does not answer');
  await followHint(fleet, 'holdTimeout', refused);
  assert.is.not((await fleet.cli('verify')).code, 5);
});

verify.run();
