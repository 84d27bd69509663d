/**
 * The one message that lets Postgres discard WAL, byte for byte: the LSNs as they are, without the
 * one that other clients add, so that a commit record that starts there is sent again.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { toLsn } from '../../src/change/lsn.ts';
import { standbyStatus } from '../../src/leader/stream/standby-status.ts';

test('a status is r, write, flush, apply, clock and no reply wanted', () => {
  const flush = toLsn(0x16_b374_d848n);
  const apply = toLsn(0x16_b374_d840n);
  const frame = standbyStatus({ flush, apply, nowMs: 946_684_800_001.75, requestsReply: false });
  const expected = [
    '72',
    '00000016b374d848',
    '00000016b374d848',
    '00000016b374d840',
    '00000000000003e8',
    '00',
  ];
  assert.is(frame.toString('hex'), expected.join(''));
});

test('the highest LSN fits, a clock before 2000 is negative, and a reply is requested', () => {
  const top = toLsn(2n ** 64n - 1n);
  const status = { flush: top, apply: top, nowMs: 946_684_799_999, requestsReply: true };
  assert.is(standbyStatus(status).toString('hex'), `72${'f'.repeat(48)}fffffffffffffc1801`);
});

test.run();
