/**
 * The headers of a record: the follower reads what the leader wrote, over the whole range and in
 * any order of records; any other text is refused.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { toLsn } from '../../src/change/lsn.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  decodeTexts,
  encodePositionHeader,
  encodeTexts,
  type PositionHeader,
  PositionHeaderDecoder,
} from '../../src/topic/records/headers.ts';
import { place } from '../support/builders.ts';

const anyHeader: fc.Arbitrary<PositionHeader> = fc.record(
  {
    op: fc.constantFrom('c', 'u', 'd', 'r', '-'),
    position: fc.record(
      {
        epoch: fc.integer({ min: 1, max: 999_999_999 }),
        // Few LSNs and times, so that the decoder meets the ones it remembers.
        commitLsn: fc.constantFrom(0n, 1n, 2n ** 32n, 2n ** 64n - 1n).map(toLsn),
        ordinal: fc.integer({ min: -1, max: 10 ** 9 }),
      },
      { noNullPrototype: true },
    ),
    commitTimeMicros: fc.constantFrom(0n, 1_763_700_000_123_456n, 2n ** 62n),
  },
  { noNullPrototype: true },
);

function refused(run: () => unknown): void {
  assert.throws(run, (error: unknown) => {
    return error instanceof UnderstudyError && error.code === 'MESSAGE_UNKNOWN';
  });
}

test('a position header is the documented text', () => {
  const header = { op: 'u', position: place(3, 0x16b3748, 17) } as const;
  const text = encodePositionHeader({ ...header, commitTimeMicros: 1_763_700_000_123_456n });
  assert.is(text, 'u 3:0/16B3748:17 1763700000123456');
});

test('any headers are decoded in the order in which they were encoded', () => {
  fc.assert(
    fc.property(fc.array(anyHeader, { maxLength: 20 }), (headers) => {
      const decoder = new PositionHeaderDecoder();
      const decoded = headers.map((header) => {
        return decoder.decode(Buffer.from(encodePositionHeader(header)));
      });
      assert.equal(decoded, headers);
    }),
  );
});

test('a header that is missing or of another form is refused', () => {
  const decoder = new PositionHeaderDecoder();
  refused(() => decoder.decode(undefined));
  for (const text of [
    '',
    'x 3:0/1:0 1',
    'u 0:0/1:0 1',
    'u 3:0/g:0 1',
    'u 3:0/1:-2 1',
    'u 3:0/1:0 -1',
    'u 3:0/1:0',
    ' u 3:0/1:0 1',
    'u 3:0/1:0 1 ',
    'u 3:0/1:0 1\n',
  ]) {
    refused(() => decoder.decode(Buffer.from(text)));
  }
});

test('an old identity is decoded exactly', () => {
  assert.is(decodeTexts('was', {}), null);
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary' }), { minLength: 1 }), (identity) => {
      assert.equal(decodeTexts('was', { was: Buffer.from(encodeTexts(identity)) }), identity);
    }),
  );
});

test('any other text is refused as a list of texts', () => {
  for (const text of ['', '[', '"1"', '{}', '[1]', '[null]', '["1"']) {
    refused(() => decodeTexts('unchanged', { unchanged: Buffer.from(text) }));
  }
});

test.run();
