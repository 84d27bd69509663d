/**
 * The exports of `import 'pg-understudy'`: nothing more than is documented, and a decoder that a
 * reader of the topic can use without any other part of the package.
 */
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { RelationShape } from '../../src/change/change.ts';
import { parseLsn } from '../../src/change/lsn.ts';
import * as api from '../../src/index.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';

const relation: RelationShape = {
  id: 'public.orders',
  schema: 'public',
  name: 'orders',
  columns: [
    { id: 'id', name: 'id', type: 'bigint', nullable: false, missing: null },
    { id: 'note', name: 'note', type: 'text', nullable: true, missing: null },
  ],
  identity: ['id'],
  dropped: false,
};

test('the exports are these and no others', () => {
  assert.equal(Object.keys(api).sort(), [
    'RecordDecoder',
    'UnderstudyError',
    'compareEpochLsn',
    'comparePositions',
    'errorTable',
    'exitCodes',
    'formatEpochLsn',
    'formatLsn',
    'formatPosition',
    'isCovered',
    'parseEpochLsn',
    'parseLsn',
    'parsePosition',
    'version',
  ]);
});

test('the version is that of package.json', () => {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  assert.is(api.version, (JSON.parse(text) as { version: string }).version);
});

test('a row can be read with nothing but its schemas by id', async () => {
  const schemas: object[] = [];
  const register = async (_subject: string, schema: object): Promise<number> =>
    schemas.push(schema);
  const encoder = await RecordEncoder.open({
    topic: 'shop.changes',
    partitions: 1,
    registry: { register },
  });
  await encoder.prepare(relation);
  const position = { epoch: 3, commitLsn: parseLsn('0/16B3748'), ordinal: 17 };
  const [sent] = encoder.encode(
    {
      ...{ kind: 'row', op: 'u', relation, was: null, unchanged: [] },
      ...{ identity: ['9007199254740993'], values: ['9007199254740993', 'ä'] },
    },
    position,
    1_763_700_000_123_456n,
  );
  assert.ok(sent);
  const headers = Object.fromEntries(
    Object.entries(sent.headers).map(([name, text]) => [name, Buffer.from(text)]),
  );
  const fetched = { ...sent, headers, offset: 5n, timestampMs: 1_763_700_000_124 };
  const decoder = new api.RecordDecoder({
    schemaById: async (id) => schemas[id - 1] ?? {},
  });
  const [record] = await decoder.decode([fetched]);
  assert.is(record?.kind, 'row');
  if (record?.kind !== 'row' || record.value === null) return assert.unreachable('a row');
  assert.is(api.formatPosition(record.position), '3:0/16B3748:17');
  assert.is(record.relationId, 'public.orders');
  const { columnIds, values } = decoder.rowValues({ ...record, value: record.value });
  assert.equal(columnIds, ['id', 'note']);
  assert.equal(values, ['9007199254740993', 'ä']);
});

test.run();
