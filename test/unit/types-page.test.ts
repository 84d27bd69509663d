/**
 * docs/types.md and the code agree: every type of the matrix has its line there, with the
 * Avro type that a column of it gets.
 */
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { avroKindOf } from '../../src/catalog/types/column-types.ts';
import { matrixTypes } from '../support/type-values.ts';

const page = readFileSync(new URL('../../docs/types.md', import.meta.url), 'utf8');

/** By the name in back quotes, the second column of its first line. */
const lines = new Map(
  page
    .split('\n')
    .reverse()
    .flatMap((line) => {
      const [, names = '', avro = ''] = line.split('|');
      return [...names.matchAll(/`([^`]+)`/g)].map(([, name = '']) => [name, avro] as const);
    }),
);

/** As format_type prints it, where that is not what the matrix writes. */
const printed: Readonly<Record<string, string>> = {
  timestamp: 'timestamp without time zone',
  timestamptz: 'timestamp with time zone',
};

const avroOfKind: Readonly<Record<string, RegExp>> = {
  boolean: /^ `boolean` $/,
  int: /^ `int` $/,
  long: /^ `long` $/,
  float: /^ `float` $/,
  double: /^ `double` $/,
  date: /^ `int`, logical type `date` $/,
  'local-timestamp-micros': /^ `long`, logical type `local-timestamp-micros` $/,
  'timestamp-micros': /^ `long`, logical type `timestamp-micros` $/,
  uuid: /^ `string`, logical type `uuid` $/,
  bytes: /^ `bytes` $/,
  string: /^ `string`(?!, logical)/,
};

test('every type of the matrix has the Avro type that the page gives', () => {
  let own = 0;
  for (const { type, avro, needs } of matrixTypes) {
    const base = type.replace(/\(.*\)/, '').replace(' year to month', '');
    const kind = avroKindOf(printed[base] ?? type);
    assert.is(kind === 'text' ? 'string' : kind, avro, type);
    if (type.startsWith('public.')) {
      own += 1;
      assert.is(avro, 'string');
      continue;
    }
    assert.match(
      lines.get(base) ?? `${type} (${needs}) is not on the page`,
      avroOfKind[avro] ?? /-/,
    );
  }
  assert.ok(own > 10 && matrixTypes.length - own > 80);
});

test('types that are not supported have their line', () => {
  for (const name of ['pg_node_tree', 'gtsvector', 'pg_largeobject'])
    assert.ok(lines.has(name), name);
});

test.run();
