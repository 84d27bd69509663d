/**
 * What the decoder refuses: another program's records, a newer version's, and bytes that break off.
 * An unknown record may change what the rows after it mean, so none is skipped.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import type { CommittedReader, FetchedRecord } from '../../src/topic/log.ts';
import { readLogEnd } from '../../src/topic/log-end.ts';
import { encodeFramed } from '../../src/topic/records/avro-codec.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';
import { fixedSchemas, pointToAvro } from '../../src/topic/records/fixed-schemas.ts';
import { lsn, place, pointOf, shapeOf } from '../support/builders.ts';

const shape = shapeOf('public.t', 'id text', 'n bigint');
const schemas: object[] = [];
const registry = {
  register: async (_subject: string, schema: object): Promise<number> => schemas.push(schema),
  schemaById: async (id: number): Promise<object> => schemas[id - 1] ?? {},
};
const encoder = await RecordEncoder.open({ topic: 't', partitions: 1, registry });
await encoder.prepare(shape);

function fetched(changes: Partial<FetchedRecord>): FetchedRecord {
  const change = { kind: 'row', op: 'u', relation: shape, identity: ['1'], was: null } as const;
  const values = { values: ['1', '2'], unchanged: [] };
  const [row] = encoder.encode({ ...change, ...values }, place(1, 16, 2), 7n);
  if (row === undefined) throw new Error('a row is one record');
  const headers = { position: Buffer.from(row.headers['position'] ?? '') };
  const { partition, key, value } = row;
  return { partition, offset: 5n, timestampMs: 9, key, value, headers, ...changes };
}

const pointHeaders = { position: Buffer.from('- 1:0/10:-1 7') };
const [pointRecord] = encoder.encodePoint(pointOf({ upto: lsn(16) }));
const point = fetched({ ...pointRecord, headers: pointHeaders });

function keyOf(kind: string, schemaId = encoder.keySchemaId): Buffer {
  return encodeFramed(schemaId, fixedSchemas.key.type, { kind, relation: '', identity: [] });
}

async function refused(
  message: RegExp,
  records: readonly FetchedRecord[],
  code = 'MESSAGE_UNKNOWN',
): Promise<void> {
  try {
    await new RecordDecoder(registry).decode(records);
  } catch (error) {
    assert.instance(error, UnderstudyError);
    assert.is((error as UnderstudyError).code, code);
    assert.match((error as UnderstudyError).message, message);
    return;
  }
  assert.unreachable(`${message} was not refused`);
}

test('a row is read with its offset, its values and their columns', async () => {
  const decoder = new RecordDecoder(registry);
  const [row] = await decoder.decode([fetched({})]);
  assert.ok(row?.kind === 'row' && row.value !== null);
  assert.equal([row.offset, row.timestampMs, row.position], [5n, 9, place(1, 16, 2)]);
  const values = decoder.rowValues({ ...row, value: row.value });
  assert.equal(values, { columnIds: ['id', 'n'], values: ['1', '2'] });
});

test('the end of a log is found without the schemas of its rows', async () => {
  const none = { schemaById: () => Promise.reject(new Error('the registry was asked')) };
  const records = [fetched({ offset: 0n }), { ...point, offset: 1n }];
  const ends = { partition: 0, lowWatermark: 0n, lastStableOffset: 2n };
  const reader: CommittedReader = {
    watermarks: async () => [ends],
    fetch: async () => [{ ...ends, records, nextOffset: 2n, broker: 1 }],
    close: async () => undefined,
  };
  const { checkpoint } = await readLogEnd(reader, new RecordDecoder(none), [ends]);
  assert.equal(checkpoint?.nextOffsets, [2n]);
});

test('a record of an unknown kind is refused', async () => {
  await refused(/unknown kind "schema-change"/, [{ ...point, key: keyOf('schema-change') }]);
});

test('a key under another schema than the first one is refused', async () => {
  await refused(
    /a key has schema 99 instead of 1/,
    [fetched({}), { ...point, key: keyOf('point', 99) }],
    'PREREQUISITE',
  );
});

test('a record without its header is refused', async () => {
  await refused(/no readable position header/, [fetched({ headers: {} })]);
});

test('keys and values that are not framed are refused', async () => {
  const plain = Buffer.from('{"id": 1}');
  await refused(/not framed/, [fetched({ key: plain })]);
  await refused(/not framed/, [fetched({ key: Buffer.alloc(0) })]);
  await refused(/not framed/, [fetched({ value: plain })]);
  await refused(/not framed/, [{ ...point, value: plain }]);
  await refused(/not framed/, [{ ...point, value: Buffer.alloc(4) }]);
});

test('an op that contradicts the value is refused', async () => {
  const deleted = { position: Buffer.from('d 1:0/10:2 7') };
  await refused(/a row has op d/, [fetched({ headers: deleted })]);
  await refused(/a row has op u/, [fetched({ value: null })]);
  await refused(/a row has op -/, [fetched({ headers: pointHeaders })]);
});

test('a tombstone of anything but a row is refused', async () => {
  for (const kind of ['point', 'epoch', 'relation', 'truncate', 'reread']) {
    await refused(new RegExp(`a ${kind} has no value`), [
      { ...point, key: keyOf(kind), value: null },
    ]);
  }
});

test('only an update has unchanged columns, and it names them', async () => {
  const unchanged = Buffer.from('["n"]');
  const [row] = await new RecordDecoder(registry).decode([
    fetched({ headers: { ...fetched({}).headers, unchanged } }),
  ]);
  assert.equal(row?.kind === 'row' && row.unchanged, ['n']);
  const insert = { position: Buffer.from('c 1:0/10:2 7'), unchanged };
  await refused(/a row of op c has unchanged columns/, [fetched({ headers: insert })]);
  const unreadable = { ...fetched({}).headers, unchanged: Buffer.from('n') };
  await refused(/no readable unchanged header/, [fetched({ headers: unreadable })]);
});

test('a value whose schema is not a row schema is refused', async () => {
  await refused(
    /schema 2, which is not a row schema/,
    [fetched({ value: point.value })],
    'PREREQUISITE',
  );
});

test('a record of a newer version is refused by its format', async () => {
  const avro = { ...pointToAvro(pointOf({ upto: lsn(16) })), format: 2 };
  const value = encodeFramed(2, fixedSchemas.point.type, avro);
  await refused(/a consistency point has format 2/, [{ ...point, value }], 'FORMAT_TOO_NEW');
});

for (const kind of ['truncate', 'reread'] as const) {
  const placed = place(1, 16, 3);
  const [encoded] = encoder.encode({ kind, relation: shape }, placed, 7n);
  const headers = { position: Buffer.from(encoded?.headers['position'] ?? '') };
  const record = fetched({ ...encoded, headers });
  const schemaId = record.value?.readInt32BE(1) ?? 0;
  const stating = (stated: { format: number; position: string }): FetchedRecord => {
    return { ...record, value: encodeFramed(schemaId, fixedSchemas[kind].type, stated) };
  };

  test(`a ${kind} is read with its place and its relation`, async () => {
    const [read] = await new RecordDecoder(registry).decode([record]);
    assert.ok(read?.kind === kind);
    assert.equal([read.relationId, read.position], ['public.t', placed]);
  });

  test(`a ${kind} of a newer version, or without a position, is refused`, async () => {
    const newer = stating({ format: 2, position: '1:0/10:3' });
    await refused(new RegExp(`a ${kind} of public.t has format 2`), [newer], 'FORMAT_TOO_NEW');
    const nowhere = stating({ format: 1, position: 'here' });
    await refused(new RegExp(`a ${kind} has no position`), [nowhere]);
  });
}

test('a reread goes to every partition under a key of its own', async () => {
  const wide = await RecordEncoder.open({ topic: 't', partitions: 3, registry });
  const encode = (ordinal: number) =>
    wide.encode({ kind: 'reread', relation: shape }, place(1, 16, ordinal), 7n);
  const [first, second] = [encode(3), encode(4)];
  assert.equal(
    first.map(({ partition }) => partition),
    [0, 1, 2],
  );
  const keys = [...first, ...second].map(({ key }) => key.toString('hex'));
  assert.is(new Set(keys).size, 2, 'compaction keeps each of them');
});

test('a point with a malformed LSN is refused', async () => {
  const avro = { ...pointToAvro(pointOf({})), upto: 'soon' };
  const value = encodeFramed(2, fixedSchemas.point.type, avro);
  await refused(/the record at partition 0, offset 5 is not readable/, [{ ...point, value }]);
});

test('random bytes in a record are refused with a code, or decode to a record', async () => {
  const anyBytes = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
  const framed = anyBytes.map((bytes) => Buffer.concat([Buffer.from('0000000001', 'hex'), bytes]));
  const anyChange = fc.oneof(
    framed.map((key) => ({ ...fetched({}), key })),
    framed.map((value) => ({ ...point, value })),
    anyBytes.map((position) => fetched({ headers: { position } })),
    anyBytes.map((was) => fetched({ headers: { ...fetched({}).headers, was } })),
  );
  await fc.assert(
    fc.asyncProperty(anyChange, async (record) => {
      try {
        await new RecordDecoder(registry).decode([record]);
      } catch (error) {
        assert.instance(error, UnderstudyError);
      }
    }),
    { numRuns: 1_000 },
  );
});

test.run();
