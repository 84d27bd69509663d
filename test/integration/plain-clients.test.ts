/**
 * Other programs can read the topic: Kafka's own consumer with Apache Avro, in Java, and the
 * registry client of npm with avsc decode every kind of record by its schema id alone, and get the
 * values that Postgres has. Nothing of src/ takes part in reading. Tests run in order: they share
 * what the first one read.
 */
import { spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SchemaRegistry, SchemaType } from '@kafkajs/confluent-schema-registry';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { javaDependencies } from '../../scripts/sandbox/java-dependencies.ts';
import { findJava } from '../../scripts/sandbox/prerequisites.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { plainOptions } from '../support/plain-avro.ts';
import { type Stack, useStack } from '../support/stack.ts';

interface Decoded {
  readonly schema: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

interface ReadRecord {
  readonly partition: number;
  readonly offset: number;
  readonly key: Decoded;
  readonly value: Decoded | null;
  readonly rawKey: string;
  readonly rawValue: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

const tables = `
  CREATE TABLE kinds (id bigint PRIMARY KEY, b boolean, i2 smallint, i4 int, i8 bigint, o oid,
    f4 real, f8 double precision, d date, ts timestamp, tz timestamptz, u uuid, bytes bytea,
    n numeric(30,3), "odd näme" text, list int[], computed int GENERATED ALWAYS AS (i2 * 2) STORED);
  CREATE TABLE gone (id int PRIMARY KEY); CREATE SEQUENCE counted`;

const program = fileURLToPath(new URL('../support/java/ReadTopic.java', import.meta.url));
const cacheDir = fileURLToPath(new URL('../../.sandbox/cache', import.meta.url));
/** A Java compiler and a consumer start on a busy machine. */
const readMaxMs = 90_000;

let stack: Stack;
let fleet: Fleet;
let records: readonly ReadRecord[] = [];

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({ stack, partitions: 3, tables });
  await fleet.startAgents();
  await writeEverything();
  await fleet.caughtUp();
  await fleet.until(
    'the position of the sequence on b',
    async () => (await fleet.sql('b', 'SELECT FROM understudy.sequences')).length === 1,
  );
  records = await readInJava();
});

test.after(async () => {
  await fleet?.close();
  await stack?.close();
});

async function writeEverything(): Promise<void> {
  await fleet.sql(
    'a',
    `INSERT INTO kinds VALUES
       (-9223372036854775808, true, 32767, -2147483648, 9007199254740993, 4294967295, '-0', 'NaN',
        'infinity', '294246-12-31 23:59:59.999999', '-infinity',
        '12345678-9abc-def0-1234-56789abcdef0', '\\x00ff5c', 'NaN',
        E'q"\\\\\\n\\u00e9', '{1,NULL}'),
       (2, false, -1, 0, -1, 0, 'Infinity', 4.9e-324, '0044-03-15 BC',
        '0044-03-15 00:00:00.000001 BC', '1969-12-31 23:59:59.999999+00',
        'ffffffff-ffff-ffff-ffff-ffffffffffff', '', 1.500, '', '[0:0]={7}');
     INSERT INTO kinds (id, i8) VALUES (3, NULL), (4, -9007199254740991)`,
  );
  await fleet.sql('a', 'UPDATE kinds SET id = 5 WHERE id = 4; DELETE FROM kinds WHERE id = 3');
  await fleet.sql('a', 'INSERT INTO gone VALUES (1)');
  await fleet.sql('a', 'TRUNCATE gone');
  await fleet.sql('a', `SELECT understudy.point('seen-by-others')`);
}

