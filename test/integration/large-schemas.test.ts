/**
 * Schemas of more than a thousand tables. A day of relation messages, one for each autovacuum of
 * 300 tables, leaves one shape and one codec for each table and no memory. A fleet of 1,000 tables
 * and 500 partitions asks the registry for each table once, publishes after an ANALYZE of
 * everything without asking for any, and is promoted within the bound that operations need. The
 * tests of the fleet run in order.
 */
// runs: ci, since test/integration/many-tables.test.ts counts the statements with forty tables
// time-limit: 600s
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { saveRelations } from '../../src/catalog/known-relations.ts';
import { connectPostgres } from '../../src/catalog/postgres-session.ts';
import { createPublication } from '../../src/catalog/publication.ts';
import { readTables } from '../../src/catalog/read-catalog.ts';
import { newShape } from '../../src/catalog/relation-ids.ts';
import type { TableShape } from '../../src/catalog/table.ts';
import { installUnderstudySchema } from '../../src/catalog/understudy-schema.ts';
import type { RelationShape } from '../../src/change/change.ts';
import type { Lsn } from '../../src/change/lsn.ts';
import { decodePgoutput } from '../../src/leader/stream/pgoutput-decoder.ts';
import { TransactionBuilder } from '../../src/leader/stream/transaction-builder.ts';
import { KnownTables } from '../../src/leader/tables/known-tables.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';
import { FailingRegistry } from '../support/failing-registry.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { relationFrame } from '../support/pgoutput-frames.ts';
import { type Stack, useStack } from '../support/stack.ts';

const vacuumedTables = 300;
/** An autovacuum of each every ten minutes. */
const messagesOfADay = 144;

const fleetTables = 1_000;
const partitions = 500;
const ofFleet = `
  DO $$ BEGIN FOR i IN 1..${fleetTables} LOOP
    EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', i);
  END LOOP; END $$;
  CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
  DO $$ BEGIN FOR i IN 1..${partitions} LOOP
    EXECUTE format('CREATE TABLE p%s PARTITION OF parted FOR VALUES IN (%s)', i, i);
  END LOOP; END $$`;
/** Ten seconds on an idle machine, which the machine of a test is not. */
const promotionMaxMs = 30_000;

let stack: Stack;
let registry: FailingRegistry;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  registry = await FailingRegistry.start(stack.registryUrl);
  fleet = await startFleet({
    stack,
    tablesOn: { a: ofFleet, b: ofFleet },
    registryUrl: registry.url,
  });
});

test.after(async () => {
  await fleet?.close();
  await registry?.close();
  await stack?.close();
});

function heapAfterCollection(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed;
}

function frameOf({ oid, schema, name, columns, identityAttnums }: TableShape): Buffer {
  return relationFrame(
    ...([oid, schema, name] as const),
    columns.map(({ attnum, name: column, typeOid, typeModifier }) => {
      return {
        name: column,
        isKey: identityAttnums?.includes(attnum) === true,
        typeOid,
        typeModifier,
      };
    }),
  );
}

