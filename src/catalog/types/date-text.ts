/**
 * Converts date, timestamp and timestamptz between their text, under DateStyle ISO and TimeZone
 * UTC, and numbers counted from 1970, including years before Christ and infinities. The way back
 * returns exactly the same text. The calendar is the proleptic Gregorian one of Postgres.
 */
import { timestampOutOfRange } from '../../errors/topic.ts';

/** Postgres' own sentinels for infinity, the extreme values of the types. */
const dateInfinity = 2_147_483_647;
const dateMinusInfinity = -2_147_483_648;
const timestampInfinity = 9_223_372_036_854_775_807n;
const timestampMinusInfinity = -9_223_372_036_854_775_808n;

/** Below this many seconds (the year 2255) microseconds are exact as a JavaScript number. */
const numberSecondsMax = 9_000_000_000;

/** Days since 1970-01-01. */
export function daysFromDateText(text: string): number {
  if (text === 'infinity') return dateInfinity;
  if (text === '-infinity') return dateMinusInfinity;
  return daysOf(text, isBeforeChrist(text));
}

export function dateTextFromDays(days: number): string {
  if (days === dateInfinity) return 'infinity';
  if (days === dateMinusInfinity) return '-infinity';
  const date = civilOf(days);
  return date.year > 0 ? dateOf(date) : `${dateOf(date)} BC`;
}

/**
 * Microseconds since 1970, of a timestamp, or of a timestamptz printed in UTC (`+00`): a number
 * where that is exact, a bigint beyond.
 */
export function microsFromTimestampText(text: string): number | bigint {
  if (text === 'infinity') return timestampInfinity;
  if (text === '-infinity') return timestampMinusInfinity;
  const space = text.indexOf(' ');
  const secondOfDay =
    twoDigits(text, space + 1) * 3600 +
    twoDigits(text, space + 4) * 60 +
    twoDigits(text, space + 7);
  const seconds = daysOf(text, isBeforeChrist(text)) * 86_400 + secondOfDay;
  const micros = fractionOf(text, space + 9);
  if (Math.abs(seconds) < numberSecondsMax) return seconds * 1_000_000 + micros;
  const total = BigInt(seconds) * 1_000_000n + BigInt(micros);
  if (total < timestampInfinity) return total;
  throw timestampOutOfRange(text);
}

/** `zone` is empty for a timestamp and `+00` for a timestamptz. */
export function timestampTextFromMicros(micros: number | bigint, zone: '' | '+00'): string {
  if (micros === timestampInfinity) return 'infinity';
  if (micros === timestampMinusInfinity) return '-infinity';
  const isNumber = typeof micros === 'number';
  const rest = isNumber ? micros % 1_000_000 : Number(micros % 1_000_000n);
  const micro = rest < 0 ? rest + 1_000_000 : rest;
  const seconds = isNumber
    ? (micros - micro) / 1_000_000
    : Number((micros - BigInt(micro)) / 1_000_000n);
  const days = Math.floor(seconds / 86_400);
  const second = seconds - days * 86_400;
  const hours = pad2(Math.floor(second / 3600));
  const minutes = pad2(Math.floor(second / 60) % 60);
  const date = civilOf(days);
  const tail = micro === 0 ? '' : `.${trimZeros(String(micro).padStart(6, '0'))}`;
  const time = `${hours}:${minutes}:${pad2(second % 60)}${tail}${zone}`;
  return `${dateOf(date)} ${time}${date.year > 0 ? '' : ' BC'}`;
}

interface CivilDate {
  /** Astronomical: 0 is 1 BC. */
  readonly year: number;
  readonly month: number;
  readonly day: number;
}

function isBeforeChrist(text: string): boolean {
  return text.charCodeAt(text.length - 1) === 67; // C
}

/** Days since 1970 of the date at the start of the text; the year has four digits or more. */
function daysOf(text: string, beforeChrist: boolean): number {
  const dash = text.indexOf('-', 4);
  const written = Number(text.slice(0, dash));
  const year = beforeChrist ? 1 - written : written;
  return daysOfCivil(year, twoDigits(text, dash + 1), twoDigits(text, dash + 4));
}

function twoDigits(text: string, at: number): number {
  return text.charCodeAt(at) * 10 + text.charCodeAt(at + 1) - 528;
}

/** The microseconds after the dot at `dot`, up to six digits; 0 where there is no dot. */
function fractionOf(text: string, dot: number): number {
  if (text.charCodeAt(dot) !== 46) return 0;
  let micros = 0;
  let unit = 100_000;
  for (let at = dot + 1; at < dot + 7; at += 1) {
    const digit = text.charCodeAt(at) - 48;
    if (!(digit >= 0 && digit <= 9)) break;
    micros += digit * unit;
    unit /= 10;
  }
  return micros;
}

/** Counts in eras of 400 years from the first of March, so that leap days come last. */
function daysOfCivil(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const leapDays = Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100);
  return era * 146_097 + yearOfEra * 365 + leapDays + dayOfYear - 719_468;
}

function civilOf(days: number): CivilDate {
  const shifted = days + 719_468;
  const era = Math.floor(shifted / 146_097);
  const dayOfEra = shifted - era * 146_097;
  const leapDays =
    Math.floor(dayOfEra / 1460) - Math.floor(dayOfEra / 36_524) + Math.floor(dayOfEra / 146_096);
  const yearOfEra = Math.floor((dayOfEra - leapDays) / 365);
  const before = 365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100);
  const dayOfYear = dayOfEra - before;
  const shiftedMonth = Math.floor((5 * dayOfYear + 2) / 153);
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9;
  return {
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    day: dayOfYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1,
  };
}

function dateOf({ year, month, day }: CivilDate): string {
  const shown = year > 0 ? year : 1 - year;
  return `${String(shown).padStart(4, '0')}-${pad2(month)}-${pad2(day)}`;
}

function pad2(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}

function trimZeros(digits: string): string {
  let end = digits.length;
  while (digits.charCodeAt(end - 1) === 48) end -= 1;
  return digits.slice(0, end);
}
