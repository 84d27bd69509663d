/**
 * Record batches as bytes: ours are read by kafkajs and the other way round, checksums are checked,
 * batches stay inside their bounds, and aborted records are left out by producer id alone.
 */
import fc from 'fast-check';
import kafkajsDecoder from 'kafkajs/src/protocol/decoder.js';
import kafkajsBatchDecoder from 'kafkajs/src/protocol/recordBatch/v0/decoder.js';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { decodeBatches } from '../../src/topic/kafka/batch-decoder.ts';
import {
  type BatchProducer,
  batchHeader,
  encodeBatch,
  nextBatch,
  recordBatchBytesMax,
  recordBatchRecordsMax,
} from '../../src/topic/kafka/batch-encoder.ts';
import { crc32c } from '../../src/topic/kafka/crc32c.ts';
import type { OutgoingRecord } from '../../src/topic/log.ts';

const producer: BatchProducer = {
  producerId: 4_000_000_000n,
  producerEpoch: 3,
  baseSequence: 17,
  transactional: true,
};
const timestampMs = 1_763_700_000_123;
const from = { topic: 'test', partition: 2, offset: 0n };

const bytes = fc.uint8Array({ maxLength: 300 }).map((value) => Buffer.from(value));
const headers = fc.dictionary(fc.constantFrom('position', 'was', 'ü'), fc.string());
const outgoing: fc.Arbitrary<OutgoingRecord> = fc.record({
  partition: fc.constant(2),
  key: bytes,
  value: fc.option(bytes),
  headers,
});

function encoded(records: readonly OutgoingRecord[], baseOffset: bigint, who = producer): Buffer {
  const range = nextBatch(records, 0);
  assert.is(range.end, records.length);
  const batch = encodeBatch(records, range, who, timestampMs);
  batch.writeBigInt64BE(baseOffset, batchHeader.baseOffset);
  return batch;
}

/** As a broker writes them: one record, whose key holds its type. */
function marker(type: 'abort' | 'commit', producerId: bigint, baseOffset: bigint): Buffer {
  const key = Buffer.from([0, 0, 0, type === 'abort' ? 0 : 1]);
  const record = { partition: 2, key, value: Buffer.alloc(6), headers: {} };
  const batch = encoded([record], baseOffset, { ...producer, producerId });
  batch.writeInt16BE(0x30, batchHeader.attributes);
  return sealed(batch);
}

/** With a new checksum for the changed bytes. */
function sealed(batch: Buffer): Buffer {
  const checksum = crc32c(batch, batchHeader.attributes, batch.length);
  batch.writeUInt32BE(checksum, batchHeader.crc);
  return batch;
}

function row(key: string): OutgoingRecord {
  return { partition: 2, key: Buffer.from(key), value: Buffer.from('v'), headers: {} };
}

test('what is encoded is decoded', () => {
  fc.assert(
    fc.property(fc.array(outgoing, { minLength: 1, maxLength: 300 }), (records) => {
      const { records: decoded, nextOffset } = decodeBatches(encoded(records, 70n), [], from);
      assert.is(nextOffset, 70n + BigInt(records.length));
      assert.is(decoded.length, records.length);
      for (const [index, sent] of records.entries()) {
        const got = decoded[index];
        assert.ok(got);
        assert.is(got.offset, 70n + BigInt(index));
        assert.is(got.partition, 2);
        assert.is(got.timestampMs, timestampMs);
        assert.ok(got.key.equals(sent.key));
        assert.equal(got.value === null ? null : [...got.value], sent.value && [...sent.value]);
        const texts = Object.entries(got.headers).map(([name, value]) => [name, String(value)]);
        const valid = Object.entries(sent.headers).map(([name, value]) => [
          name,
          Buffer.from(value).toString(),
        ]);
        assert.equal(texts, valid);
      }
    }),
    { numRuns: 200 },
  );
});