async function readInJava(): Promise<ReadRecord[]> {
  const java = await findJava(() => undefined);
  const { kafkaJars, registryJar } = await javaDependencies(cacheDir, () => undefined);
  const library = join(dirname(registryJar), 'lib');
  const avroJars = (await readdir(library)).filter((name) => name.startsWith('org.apache.avro.'));
  const classPath = [join(kafkaJars, '*'), ...avroJars.map((name) => join(library, name))].join(
    ':',
  );
  const topic = `${fleet.cluster}.changes`;
  const words = ['-cp', classPath, program, stack.brokers.join(','), topic, stack.registryUrl];
  const child = spawn(java, words, { stdio: ['ignore', 'pipe', 'pipe'], timeout: readMaxMs });
  const outputs = [child.stdout, child.stderr].map(async (stream) => {
    let text = '';
    for await (const part of stream.setEncoding('utf8')) text += part;
    return text;
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  const [out = '', log] = await Promise.all(outputs);
  assert.is(code, 0, log);
  return out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as ReadRecord);
}

/** The last value of each key: the row of that key. */
function lastRows(relation: string): Map<string, Decoded | null> {
  const rows = new Map<string, Decoded | null>();
  for (const { key, value } of records) {
    if (key.fields['kind'] !== 'row' || key.fields['relation'] !== relation) continue;
    rows.set(String(key.fields['identity']), value);
  }
  return rows;
}

test('a plain consumer with Apache Avro reads records of every kind', () => {
  const kinds = new Set(records.map(({ key }) => key.fields['kind']));
  const written = ['epoch', 'fence', 'point', 'relation', 'row', 'schema', 'sequence', 'truncate'];
  const hasSchema = fleet.config['ddl'] !== 'manual';
  const wanted = written.filter((kind) => kind !== 'schema' || hasSchema);
  assert.equal([...kinds].sort(), wanted);
  assert.equal([...new Set(records.map(({ key }) => key.schema))], ['understudy.RecordKey']);
  const values = new Set(records.map(({ value }) => value?.schema));
  for (const schema of ['EpochBegin', 'Point', 'Relation', 'Truncate', 'rows.public.kinds']) {
    assert.ok(values.has(`understudy.${schema}`), schema);
  }
  const labels = records.map(({ value }) => value?.fields['label']);
  assert.is(labels.filter((label) => label === 'seen-by-others').length, 3);
  for (const { headers } of records) assert.match(headers['position'] ?? '', /^[cudr-] \d+:/);
});

test('its rows are those of the table, to the bit', async () => {
  const rows = await fleet.sql('a', expectedRows);
  const found = lastRows('public.kinds');
  assert.equal([...found.values()].filter((value) => value === null).length, 2);
  const alive = [...found].flatMap(([identity, value]) =>
    value === null ? [] : [{ identity, value }],
  );
  alive.sort((a, b) => a.identity.localeCompare(b.identity));
  assert.equal(
    alive.map(({ identity, value }) => ({ identity, ...value.fields })),
    rows.map(({ fields }) => fields),
  );
});

/** The values as Avro has them, in SQL: nothing of our own conversions. */
const expectedRows = `
  SET TimeZone = 'UTC';
  SELECT json_build_object('identity', id::text, 'id', id::text, 'b', b, 'i2', i2, 'i4', i4,
    'i8', i8::text, 'o', o::bigint::text, 'f4', encode(float4send(f4), 'hex'),
    'f8', encode(float8send(f8), 'hex'),
    'd', CASE WHEN isfinite(d) THEN d - date '1970-01-01' WHEN d > now() THEN 2147483647 END,
    'ts', CASE WHEN isfinite(ts) THEN (extract(epoch FROM ts) * 1000000)::bigint::text END,
    'tz', CASE WHEN isfinite(tz) THEN (extract(epoch FROM tz) * 1000000)::bigint::text
      WHEN tz < now() THEN '-9223372036854775808' END,
    'u', u::text, '_x62_ytes', encode(bytes, 'hex'), 'n', n::text, 'odd_x20_n_xe4_me', "odd näme",
    'list', list::text) AS fields
  FROM kinds ORDER BY id::text COLLATE "C"`;

test('the registry’s own client reads the same from the same bytes', async () => {
  const options = { [SchemaType.AVRO]: plainOptions() as never };
  const registry = new SchemaRegistry({ host: stack.registryUrl }, options);
  for (const { rawKey, rawValue, key, value } of records) {
    assert.equal(plain(await registry.decode(Buffer.from(rawKey, 'base64'))), key.fields);
    if (rawValue === null) continue;
    const decoded = await registry.decode(Buffer.from(rawValue, 'base64'));
    assert.equal(plain(decoded), value?.fields, value?.schema);
  }
});

/** In the words of ReadTopic.java: longs as text, bytes and floats in hex. */
function plain(value: unknown, name = ''): unknown {
  if (typeof value === 'number' && (name === 'f4' || name === 'f8')) {
    const bits = Buffer.alloc(name === 'f4' ? 4 : 8);
    if (name === 'f4') bits.writeFloatBE(value);
    else bits.writeDoubleBE(value);
    return bits.toString('hex');
  }
  if (typeof value === 'bigint') return String(value);
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (Array.isArray(value)) return value.map((one) => plain(one));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one, name)]));
}

test.run();
