/**
 * The name of a record in an error: table and key, on one line and shortened; and the error of a
 * record that is too large, with the command that helps.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { recordBytesMax, tooLarge } from '../../src/topic/kafka/produce-plan.ts';
import { encodeFramed } from '../../src/topic/records/avro-codec.ts';
import { fixedSchemas } from '../../src/topic/records/fixed-schemas.ts';
import * as layout from '../../src/topic/records/layout.ts';
import { recordName } from '../../src/topic/records/record-name.ts';
import { place } from '../support/builders.ts';

function keyBytes(key: layout.RecordKey): Buffer {
  return encodeFramed(7, fixedSchemas.key.type, key);
}

function rowKey(...identity: readonly string[]): Buffer {
  return keyBytes({ kind: 'row', relation: 'public.orders', identity });
}

test('a row is named by its table and its key', () => {
  assert.is(recordName(rowKey('4711')), 'the row ("4711") of public.orders');
  assert.is(recordName(rowKey('a', '')), 'the row ("a", "") of public.orders');
});

test('a long key is shortened and stays on one line', () => {
  const name = recordName(rowKey('x'.repeat(5_000), 'one\ntwo'));
  assert.is(name, `the row ("${'x'.repeat(60)}…", "one\\ntwo") of public.orders`);
});

test('other records have names too, and foreign bytes have none', () => {
  assert.is(recordName(keyBytes(layout.pointKey)), 'the point record');
  assert.is(recordName(keyBytes(layout.epochKey(3))), 'the epoch record');
  const truncate = keyBytes(layout.truncateKey('public.orders', place(1, 10)));
  assert.is(recordName(truncate), 'the truncate record of public.orders');
  const reread = keyBytes(layout.rereadKey('public.orders', place(1, 10)));
  assert.is(recordName(reread), 'the reread record of public.orders');
  for (const bytes of ['', 'huge', '\0', '\0\0\0\0\u0007', '\0\0\0\0\u0007\u0006row']) {
    assert.is(recordName(Buffer.from(bytes)), null);
  }
});

function rangeOf(end: number, sizeBytes: number) {
  return { start: 0, end, sizeBytes };
}

function refused(sizeBytes: number) {
  const record = { partition: 2, key: rowKey('5'), value: null, headers: {} };
  const batch = { partition: 2, records: [record], range: rangeOf(1, sizeBytes) };
  return tooLarge({ topic: 't', partitions: 3, recordName }, batch);
}

test('an error names the row that is too large, its size, and the command that helps', () => {
  const { message, hint, exit } = refused(9_000_000);
  assert.is(
    message,
    'the row ("5") of public.orders takes 9000000 bytes, more than partition 2 of t accepts',
  );
  assert.match(
    hint,
    /^`kafka-configs.sh .* --entity-name t --add-config max.message.bytes=9437184`, /,
  );
  assert.is(exit, 4);
});

test('beyond the limit of every broker the hint names no setting', () => {
  assert.match(refused(recordBytesMax).hint, new RegExp(`max.message.bytes=${recordBytesMax}\`,`));
  const beyond = refused(recordBytesMax + 1);
  assert.not.match(beyond.hint, /kafka-configs/);
  assert.match(beyond.hint, /shorten or delete the row/);
});

test('a batch of several records is refused without a name', () => {
  const record = { partition: 2, key: rowKey('5'), value: null, headers: {} };
  const batch = { partition: 2, records: [record, record], range: rangeOf(2, 9_000_000) };
  assert.is(tooLarge({ topic: 't', partitions: 3, recordName }, batch).facts['record'], undefined);
});

test.run();
