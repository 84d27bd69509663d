/**
 * The schema record of the topic: small in one part, large in several; what compaction, a torn
 * transaction or a newer schema leave of it is never read as another schema.
 */
import { randomBytes } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';
import {
  keyOfPart,
  readSchemaRecord,
  type SchemaRecord,
  schemaParts,
  supersededKeys,
  validParts,
} from '../../src/topic/records/schema-record.ts';
import { at, shapeOf } from '../support/builders.ts';

function recordOf(lsn: number, preData: readonly string[]): SchemaRecord {
  const relations = [shapeOf('public.t', 'id integer')];
  const schema = {
    serverVersion: 150018,
    preData,
    postData: ['CREATE INDEX i ON t (v)'],
    relations,
  };
  return { streamId: 's', at: at(1, lsn), schema };
}

const small = recordOf(0x10, ['CREATE TABLE t (v text)']);
/** Noise, so that compressing leaves more than one part of it. */
const large = recordOf(0x20, [randomBytes(1_200_000).toString('base64')]);
const larger = recordOf(0x30, [randomBytes(1_600_000).toString('base64')]);

test('a small schema is one part, under a key of its own', () => {
  const parts = schemaParts(small);
  assert.is(parts.length, 1);
  assert.equal(parts.map(keyOfPart), [{ kind: 'schema', relation: '', identity: [] }]);
  assert.equal(readSchemaRecord(parts), small);
});

test('a large schema that compresses well is one part, keyed by its position', () => {
  const record = recordOf(0x40, ['x'.repeat(3_000_000)]);
  const parts = schemaParts(record);
  assert.is(parts.length, 1);
  assert.equal(
    parts.map((part) => keyOfPart(part).identity),
    [['1:0/40', '0']],
  );
  assert.equal(readSchemaRecord(parts), record);
});

test('a void schema is ignored, however new', () => {
  const parts = [...schemaParts(small), ...schemaParts(large)];
  const first = { epoch: 1, base: null };
  const newest = (base: number): SchemaRecord['at'] | undefined => {
    const epochs = [first, { epoch: 2, base: at(1, base) }];
    return readSchemaRecord(validParts(parts, 's', epochs))?.at;
  };
  assert.equal(readSchemaRecord(validParts(parts, 's', [first])), large);
  assert.equal(newest(0x21), large.at);
  assert.equal(newest(0x20), large.at, 'it covers what lies below its place');
  assert.equal(newest(0x1f), small.at);
  assert.is(newest(0x0f), undefined);
  assert.equal(validParts(parts, 'another stream', [first]), []);
  const early = schemaParts({ ...small, at: at(2, 0x1) });
  assert.equal(validParts(early, 's', [first]), [], 'of an epoch that never began');
});

test('a large schema comes in parts, and is read from them in any order', () => {
  const parts = schemaParts(large);
  assert.ok(parts.length > 1);
  for (const { bytes } of parts) assert.ok(bytes.length <= 512 * 1024);
  assert.equal(readSchemaRecord([...parts].reverse()), large);
  assert.equal(readSchemaRecord([...parts, ...parts]), large, 'written twice');
});

test('of two whole ones the position decides, not the offset', () => {
  const old = schemaParts(small);
  const parts = schemaParts(large);
  assert.equal(readSchemaRecord([...parts, ...old]), large);
  assert.equal(readSchemaRecord([...old, ...parts]), large);
});

test('with a missing or changed part the older schema is read', () => {
  const parts = schemaParts(large);
  for (const [i, lost] of parts.entries()) {
    const torn = parts.filter((part) => part !== lost);
    assert.is(readSchemaRecord(torn), null);
    assert.equal(readSchemaRecord([...schemaParts(small), ...torn]), small);
    const bytes = Buffer.from(lost.bytes);
    bytes[7] = (bytes[7] ?? 0) ^ 1;
    const changed = parts.map((part, j) => (i === j ? { ...part, bytes } : part));
    assert.is(readSchemaRecord(changed), null);
  }
  assert.is(readSchemaRecord([]), null);
});

test('keys of an older schema that the newer one does not replace get tombstones', () => {
  const names = (keys: readonly { identity: readonly string[] }[]): string[] =>
    keys.map(({ identity }) => identity.join(' '));
  const old = schemaParts(large);
  const allOfOld = old.map((_, part) => `1:0/20 ${part}`);
  assert.equal(names(supersededKeys(old, schemaParts(larger))), allOfOld);
  assert.equal(names(supersededKeys(old, schemaParts(small))), allOfOld);
  assert.equal(names(supersededKeys(schemaParts(small), old)), ['']);
  assert.equal(supersededKeys(schemaParts(small), schemaParts(recordOf(0x50, []))), []);
  assert.equal(supersededKeys(old, old), []);
});

const registered = new Map<number, object>();
const registry = {
  register: async (_subject: string, schema: object): Promise<number> => {
    registered.set(registered.size + 1, schema);
    return registered.size;
  },
  schemaById: async (id: number): Promise<object> => registered.get(id) ?? {},
};

test('it is in partition 0, decode leaves it out, schemaParts reads it', async () => {
  const encoder = await RecordEncoder.open({ topic: 't', partitions: 3, registry });
  const decoder = new RecordDecoder(registry);
  const written = await encoder.encodeSchema(schemaParts(larger), schemaParts(large), 7n);
  const fence = encoder.encodeFence(1, 7n);
  const fetched = [...fence, ...written].map(({ key, value, partition, headers }, i) => ({
    partition,
    key,
    value,
    offset: BigInt(i),
    timestampMs: 1,
    headers: { position: Buffer.from(headers['position'] ?? '') },
  }));
  assert.equal([...new Set(written.map(({ partition }) => partition))], [0]);
  assert.is(written.filter(({ value }) => value === null).length, schemaParts(large).length);
  assert.equal(await decoder.decode(fetched), []);
  assert.equal(readSchemaRecord(decoder.schemaParts(fetched)), larger);
});

test('a schema of a newer format is refused by its reader', async () => {
  const encoder = await RecordEncoder.open({ topic: 't', partitions: 1, registry });
  const [record] = await encoder.encodeSchema(schemaParts(small), [], 7n);
  const value = Buffer.from(record?.value ?? []);
  // The format follows the frame, as a zigzag long: 2 is 1.
  assert.is(value[5], 2);
  value[5] = 4;
  const fetched = { partition: 0, offset: 0n, timestampMs: 1, headers: {}, key: Buffer.alloc(0) };
  const forged = { ...fetched, key: record?.key ?? Buffer.alloc(0), value };
  assert.throws(
    () => new RecordDecoder(registry).schemaParts([forged]),
    (error: unknown) => error instanceof UnderstudyError && error.code === 'FORMAT_TOO_NEW',
  );
});

test.run();
