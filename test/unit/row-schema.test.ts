/**
 * The Avro schema of a table: the same shape always gives the same text, and any name that Postgres
 * allows gives a schema that Avro takes.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { RelationShape } from '../../src/change/change.ts';
import { avroType } from '../../src/topic/records/avro-codec.ts';
import { escapeAvroName, rowRecordName, rowSchemaOf } from '../../src/topic/records/row-schema.ts';
import { shapeOf } from '../support/builders.ts';

function named(id: string, names: readonly string[]): RelationShape {
  const columns = names.map((name, i) => {
    return { id: `c${i}`, name, type: 'text', nullable: true, missing: null };
  });
  return { ...shapeOf(id), columns, identity: ['c0'] };
}

const avroName = /^[A-Za-z_][A-Za-z0-9_]*$/;

test('the schema is this text', () => {
  const shape = shapeOf(
    'public.orders',
    'id bigint',
    'price numeric(10,2)',
    'at timestamp(3) with time zone',
  );
  const expected = {
    type: 'record',
    name: 'orders',
    namespace: 'understudy.rows.public',
    relationId: 'public.orders',
    fields: [
      { name: 'id', type: 'long', pgType: 'bigint', columnId: 'id' },
      {
        name: 'price',
        type: ['null', 'string'],
        default: null,
        pgType: 'numeric(10,2)',
        columnId: 'price',
      },
      {
        name: 'at',
        type: ['null', { type: 'long', logicalType: 'timestamp-micros' }],
        default: null,
        pgType: 'timestamp(3) with time zone',
        columnId: 'at',
      },
    ],
  };
  assert.is(JSON.stringify(rowSchemaOf(shape)), JSON.stringify(expected));
});

test('names that Avro does not allow are escaped, and kept in pgName', () => {
  const names = ['id', 'a-b', 'a_x2d_b', '1st', 'größe', '🐘', '__proto__', ' '];
  const fields = rowSchemaOf(named('public.t', names)).fields;
  const expected = [
    ['id', undefined],
    ['a_x2d_b', 'a-b'],
    ['a_x2d_b_2', 'a_x2d_b'],
    ['_1st', '1st'],
    ['gr_xf6__xdf_e', 'größe'],
    ['_x1f418_', '🐘'],
    ['_x5f__proto__', '__proto__'],
    ['_x20_', ' '],
  ];
  assert.equal(
    fields.map(({ name, pgName }) => [name, pgName]),
    expected,
  );
});

test('a table may have the name of an Avro type', () => {
  const types = ['null', 'boolean', 'int', 'long', 'float', 'double', 'bytes', 'string'];
  for (const name of types) {
    const { name: escaped, namespace } = rowRecordName(`public.${name}`);
    assert.is(namespace, 'understudy.rows.public');
    assert.is(escaped, `_x${name.charCodeAt(0).toString(16)}_${name.slice(1)}`);
    assert.ok(avroType(rowSchemaOf(named(`public.${name}`, ['id']))));
  }
});

test('a relation id with dots, an empty part or a number still has a name', () => {
  assert.equal(rowRecordName('a.b.c'), { name: 'c', namespace: 'understudy.rows.a.b' });
  assert.equal(rowRecordName('a..c'), { name: 'c', namespace: 'understudy.rows.a._' });
  const again = { name: 'orders_x23_2', namespace: 'understudy.rows.public' };
  assert.equal(rowRecordName('public.orders#2'), again);
});

test('any names give a schema that Avro takes, with one field for each column', () => {
  const anyName = fc.string({ unit: 'binary', minLength: 1, maxLength: 20 });
  const reserved = fc.constantFrom('constructor', 'toString', '__proto__', 'null', 'a', 'A', 'a_2');
  const names = fc.uniqueArray(fc.oneof(anyName, reserved), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(anyName, names, (table, columns) => {
      const schema = rowSchemaOf(named(`public.${table}`, columns));
      const fields = schema.fields.map(({ name }) => name);
      assert.is(new Set(fields).size, columns.length);
      for (const name of [schema.name, ...schema.namespace.split('.'), ...fields]) {
        assert.match(name, avroName);
      }
      assert.ok(avroType(schema));
      assert.equal(
        schema.fields.map(({ name, pgName }) => pgName ?? name),
        columns,
      );
    }),
  );
});

test('escaping leaves plain names alone', () => {
  for (const name of ['a', '_a1', 'Orders', 'string_', 'constructor']) {
    assert.is(escapeAvroName(name), name);
  }
});

test.run();