test('kafkajs reads the same', async () => {
  const sample = fc.sample(fc.array(outgoing, { minLength: 1, maxLength: 50 }), 50);
  for (const records of sample) {
    const batch = await kafkajsBatchDecoder(new kafkajsDecoder(encoded(records, 5n)));
    assert.is(batch.producerId, '4000000000');
    assert.is(batch.firstSequence, 17);
    assert.is(batch.inTransaction, true);
    assert.is(batch.records.length, records.length);
    for (const [index, sent] of records.entries()) {
      const got = batch.records[index];
      assert.ok(got);
      assert.is(got.offset, String(5 + index));
      assert.ok(got.key.equals(sent.key));
      assert.equal(got.value && [...got.value], sent.value && [...sent.value]);
    }
  }
});

test('batches are bounded in bytes and in records; a larger record is alone', () => {
  const small = Array.from({ length: recordBatchRecordsMax + 1 }, (_, index) => row(`k${index}`));
  assert.equal(nextBatch(small, 0).end, recordBatchRecordsMax);
  const large = { ...row('large'), value: Buffer.alloc(recordBatchBytesMax + 1) };
  const records = [row('a'), large, row('b')];
  assert.is(nextBatch(records, 0).end, 1);
  assert.is(nextBatch(records, 1).end, 2);
  const half = { ...row('half'), value: Buffer.alloc(recordBatchBytesMax / 2) };
  assert.is(nextBatch([half, half, half], 0).end, 1);
});

test('records below the fetched offset and a batch that is cut off are left out', () => {
  const first = encoded([row('a'), row('b'), row('c')], 0n);
  const second = encoded([row('d')], 3n);
  const both = Buffer.concat([first, second]);
  const tail = decodeBatches(both, [], { ...from, offset: 2n });
  assert.equal(
    tail.records.map(({ offset }) => offset),
    [2n, 3n],
  );
  const cut = decodeBatches(both.subarray(0, both.length - 1), [], { ...from, offset: 2n });
  assert.equal(
    cut.records.map(({ offset }) => offset),
    [2n],
  );
  assert.is(cut.nextOffset, 3n);
  assert.is(decodeBatches(first.subarray(0, 30), [], { ...from, offset: 2n }).nextOffset, 2n);
});

test('two aborted producers that overlap a third leave only what was committed', () => {
  const by = (producerId: bigint) => ({ ...producer, producerId });
  const log = Buffer.concat([
    encoded([row('1a')], 0n, by(1n)),
    encoded([row('2a')], 1n, by(2n)),
    encoded([row('3')], 2n, by(3n)),
    encoded([row('1b')], 3n, by(1n)),
    marker('abort', 1n, 4n),
    encoded([row('2b')], 5n, by(2n)),
    encoded([row('1 next')], 6n, by(1n)),
    marker('abort', 2n, 7n),
    marker('commit', 3n, 8n),
    marker('commit', 1n, 9n),
  ]);
  const aborted = [
    { producerId: 2n, firstOffset: 1n },
    { producerId: 1n, firstOffset: 0n },
  ];
  const { records, nextOffset } = decodeBatches(log, aborted, from);
  assert.equal(
    records.map(({ key }) => String(key)),
    ['3', '1 next'],
  );
  assert.is(nextOffset, 10n);
});

test('a batch emptied by compaction advances the offset, an empty marker ends nothing', () => {
  const empty = Buffer.from(encoded([row('gone')], 40n).subarray(0, batchHeader.records));
  empty.writeInt32BE(batchHeader.records - batchHeader.leaderEpoch, batchHeader.length);
  empty.writeInt32BE(9, batchHeader.lastOffsetDelta);
  empty.writeInt32BE(0, batchHeader.recordCount);
  const decoded = decodeBatches(sealed(empty), [], { ...from, offset: 40n });
  assert.equal(decoded, { records: [], nextOffset: 50n });
  const control = Buffer.from(empty);
  control.writeInt16BE(0x30, batchHeader.attributes);
  assert.is(decodeBatches(sealed(control), [], from).nextOffset, 50n);
});

test('a changed byte and an unknown format are reported as damage', () => {
  const batch = encoded([row('a')], 0n);
  const changed = Buffer.from(batch);
  changed.writeUInt8(1 ^ changed.readUInt8(changed.length - 2), changed.length - 2);
  assert.throws(() => decodeBatches(changed, [], from), /offset 0 of test partition 2 .*checksum/);
  const older = Buffer.from(batch);
  older.writeInt8(1, batchHeader.magic);
  assert.throws(() => decodeBatches(older, [], from), /unknown format/);
});

test.run();
