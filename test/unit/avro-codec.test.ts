/**
 * Rows to bytes and back without losing a bit: longs against an independent decoder, every Avro
 * kind, rows of any width and length; and bytes that are not a row are refused.
 */
import avro from 'avsc';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PgText } from '../../src/change/change.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  avroType,
  decodeFramed,
  encodeFramed,
  RowCodec,
  readSchemaId,
} from '../../src/topic/records/avro-codec.ts';
import { rowSchemaOf } from '../../src/topic/records/row-schema.ts';
import { shapeOf } from '../support/builders.ts';
import { bigLong, plainOptions } from '../support/plain-avro.ts';

const powers = [6n, 13n, 31n, 48n, 50n, 51n, 52n, 53n, 54n, 62n, 63n];
const edges = powers
  .flatMap((power) => [-2n, -1n, 0n, 1n, 2n].map((near) => 2n ** power + near))
  .flatMap((value) => [value, -value])
  .filter((value) => value < 2n ** 63n && value >= -(2n ** 63n));

const anyLong = fc.oneof(
  fc.constantFrom(...edges, 0n),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.bigInt({ min: -100_000n, max: 100_000n }),
);

function codecOf(...columns: readonly string[]): RowCodec {
  return new RowCodec(rowSchemaOf(shapeOf('public.t', ...columns)));
}

/** avsc as it comes, but for its longs. */
function plainType(...columns: readonly string[]): avro.Type {
  const schema = rowSchemaOf(shapeOf('public.t', ...columns)) as unknown as avro.Schema;
  return avro.Type.forSchema(schema, plainOptions());
}

function refused(run: () => unknown, message: RegExp, code = 'MESSAGE_UNKNOWN'): void {
  assert.throws(run, (error: unknown) => {
    assert.instance(error, UnderstudyError);
    assert.is((error as UnderstudyError).code, code);
    assert.match((error as UnderstudyError).message, message);
    return true;
  });
}

test('a long has the bytes that any Avro library writes, over all 64 bits', () => {
  const ours = avroType('long');
  const check = (value: bigint): void => {
    const isSafe = Number.isSafeInteger(Number(value));
    const held = isSafe ? Number(value) : value;
    const bytes = bigLong.toBuffer(value);
    assert.equal(ours.toBuffer(held), bytes, `${value}`);
    // Where a number is exact, a bigint of the same value is written alike.
    assert.equal(ours.toBuffer(value), bytes, `${value}`);
    assert.is(ours.fromBuffer(bytes), held);
  };
  for (const value of edges) check(value);
  fc.assert(fc.property(anyLong, check));
});

test('a long of more than 64 bits, or a number that is not exact, is refused', () => {
  const ours = avroType('long');
  for (const value of [2n ** 63n, -(2n ** 63n) - 1n, 2 ** 53, 1.5, Number.NaN, '1', null]) {
    assert.not(ours.isValid(value), String(value));
    assert.throws(() => ours.toBuffer(value));
  }
});

const anyText = fc.string({ unit: 'binary' });
const anyDate = fc.date({ min: new Date(0), max: new Date('9999-12-31'), noInvalidDate: true });
const kinds: Readonly<Record<string, fc.Arbitrary<string>>> = {
  boolean: fc.constantFrom('t', 'f'),
  integer: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }).map(String),
  bigint: anyLong.map(String),
  oid: fc.integer({ min: 0, max: 2 ** 32 - 1 }).map(String),
  real: fc.constantFrom('0', '-0', '1.5', '1e+20', 'NaN', 'Infinity', '-Infinity', '3.4028235e+38'),
  'double precision': fc.constantFrom('0', '-0', '0.1', '5e-324', 'NaN', '-Infinity', '1e+22'),
  date: fc.oneof(
    anyDate.map((date) => date.toISOString().slice(0, 10)),
    fc.constantFrom('infinity', '-infinity', '0001-01-01 BC', '4713-01-01 BC', '5874897-12-31'),
  ),
  'timestamp(3) without time zone': fc.oneof(
    anyDate.map((date) => date.toISOString().slice(0, 19).replace('T', ' ')),
    fc.constantFrom('infinity', '-infinity', '1969-12-31 23:59:59.999999', '294246-12-31 23:59:59'),
  ),
  'timestamp with time zone': fc.constantFrom('2025-01-01 00:00:00.1+00', '-infinity'),
  uuid: fc.uuid(),
  bytea: fc.uint8Array().map((bytes) => `\\x${Buffer.from(bytes).toString('hex')}`),
  'numeric(10,2)': fc.constantFrom('1.00', 'NaN', '-0.10'),
  'public.mood[]': anyText,
  text: anyText,
};

