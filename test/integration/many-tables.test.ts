/**
 * What a database of many tables costs: statements are counted, not timed. A relation message reads
 * the one table that it describes, an unchanged table keeps one shape and one codec however often
 * Postgres describes it, and the write guard changes many tables by one request.
 */
import type { Client } from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { saveRelations } from '../../src/catalog/known-relations.ts';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import { createPublication } from '../../src/catalog/publication.ts';
import {
  readRoot,
  readTable,
  readTableByName,
  readTables,
  readTree,
} from '../../src/catalog/read-catalog.ts';
import { newShape } from '../../src/catalog/relation-ids.ts';
import type { TableShape } from '../../src/catalog/table.ts';
import { installUnderstudySchema } from '../../src/catalog/understudy-schema.ts';
import type { Change } from '../../src/change/change.ts';
import type { Lsn } from '../../src/change/lsn.ts';
import { armGuard, disarmGuard, openTables } from '../../src/follower/write-guard.ts';
import { TransactionBuilder } from '../../src/leader/stream/transaction-builder.ts';
import { KnownTables } from '../../src/leader/tables/known-tables.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let client: Client;
let url: string;

test.before(async () => {
  stack = await useStack({ postgres: 1 });
  [url = ''] = await stack.createDatabases('many');
  client = await connectPostgres(url, { applicationName: 'understudy test', replica: true });
});

test.after(async () => {
  await client?.end();
  await stack?.close();
});

/** Texts of the statements that the session runs meanwhile. */
async function statementsOf(run: () => Promise<unknown>): Promise<string[]> {
  const texts: string[] = [];
  const query = client.query;
  client.query = ((config: { text: string } | string, ...rest: unknown[]) => {
    texts.push(typeof config === 'string' ? config : config.text);
    return Reflect.apply(query, client, [config, ...rest]);
  }) as typeof client.query;
  await run().finally(() => {
    client.query = query;
  });
  return texts;
}

function relationMessageOf({ oid, schema, name, columns, identityAttnums }: TableShape) {
  return {
    ...({ kind: 'relation', oid, schema, name, replicaIdentity: 'd' } as const),
    columns: columns.map(({ attnum, name: column, typeOid, typeModifier }) => {
      const partOfKey = identityAttnums?.includes(attnum) === true;
      return { name: column, typeOid, typeModifier, partOfKey };
    }),
  };
}

test('a relation message costs one read of one table, and leaves one shape', async () => {
  const node = { cluster: 'shop', name: 'a', streamId: 's', role: 'leader', epoch: 1 } as const;
  await installUnderstudySchema(client, { ...node, startNumber: 0n });
  await client.query('CREATE SCHEMA many');
  for (let i = 0; i < 40; i += 1) {
    await client.query(`CREATE TABLE many.t${i} (id int PRIMARY KEY, v text)`);
  }
  const tables = await readTables(client, ['many.*']);
  await createPublication(client, 'many', tables);
  const used = new Set<string>();
  const relations = tables.map((table) => ({ table, shape: newShape(table, used, 'refuse') }));
  const forOne = await statementsOf(() => saveRelations(client, relations.slice(0, 1)));
  const forAll = await statementsOf(() => saveRelations(client, relations));
  assert.is(forAll.length, forOne.length);

  const nothing = { onEnter: () => undefined, onOutside: () => undefined };
  const known = await KnownTables.open({ client, publication: 'many', ...nothing });
  let ids = 0;
  const registry = { register: async () => (ids += 1) };
  const encoder = await RecordEncoder.open({ topic: 't', partitions: 1, registry });
  const builder = new TransactionBuilder('s', 1, known);
  builder.build({ kind: 'begin', commitLsn: 100n as Lsn, commitTimeMicros: 5n, xid: 7 });
  const changes: Change[] = [];
  const stream = async (table: TableShape, id: string): Promise<void> => {
    const message = relationMessageOf(table);
    await known.learn(message, 100n as Lsn);
    builder.build(message);
    for (const built of builder.build({ kind: 'insert', oid: table.oid, values: [id, 'v'] })) {
      assert.ok(built.kind === 'change');
      changes.push(built.change);
      const { relation } = built.change;
      if (!encoder.isPrepared(relation)) await encoder.prepare(relation);
    }
  };
  const registered = ids;
  const first = await statementsOf(async () => {
    for (const table of tables) await stream(table, '1');
  });
  assert.is(first.length, tables.length, 'one statement for each relation message');
  assert.equal([...new Set(first)].length, 1);
  assert.match(first[0] ?? '', 'c.oid = $1');
  const more = await statementsOf(async () => {
    for (let i = 0; i < 500; i += 1) await stream(tables[0] as TableShape, String(i + 2));
  });
  assert.is(more.length, 500);
  assert.is(new Set(changes.map(({ relation }) => relation)).size, tables.length);
  assert.is(changes.filter(({ kind }) => kind === 'relation').length, tables.length);
  assert.is(ids - registered, tables.length, 'a codec was made for each table');
  assert.equal(await known.shapes(), [...new Set(changes.map(({ relation }) => relation))]);
});

test('the write guard of many tables is armed and lifted by few requests', async () => {
  const guarded =
    "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^understudy_guard' AND tgenabled = 'O'";
  const enabled = async (): Promise<number> => Number((await client.query(guarded)).rows[0]?.count);
  const arming = await statementsOf(() => armGuard(client));
  // Two for each table, and two for the labels of points.
  assert.is(await enabled(), 82);
  const lifting = await statementsOf(async () => assert.equal(await disarmGuard(client), []));
  assert.is(await enabled(), 0);
  // With a savepoint and statements of its own for each table they are 120 and more.
  assert.ok(arming.length < 60, `${arming.length} requests for 40 tables`);
  assert.ok(lifting.length < 60, `${lifting.length} requests for 40 tables`);
  await armGuard(client);
  const holder = await connectPostgres(url, { applicationName: 'understudy test holder' });
  await holder.query('BEGIN; LOCK TABLE many.t7 IN ROW EXCLUSIVE MODE');
  const busy = await disarmGuard(client);
  assert.equal(
    busy.map(({ table }) => table.name),
    ['t7'],
  );
  assert.is(await enabled(), 2);
  await holder.end();
  assert.equal(await openTables(client, busy), []);
  assert.is(await enabled(), 0);
});

test('a table is read with what it is a partition of', async () => {
  await client.query(`
    CREATE SCHEMA tree;
    CREATE TABLE tree.root (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE tree.mid PARTITION OF tree.root FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id);
    CREATE TABLE tree.leaf PARTITION OF tree.mid FOR VALUES FROM (0) TO (5)`);
  const all = await readTables(client, ['tree.root']);
  assert.equal(
    all.map(({ name }) => name),
    ['leaf', 'mid', 'root'],
  );
  for (const table of all) {
    assert.equal(await readTable(client, table.oid), table);
    assert.equal(await readTableByName(client, 'tree', table.name), table);
    assert.equal(await readTree(client, table.oid), all);
    assert.is((await readRoot(client, table)).name, 'root');
  }
  assert.is(await readTable(client, 1), undefined);
  assert.is(await readTableByName(client, 'tree', 'nosuch'), undefined);
});

test.run();
