/**
 * The wire format, byte for byte: keys, values, headers, partitions and schemas of format 1. What
 * this version writes is what format-1.json holds, and what it holds is read as what was meant, for
 * ever: a topic outlives the version that wrote it. The file is never regenerated.
 */
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { FetchedRecord } from '../../src/topic/log.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { readSchemaRecord } from '../../src/topic/records/schema-record.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import {
  cases,
  commitTimeMicros,
  encodeAll,
  type GoldenCase,
  type GoldenFile,
  type GoldenRecord,
} from './format-1-cases.ts';

const golden: GoldenFile = JSON.parse(
  readFileSync(new URL('./format-1.json', import.meta.url), 'utf8'),
);
const written = await encodeAll();

const decoder = new RecordDecoder({
  schemaById: async (id) => golden.schemas[id - 1]?.schema ?? {},
});

function fetchedOf(records: readonly GoldenRecord[]): FetchedRecord[] {
  return records.map(({ partition, key, value, headers }) => ({
    partition,
    offset: 5n,
    timestampMs: 7,
    key: Buffer.from(key, 'hex'),
    value: value === null ? null : Buffer.from(value, 'hex'),
    headers: Object.fromEntries(
      Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)]),
    ),
  }));
}

async function decode(records: readonly GoldenRecord[]): Promise<readonly StreamRecord[]> {
  return decoder.decode(fetchedOf(records));
}

/** What the record means, without where it lies. */
function meaning(record: StreamRecord): unknown {
  switch (record.kind) {
    case 'row': {
      const { op, relationId, identity, was, unchanged, value, position } = record;
      const row = value === null ? null : decoder.rowValues({ ...record, value });
      return { op, relationId, identity, was, unchanged, row, position };
    }
    case 'truncate':
      return { truncated: record.relationId, position: record.position };
    case 'reread':
      return { reread: record.relationId, position: record.position };
    case 'relation':
      return { relation: record.relation, position: record.position };
    case 'point':
      return { point: record.point };
    case 'epoch':
      return { begin: record.begin };
  }
}

function meant(wanted: GoldenCase): unknown {
  if (wanted.kind === 'point') return { point: wanted.point };
  if (wanted.kind === 'epoch') return { begin: wanted.begin };
  if (isPassedOver(wanted)) return null;
  const { change, position } = wanted;
  if (change.kind === 'relation') return { relation: change.relation, position };
  if (change.kind === 'truncate') return { truncated: change.relation.id, position };
  if (change.kind === 'reread') return { reread: change.relation.id, position };
  const { op, relation, identity, was, values } = change;
  const unchanged = change.unchanged.length === 0 ? null : change.unchanged;
  const columnIds = relation.columns.map(({ id }) => id);
  const row = values === null ? null : { columnIds, values };
  return { op, relationId: relation.id, identity, was, unchanged, row, position };
}

type PassedOver = Extract<GoldenCase, { kind: 'fence' | 'schema' | 'sequence' }>;

/** Records that the decoder leaves out. */
function isPassedOver(golden: GoldenCase): golden is PassedOver {
  return ['fence', 'schema', 'sequence'].includes(golden.kind);
}

const format = suite('format 1');

format('every kind of record has its golden bytes', () => {
  assert.equal(Object.keys(golden.records), Object.keys(cases));
});

format('the schemas are registered as they were', () => {
  assert.equal(written.schemas.length, golden.schemas.length);
  for (const [i, schema] of golden.schemas.entries()) {
    assert.is(JSON.stringify(written.schemas[i]), JSON.stringify(schema), schema.subject);
  }
});

for (const [name, wanted] of Object.entries(cases)) {
  format(`${name}: is written as these bytes`, () => {
    assert.equal(written.records[name], golden.records[name]);
  });

  format(`${name}: these bytes are read as it`, async () => {
    for (const records of Object.values(golden.records[name] ?? {})) {
      const decoded = await decode(records);
      assert.is(decoded.length, isPassedOver(wanted) ? 0 : records.length);
      for (const [i, record] of decoded.entries()) {
        assert.is(record.partition, records[i]?.partition);
        assert.equal(meaning(record), meant(wanted));
        if (wanted.kind !== 'point') assert.is(record.commitTimeMicros, commitTimeMicros);
      }
    }
  });
}

format(
  'rows are in the partition of their key, schema and sequences in the first, all else in each',
  () => {
    for (const [name, wanted] of Object.entries(cases)) {
      const isRow = wanted.kind === 'change' && wanted.change.kind === 'row';
      const places = golden.records[name]?.['4']?.map(({ partition }) => partition) ?? [];
      if (isRow) assert.is(places.length, 1, name);
      else if (wanted.kind === 'schema') assert.equal(places, [0], name);
      else if (wanted.kind === 'sequence') assert.equal(places, [0, 0], name);
      else assert.equal(places, [0, 1, 2, 3], name);
    }
  },
);

format('a schema is read as what was written', () => {
  for (const records of Object.values(golden.records.schema ?? {})) {
    const { schema } = cases;
    assert.ok(schema?.kind === 'schema');
    assert.equal(readSchemaRecord(decoder.schemaParts(fetchedOf(records))), schema.record);
  }
});

format('positions of sequences are read as what was written, and no other record as one', () => {
  for (const [name, wanted] of Object.entries(cases)) {
    const sequences = wanted.kind === 'sequence' ? wanted.sequences : [];
    for (const records of Object.values(golden.records[name] ?? {})) {
      assert.equal(decoder.sequences(fetchedOf(records)), sequences, name);
    }
  }
});

format.run();