test('a row of every kind is decoded to the same text, NULLs included', () => {
  const types = Object.keys(kinds);
  const codec = codecOf('id bigint', ...types.map((type, i) => `c${i} ${type}`));
  const cells = Object.values(kinds).map((kind) => fc.option(kind, { nil: null }));
  const anyRow: fc.Arbitrary<PgText[]> = fc.tuple(anyLong.map(String), ...cells);
  fc.assert(
    fc.property(anyRow, fc.integer({ min: 0, max: 2 ** 31 - 1 }), (values, schemaId) => {
      const framed = codec.encode(schemaId, values);
      assert.is(readSchemaId(framed), schemaId);
      assert.equal(codec.decode(framed), values);
    }),
    { numRuns: 500 },
  );
});

test('any row has the bytes that plain avsc writes, whatever its columns', () => {
  const types = Object.keys(kinds);
  const anyTable = fc.array(fc.constantFrom(...types), { maxLength: 30 });
  const anyCase = anyTable.chain((columns) => {
    const cells = columns.map((type) => fc.option(kinds[type] ?? anyText, { nil: null }));
    return fc.record({ columns: fc.constant(columns), values: fc.tuple(...cells) });
  });
  fc.assert(
    fc.property(anyCase, ({ columns, values }) => {
      const names = ['id bigint', ...columns.map((type, i) => `c${i} ${type}`)];
      const framed = codecOf(...names).encode(1, ['-1', ...values]);
      const plain = plainType(...names);
      const body = framed.subarray(5);
      const row = plain.fromBuffer(body) as Record<string, unknown>;
      assert.equal(plain.toBuffer(row), body);
      columns.forEach((type, i) => {
        const [value, text] = [row[`c${i}`], values[i] ?? null];
        if (text === null) assert.is(value, null);
        else if (type === 'bigint' || type === 'oid') assert.is(value, BigInt(text));
        else if (type === 'bytea') assert.equal(value, Buffer.from(text.slice(2), 'hex'));
        else if (type === 'boolean') assert.is(value, text === 't');
        else if (type === 'double precision' || type === 'integer')
          assert.ok(Object.is(value, Number(text)));
        else if (!/^(real|date|timestamp)/.test(type)) assert.is(value, text);
      });
    }),
  );
});

test('a value far larger than the buffer is whole, and the next row does not touch it', () => {
  const codec = codecOf('id integer', 'body text', 'more bytea');
  const large = ['1', 'ä'.repeat(300_000), `\\x${'0f'.repeat(1_000_000)}`];
  const framed = codec.encode(7, large);
  codec.encode(7, ['2', 'z'.repeat(400_000), null]);
  assert.equal(codec.decode(framed), large);
});

test('any length around the end of the buffer is whole', () => {
  const type = avroType('string');
  for (let length = 65_520; length < 65_560; length += 1) {
    const text = 'x'.repeat(length);
    assert.is(decodeFramed(type, encodeFramed(1, type, text)), text);
  }
});

test('1,600 columns and a row of nothing but NULL', () => {
  const names = Array.from({ length: 1_600 }, (_, i) => `c${i} text`);
  const codec = codecOf(...names);
  const values = names.map((_, i) => (i % 3 === 1 ? null : `${i}`));
  assert.equal(codec.decode(codec.encode(1, values)), values);
  const nulls = names.map((_, i) => (i === 0 ? '' : null));
  assert.is(codec.encode(1, nulls).length, 5 + 1_600);
  assert.equal(codec.decode(codec.encode(1, nulls)), nulls);
});

test('a table without columns has rows of no bytes', () => {
  const codec = codecOf();
  assert.is(codec.encode(9, []).toString('hex'), '0000000009');
  assert.equal(codec.decode(codec.encode(9, [])), []);
});

test('a column may be named like a member of Object.prototype', () => {
  const names = ['id', '__proto__', 'constructor', 'toString', 'hasOwnProperty', 'class'];
  const codec = codecOf(...names.map((name) => `${name} text`));
  assert.equal(codec.columnIds, names);
  assert.equal(codec.decode(codec.encode(1, names)), names);
});

test('too few values are a BUG, never NULLs', () => {
  assert.throws(
    () => codecOf('id text', 'a text').encode(1, ['1']),
    (error: unknown) => error instanceof UnderstudyError && error.code === 'BUG',
  );
});

test('bytes that are not a framed row are refused, wherever they break off', () => {
  const codec = codecOf('id text', 'a bigint', 'b bytea');
  const framed = codec.encode(7, ['one', '300', '\\x0102']);
  for (let length = 0; length < 5; length += 1) {
    refused(() => readSchemaId(framed.subarray(0, length)), /not framed/);
  }
  for (let length = 5; length < framed.length; length += 1) {
    const cut = framed.subarray(0, length);
    refused(() => codec.decode(cut), /does not end|cannot be read/, 'PREREQUISITE');
  }
  const longer = Buffer.concat([framed, Buffer.alloc(1)]);
  refused(() => codec.decode(longer), /does not end/, 'PREREQUISITE');
  refused(() => readSchemaId(Buffer.from('010000000500', 'hex')), /not framed/);
  // The branch 9 of a union of two.
  const strange = Buffer.from(framed);
  strange[9] = 18;
  refused(() => codec.decode(strange), /cannot be read by its schema 7/, 'PREREQUISITE');
});

test.run();
