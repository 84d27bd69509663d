/**
 * LSNs as text and as numbers: what Postgres prints is read and printed again unchanged, over the
 * whole unsigned range, and nothing else passes for an LSN.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { formatLsn, isLsnText, parseLsn, toLsn, zeroLsn } from '../../src/change/lsn.ts';

test('texts that Postgres prints mean what they say', () => {
  assert.is(parseLsn('0/0'), zeroLsn);
  assert.is(parseLsn('0/16B3748'), 0x16b3748n);
  assert.is(parseLsn('16/B374D848'), 0x16_b374d848n);
  assert.is(parseLsn('FFFFFFFF/FFFFFFFF'), 2n ** 64n - 1n);
});

test('the low half is printed without leading zeros, as Postgres does', () => {
  assert.is(formatLsn(toLsn(0x1_0000_0000n)), '1/0');
  assert.is(formatLsn(toLsn(0x1_0000_00ffn)), '1/FF');
});

test('any LSN of 64 bits comes back from its text', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => {
      const text = formatLsn(toLsn(value));
      assert.match(text, /^(0|[1-9A-F][0-9A-F]{0,7})\/(0|[1-9A-F][0-9A-F]{0,7})$/);
      assert.is(parseLsn(text), value);
    }),
  );
});

test('anything else is refused', () => {
  for (const text of [
    '',
    '0',
    '/',
    '0/',
    '/0',
    '0/0/0',
    ' 0/0',
    '0/0\n',
    '1G/0',
    '123456789/0',
    '0/123456789',
  ]) {
    assert.not(isLsnText(text), text);
    assert.throws(
      () => parseLsn(text),
      (error: unknown) => error instanceof RangeError,
    );
  }
});

test.run();
