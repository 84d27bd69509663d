/**
 * Every message of pgoutput from handmade bytes, and every way in which such bytes can be
 * wrong: what is cut off, too long or unknown is refused by name, never read as something else.
 */
import { constants } from 'node:buffer';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { decodePgoutput } from '../../src/leader/stream/pgoutput-decoder.ts';
import {
  byte,
  frames,
  int16,
  int32,
  rawValue,
  tag,
  text,
  tuple,
} from '../support/pgoutput-frames.ts';

function refused(bytes: Buffer, what: RegExp, code = 'MESSAGE_UNKNOWN'): void {
  assert.throws(
    () => decodePgoutput(bytes),
    (error: unknown) => {
      assert.instance(error, UnderstudyError);
      assert.is((error as UnderstudyError).code, code);
      assert.match((error as UnderstudyError).message, what);
      return true;
    },
  );
}

test('begin and commit carry unsigned LSNs and microseconds since 1970', () => {
  assert.equal(decodePgoutput(frames.begin(2n ** 63n + 5n, 1n)), {
    kind: 'begin',
    commitLsn: 2n ** 63n + 5n,
    commitTimeMicros: 946_684_800_000_001n,
    xid: 4_000_000_001,
  });
  const commit = { kind: 'commit', commitLsn: 0x16b3748n, commitEndLsn: 2n ** 64n - 1n };
  assert.equal(decodePgoutput(frames.commit(0x16b3748n, 2n ** 64n - 1n)), commit);
});

test('a relation names its columns and which of them are the key', () => {
  const bytes = frames.relation(4_000_000_000, 'public', 'Bücher "a"', [
    ['id', true],
    ['名', false],
  ]);
  assert.equal(decodePgoutput(bytes), {
    kind: 'relation',
    oid: 4_000_000_000,
    schema: 'public',
    name: 'Bücher "a"',
    replicaIdentity: 'd',
    columns: [
      { name: 'id', typeOid: 25, typeModifier: -1, partOfKey: true },
      { name: '名', typeOid: 25, typeModifier: -1, partOfKey: false },
    ],
  });
});

test('an empty text, NULL and an unchanged value are distinguished', () => {
  const values = ['', null, undefined, 'naïve 🐘\n'];
  assert.equal(decodePgoutput(frames.insert(7, tuple(...values))), {
    kind: 'insert',
    oid: 7,
    values,
  });
});

test('updates come with the old key, the old row or neither', () => {
  const row = tuple('2', 'x');
  const update = { kind: 'update', oid: 7, values: ['2', 'x'] };
  assert.equal(decodePgoutput(frames.update(7, null, row)), { ...update, old: null });
  for (const kind of ['K', 'O'] as const) {
    const old = { kind, values: ['1', null] };
    const bytes = frames.update(7, { kind, row: tuple('1', null) }, row);
    assert.equal(decodePgoutput(bytes), { ...update, old });
    const deleted = { kind: 'delete', oid: 7, old };
    assert.equal(decodePgoutput(frames.delete(7, kind, tuple('1', null))), deleted);
  }
});

test('a truncate names all its tables, whatever its options', () => {
  const expected = { kind: 'truncate', oids: [7, 4_000_000_000] };
  for (const options of [0, 1, 3]) {
    assert.equal(decodePgoutput(frames.truncate(options, 7, 4_000_000_000)), expected);
  }
});

test('a logical message is transactional or not; its content may be any bytes', () => {
  const decoded = decodePgoutput(frames.message(true, 'understudy.point', Buffer.from('label')));
  const message = { kind: 'message', transactional: true, prefix: 'understudy.point' };
  assert.equal(decoded, { ...message, content: 'label' });
  const foreign = decodePgoutput(frames.message(false, 'x', Buffer.from([0xff, 0])));
  assert.is(foreign.kind === 'message' && foreign.transactional, false);
});

test('types and origins are known and ignored', () => {
  assert.equal(decodePgoutput(frames.type()), { kind: 'ignored' });
  assert.equal(decodePgoutput(frames.origin()), { kind: 'ignored' });
});

test('1,600 columns are read', () => {
  const values = Array.from({ length: 1_600 }, (_, i) => (i % 3 === 0 ? null : `${i}`));
  const decoded = decodePgoutput(frames.insert(7, tuple(...values)));
  assert.equal(decoded.kind === 'insert' && decoded.values, values);
});

test('what is decoded does not change when the socket buffer is used again', () => {
  const bytes = frames.insert(7, tuple('kept'));
  const decoded = decodePgoutput(bytes);
  bytes.fill(0x2e);
  assert.equal(decoded, { kind: 'insert', oid: 7, values: ['kept'] });
});

const whole: readonly Buffer[] = [
  frames.begin(1n, 1n),
  frames.commit(1n, 2n),
  frames.relation(7, 'public', 't', [['id', true]]),
  frames.insert(7, tuple('1', null, undefined)),
  frames.update(7, { kind: 'O', row: tuple('1') }, tuple('2')),
  frames.delete(7, 'K', tuple('1')),
  frames.truncate(0, 7, 8),
  frames.message(true, 'p', Buffer.from('c')),
];

test('a message cut off anywhere is refused, and so is one byte too many', () => {
  for (const bytes of whole) {
    for (let length = 0; length < bytes.length; length += 1) {
      refused(bytes.subarray(0, length), /cut off|a string without an end|a value of/);
    }
    refused(Buffer.concat([bytes, byte(0)]), /1 bytes after a message/);
  }
});

test('any other bytes are refused in the same way, or are a message', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...'BCRIUDTM'),
      fc.uint8Array({ maxLength: 60 }),
      (letter, rest) => {
        try {
          decodePgoutput(Buffer.concat([tag(letter), rest]));
        } catch (error) {
          assert.instance(error, UnderstudyError);
        }
      },
    ),
    { numRuns: 3_000 },
  );
});

test('what this version does not know is named', () => {
  refused(tag('S'), /a message "S"/);
  refused(Buffer.concat([tag('I'), int32(7), tag('K'), tuple('1')]), /"K" in an insert/);
  refused(Buffer.concat([tag('D'), int32(7), tag('N'), tuple('1')]), /an old row "N"/);
  refused(Buffer.concat([tag('I'), int32(7), tag('N'), int16(1), tag('b')]), /a value "b"/);
  refused(Buffer.concat([tag('T'), int32(-1), byte(0)]), /a truncate of -1 tables/);
  refused(Buffer.concat([tag('R'), int32(7), text('public').subarray(0, 6)]), /without an end/);
});

test('a value that is too long for a text is refused by its size', () => {
  const length = constants.MAX_STRING_LENGTH + 1;
  const head = Buffer.concat([tag('I'), int32(7), tag('N'), int16(1), tag('t'), int32(length)]);
  // Zeroes that are never read take no memory.
  const bytes = Buffer.alloc(head.length + length);
  head.copy(bytes);
  refused(bytes, new RegExp(`a value of ${length} bytes`), 'RECORD_TOO_LARGE');
});

test('a value that is not UTF-8 is refused, and a real U+FFFD is none', () => {
  refused(frames.insert(7, rawValue(Buffer.from([0x61, 0xe9, 0x62]))), /not UTF-8/);
  const decoded = decodePgoutput(frames.insert(7, tuple('a\ufffdb')));
  assert.equal(decoded, { kind: 'insert', oid: 7, values: ['a\ufffdb'] });
});

test.run();
