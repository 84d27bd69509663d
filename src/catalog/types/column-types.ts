/**
 * The Avro type of each Postgres type, and the exact conversions between their values. A type is
 * named as format_type prints it; a value is its text under the settings of our sessions, and is
 * converted to the value for Avro and back to exactly the same text. Types without an entry here
 * are converted as text.
 */
import {
  dateTextFromDays,
  daysFromDateText,
  microsFromTimestampText,
  timestampTextFromMicros,
} from './date-text.ts';
import { doubleFromText, floatFromText, textFromDouble, textFromFloat } from './float-text.ts';

/** The JavaScript value of each kind. Longs are numbers where that is exact, bigints beyond. */
interface AvroValues {
  boolean: boolean;
  int: number;
  long: number | bigint;
  float: number;
  double: number;
  /** Days since 1970; infinities are the extreme 32-bit values. */
  date: number;
  /** Microseconds since 1970; infinities are the extreme 64-bit values. */
  'local-timestamp-micros': number | bigint;
  'timestamp-micros': number | bigint;
  uuid: string;
  bytes: Buffer;
  text: string;
}

export type AvroKind = keyof AvroValues;

/** Between the text of a type and its Avro value; `fromAvro` returns exactly the same text. */
export interface ColumnConversion {
  readonly kind: AvroKind;
  toAvro(text: string): unknown;
  fromAvro(value: unknown): string;
}

const avroKinds: ReadonlyMap<string, AvroKind> = new Map<string, AvroKind>([
  ['boolean', 'boolean'],
  ['smallint', 'int'],
  ['integer', 'int'],
  ['bigint', 'long'],
  ['oid', 'long'],
  ['real', 'float'],
  ['double precision', 'double'],
  ['date', 'date'],
  ['timestamp without time zone', 'local-timestamp-micros'],
  ['timestamp with time zone', 'timestamp-micros'],
  ['uuid', 'uuid'],
  ['bytea', 'bytes'],
]);

/**
 * By the type's name without its modifier. Under our empty search_path the names of other schemas
 * are qualified, so a user's type named `date` is not taken for that of Postgres; domains, enums
 * and arrays have names of their own and are text.
 */
export function avroKindOf(pgType: string): AvroKind {
  return avroKinds.get(pgType.replace(/\(\d+\)/, '')) ?? 'text';
}

function conversion<Kind extends AvroKind>(
  kind: Kind,
  toAvro: (text: string) => AvroValues[Kind],
  fromAvro: (value: AvroValues[Kind]) => string,
): ColumnConversion {
  return { kind, toAvro, fromAvro: fromAvro as (value: unknown) => string };
}

const conversions: Readonly<Record<AvroKind, ColumnConversion>> = {
  boolean: conversion(
    'boolean',
    (text) => text === 't',
    (value) => (value ? 't' : 'f'),
  ),
  int: conversion('int', Number, String),
  long: conversion('long', longFromText, String),
  float: conversion('float', floatFromText, textFromFloat),
  double: conversion('double', doubleFromText, textFromDouble),
  date: conversion('date', daysFromDateText, dateTextFromDays),
  'local-timestamp-micros': conversion(
    'local-timestamp-micros',
    microsFromTimestampText,
    (micros) => timestampTextFromMicros(micros, ''),
  ),
  'timestamp-micros': conversion('timestamp-micros', microsFromTimestampText, (micros) =>
    timestampTextFromMicros(micros, '+00'),
  ),
  uuid: conversion('uuid', same, same),
  bytes: conversion(
    'bytes',
    (text) => Buffer.from(text.slice(2), 'hex'),
    (value) => `\\x${value.toString('hex')}`,
  ),
  text: conversion('text', same, same),
};

/** The conversion of a type as format_type prints it. */
export function conversionOf(pgType: string): ColumnConversion {
  return conversions[avroKindOf(pgType)];
}

/** Up to 15 digits are below 2^53 and so exact as a number. */
const exactNumberLength = 15;

function longFromText(text: string): number | bigint {
  if (text.length <= exactNumberLength) return Number(text);
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : BigInt(text);
}

function same(text: string): string {
  return text;
}
