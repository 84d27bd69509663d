/**
 * The partitioner against known hashes of Kafka's Java client and against kafkajs' own, so that
 * other clients find the partition of a row.
 */
import fc from 'fast-check';
import { Partitioners } from 'kafkajs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { murmur2, partitionOf } from '../../src/topic/records/partitioner.ts';

/** From the tests of Kafka's Java client (UtilsTest.testMurmur2). */
const javaHashes: readonly (readonly [string, number])[] = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
];

test('hashes are those of the Java client', () => {
  for (const [text, hash] of javaHashes) assert.is(murmur2(Buffer.from(text)), hash, text);
});

test('any key has the partition that kafkajs computes', () => {
  const kafkajs = Partitioners.DefaultPartitioner();
  const key = fc.uint8Array({ maxLength: 200 });
  const count = fc.integer({ min: 1, max: 200 });
  fc.assert(
    fc.property(key, count, (bytes, partitions) => {
      const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({
        partitionId,
        partitionErrorCode: 0,
        leader: 0,
        replicas: [0],
        isr: [0],
      }));
      const message = { key: Buffer.from(bytes), value: null };
      const expected = kafkajs({ topic: 't', partitionMetadata, message });
      assert.is(partitionOf(bytes, partitions), expected);
    }),
    { numRuns: 5_000 },
  );
});

test.run();
