/**
 * The Avro schema of a table's rows, generated from its shape: flat, one field per column, every
 * column but the identity nullable with default null. Each field carries `pgType`, `columnId` and,
 * where the name had to be escaped, `pgName`. The same shape always gives the same JSON, so that
 * the registry gives the same id.
 */
import { type AvroKind, avroKindOf } from '../../catalog/types/column-types.ts';
import type { ColumnShape, RelationShape } from '../../change/change.ts';

interface RowField {
  readonly name: string;
  readonly type: unknown;
  readonly default?: null;
  readonly pgType: string;
  readonly columnId: string;
  readonly pgName?: string;
}

export interface RowSchema {
  readonly type: 'record';
  readonly name: string;
  readonly namespace: string;
  readonly relationId: string;
  readonly fields: readonly RowField[];
}

const rowNamespace = 'understudy.rows';

const avroTypes: Readonly<Record<AvroKind, unknown>> = {
  boolean: 'boolean',
  int: 'int',
  long: 'long',
  float: 'float',
  double: 'double',
  date: { type: 'int', logicalType: 'date' },
  'local-timestamp-micros': { type: 'long', logicalType: 'local-timestamp-micros' },
  'timestamp-micros': { type: 'long', logicalType: 'timestamp-micros' },
  uuid: { type: 'string', logicalType: 'uuid' },
  bytes: 'bytes',
  text: 'string',
};

/**
 * Avro does not accept its primitive types as names of records; a field `__proto__` is not a member
 * of a JavaScript object.
 */
const reservedNames: ReadonlySet<string> = new Set([
  ...['null', 'boolean', 'int', 'long', 'float', 'double', 'bytes', 'string'],
  '__proto__',
]);

/** Avro names are ASCII letters, digits and `_`; anything else becomes `_x<hex>_`. */
export function escapeAvroName(name: string): string {
  let escaped = '';
  for (const char of name) {
    const plain = /[A-Za-z0-9_]/.test(char);
    escaped += plain ? char : escapedChar(char);
  }
  if (reservedNames.has(escaped)) return `${escapedChar(escaped.charAt(0))}${escaped.slice(1)}`;
  return /^[A-Za-z_]/.test(escaped) ? escaped : `_${escaped}`;
}

function escapedChar(char: string): string {
  return `_x${(char.codePointAt(0) ?? 0).toString(16)}_`;
}

/** `public.orders` becomes `understudy.rows.public.orders`: a registry subject per relation id. */
export function rowRecordName(relationId: string): { name: string; namespace: string } {
  const segments = relationId.split('.').map(escapeAvroName);
  const name = segments.pop() ?? '_';
  return { name, namespace: [rowNamespace, ...segments].join('.') };
}

function fieldNames(columns: readonly ColumnShape[]): string[] {
  const used = new Set<string>();
  return columns.map((column) => {
    const escaped = escapeAvroName(column.name);
    let name = escaped;
    for (let n = 2; used.has(name); n += 1) name = `${escaped}_${n}`;
    used.add(name);
    return name;
  });
}

/** Fields are in the order of the shape's columns. */
export function rowSchemaOf(shape: RelationShape): RowSchema {
  const identity = new Set(shape.identity);
  const names = fieldNames(shape.columns);
  const fields = shape.columns.map((column, index): RowField => {
    const name = names[index] ?? '_';
    const type = avroTypes[avroKindOf(column.type)];
    const required = identity.has(column.id);
    return {
      name,
      type: required ? type : ['null', type],
      ...(required ? {} : { default: null }),
      pgType: column.type,
      columnId: column.id,
      ...(name === column.name ? {} : { pgName: column.name }),
    };
  });
  return { type: 'record', ...rowRecordName(shape.id), relationId: shape.id, fields };
}