test('a day of relation messages leaves one shape for each table, and no memory', async () => {
  const [url = ''] = await stack.createDatabases('day');
  const client = await connectPostgres(url, { applicationName: 'understudy test', replica: true });
  const node = { cluster: 'shop', name: 'a', streamId: 's', role: 'leader', epoch: 1 } as const;
  await installUnderstudySchema(client, { ...node, startNumber: 0n });
  await client.query(`CREATE SCHEMA many; DO $$ BEGIN FOR i IN 1..${vacuumedTables} LOOP
    EXECUTE format('CREATE TABLE many.t%s (id int PRIMARY KEY, v text, n numeric)', i);
    END LOOP; END $$`);
  const tables = await readTables(client, ['many.*']);
  await createPublication(client, 'many', tables);
  const used = new Set<string>();
  await saveRelations(
    client,
    tables.map((table) => ({ table, shape: newShape(table, used, 'refuse') })),
  );
  const nothing = { onEnter: () => undefined, onOutside: () => undefined };
  const known = await KnownTables.open({ client, publication: 'many', ...nothing });
  let registered = 0;
  const encoder = await RecordEncoder.open({
    ...{ topic: 't', partitions: 1, registry: { register: async () => (registered += 1) } },
  });
  const fixed = registered;
  const builder = new TransactionBuilder('s', 1, known);
  builder.build({ kind: 'begin', commitLsn: 100n as Lsn, commitTimeMicros: 5n, xid: 7 });
  const frames = tables.map((table) => ({ oid: table.oid, frame: frameOf(table) }));
  const shapes = new Set<RelationShape>();
  const vacuumAll = async (): Promise<void> => {
    for (const { oid, frame } of frames) {
      const message = decodePgoutput(frame);
      assert.ok(message.kind === 'relation');
      await known.learn(message, 100n as Lsn);
      builder.build(message);
      for (const built of builder.build({ kind: 'insert', oid, values: ['1', 'v', null] })) {
        if (built.kind !== 'change') continue;
        const { relation } = built.change;
        shapes.add(relation);
        if (!encoder.isPrepared(relation)) await encoder.prepare(relation);
      }
    }
  };
  await vacuumAll();
  const before = heapAfterCollection();
  for (let round = 1; round < messagesOfADay; round += 1) await vacuumAll();
  const grownBytes = heapAfterCollection() - before;
  assert.is(shapes.size, vacuumedTables);
  assert.is(registered - fixed, vacuumedTables);
  // A shape and a codec for each message would be a gigabyte.
  assert.ok(grownBytes < 20_000_000, `the heap has grown by ${grownBytes} bytes`);
  await client.end();
});

/** A row in every table, in one transaction. */
async function writeEverywhere(node: 'a' | 'b', id: number): Promise<void> {
  await fleet.sql(
    node,
    `DO $$ BEGIN FOR i IN 1..${fleetTables} LOOP
       EXECUTE format('INSERT INTO t%s VALUES (${id})', i);
     END LOOP; UPDATE parted SET v = '${id}'; END $$`,
  );
}

test('each table costs the registry a few requests, once', async () => {
  await fleet.startAgents();
  await fleet.sql('a', `INSERT INTO parted SELECT i FROM generate_series(1, ${partitions}) AS i`);
  await writeEverywhere('a', 1);
  await fleet.caughtUp('a', ['b'], 300_000);
  // Nothing of the first rows is left to do.
  await fleet.until('the last request to the registry', () => quiet(() => registry.requests), {
    reached: (isQuiet) => isQuiet,
  });
  const first = registry.requests;
  // The leader registers a schema, reads it back and sets the level of its subject (four), and the
  // follower reads it.
  const most = 6 * (fleetTables + partitions);
  assert.ok(first < most, `${first} requests for ${fleetTables + partitions} tables`);
  await fleet.sql('a', 'ANALYZE');
  await writeEverywhere('a', 2);
  await fleet.caughtUp('a', ['b'], 300_000);
  assert.is(registry.requests, first, 'a relation message asked the registry again');
});

/** Whether a number stays as it is for a while. */
async function quiet(count: () => number): Promise<boolean> {
  const before = count();
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  return count() === before;
}

test('a follower of these tables leads soon, and every table takes writes', async () => {
  await fleet.agent('a').kill();
  const { code, json, stderr } = await fleet.cli(
    'failover',
    'b',
    '--allow-data-loss',
    '--reason',
    'x',
  );
  assert.is(code, 0, `${JSON.stringify(json)} ${stderr}\n${fleet.logs()}`);
  assert.equal(json.lacks, []);
  const steps: { step: string; ms: number }[] = json.steps;
  const ms = steps.reduce((sum, step) => sum + step.ms, 0);
  assert.ok(ms < promotionMaxMs, JSON.stringify(steps));
  await writeEverywhere('b', 3);
  assert.is((await fleet.nodeStatus('b')).state, 'streaming');
});

test.run();
