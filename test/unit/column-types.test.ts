/**
 * The conversions between Postgres text and Avro values: known answers at the edges, and any value
 * there and back. That a real server prints these texts is shown in test/integration.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { avroKindOf, conversionOf } from '../../src/catalog/types/column-types.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

test('a type counts without its modifier, and only under its own name', () => {
  assert.is(avroKindOf('timestamp(3) without time zone'), 'local-timestamp-micros');
  assert.is(avroKindOf('timestamp with time zone'), 'timestamp-micros');
  assert.is(avroKindOf('double precision'), 'double');
  const asText = ['numeric(10,2)', 'integer[]', 'public.date', 'time(3) without time zone', 'xid8'];
  for (const type of asText) assert.is(avroKindOf(type), 'text', type);
});

const known: readonly (readonly [string, string, unknown])[] = [
  ['boolean', 't', true],
  ['boolean', 'f', false],
  ['smallint', '-32768', -32768],
  ['bigint', '999999999999999', 999999999999999],
  ['bigint', '9007199254740991', 9007199254740991],
  ['bigint', '9007199254740993', 9007199254740993n],
  ['bigint', '-9223372036854775808', -9223372036854775808n],
  ['oid', '4294967295', 4294967295],
  ['date', '1970-01-01', 0],
  ['date', '1969-12-31', -1],
  ['date', '2000-02-29', 11016],
  ['date', '0001-12-31 BC', -719163],
  ['date', '4713-01-01 BC', -2440550],
  ['date', '5874897-12-31', 2145042905],
  ['date', 'infinity', 2147483647],
  ['date', '-infinity', -2147483648],
  ['timestamp without time zone', '1970-01-01 00:00:00', 0],
  ['timestamp without time zone', '1969-12-31 23:59:59.999999', -1],
  ['timestamp without time zone', '2000-02-29 12:00:00.5', 951825600500000],
  ['timestamp without time zone', '0001-12-31 23:59:59.999999 BC', -62135596800000001n],
  ['timestamp without time zone', '294247-01-10 04:00:54.775806', 9223372036854775806n],
  ['timestamp with time zone', '2024-05-06 07:08:09.01+00', 1714979289010000],
  ['timestamp with time zone', '4713-01-01 00:00:00+00 BC', -210863520000000000n],
  ['timestamp with time zone', 'infinity', 9223372036854775807n],
  ['timestamp with time zone', '-infinity', -9223372036854775808n],
  ['double precision', '-0', -0],
  ['double precision', 'NaN', Number.NaN],
  ['double precision', '-Infinity', Number.NEGATIVE_INFINITY],
  ['double precision', '5e-324', 5e-324],
  ['double precision', '0.0001', 0.0001],
  ['double precision', '9.999999999999999e-05', 0.00009999999999999999],
  ['double precision', '999999999999999.9', 999999999999999.9],
  ['double precision', '1e+15', 1e15],
  ['double precision', '9.999999999999999e+22', 1e23],
  ['double precision', '1.7976931348623157e+308', Number.MAX_VALUE],
  ['real', '1e+06', 1e6],
  ['real', '0.1', Math.fround(0.1)],
  ['real', '2.0971522e+06', 2097152.25],
  ['real', '1e-45', 2 ** -149],
  ['real', '3.4028235e+38', Math.fround(3.4028235e38)],
  ['real', '-0', -0],
  ['bytea', '\\x00ff', Buffer.from([0, 255])],
  ['bytea', '\\x', Buffer.alloc(0)],
  ['uuid', '6ecd8c99-4036-403d-bf84-cf8400f67836', '6ecd8c99-4036-403d-bf84-cf8400f67836'],
  ['numeric', '1.00', '1.00'],
];

for (const [type, text, value] of known) {
  test(`${type} ${text}`, () => {
    const conversion = conversionOf(type);
    const given = conversion.toAvro(text);
    if (Buffer.isBuffer(value)) assert.equal(given, value);
    else assert.ok(Object.is(given, value), `${String(given)} instead of ${String(value)}`);
    assert.is(conversion.fromAvro(given), text);
  });
}

test('a timestamp past 64 bits is a TYPE_RANGE stop, the collision with infinity too', () => {
  for (const text of ['294247-01-10 04:00:54.775807', '294276-12-31 23:59:59.999999']) {
    assert.throws(
      () => conversionOf('timestamp without time zone').toAvro(text),
      (error: unknown) => error instanceof UnderstudyError && error.code === 'TYPE_RANGE',
    );
  }
});

test('float4 text is rounded once, not to a double exactly half way first', () => {
  const { toAvro } = conversionOf('real');
  const next = 1 + 2 ** -23;
  assert.is(toAvro('1.000000059604644775390625'), 1);
  assert.is(toAvro('1.000000059604644775390626'), next);
  assert.is(toAvro('-1.000000059604644775390626'), -next);
  assert.is(toAvro('1.000000178813934326171875'), 1 + 2 ** -22);
  assert.is(toAvro('1.000000178813934326171874'), next);
});

function thereAndBack<Value>(type: string, values: fc.Arbitrary<Value>): void {
  const { fromAvro, toAvro } = conversionOf(type);
  const same = (value: Value): boolean => Object.is(toAvro(fromAvro(value)), value);
  fc.assert(fc.property(values, same), { numRuns: 2000 });
}

test('any value there and back', () => {
  thereAndBack('double precision', fc.double());
  thereAndBack('real', fc.float());
  thereAndBack('integer', fc.integer());
  thereAndBack('date', fc.integer({ min: -2440550, max: 2145042905 }));
  const near = fc.integer({ min: -8_990_000_000_000_000, max: 8_990_000_000_000_000 });
  thereAndBack('timestamp without time zone', near);
  const far = fc.bigInt({ min: 9_000_000_000_000_000n, max: 2n ** 63n - 1n });
  thereAndBack('timestamp with time zone', far);
});

test.run();
