/**
 * The answer of a command as text: outcomes and errors as the JSON object of --json, as lines for
 * people, and as an exit code. Nothing is written here. Every failure, whatever was thrown, is one
 * line of cause and one of remedy, and holds no secret.
 */

import { type ErrorCode, exitCodes } from '../errors/codes.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import { Stopped } from '../lifecycle.ts';
import { isAbortOf } from '../waiting.ts';

interface Failure {
  /** STOPPED is an interrupted command, which is no error. */
  readonly code: ErrorCode | 'STOPPED';
  readonly message: string;
  readonly hint: string;
  readonly exit: number;
}

/** One line of JSON. Counts that Postgres returns as bigint are numbers, as documented. */
export function jsonLine(answer: object): string {
  return `${JSON.stringify(answer, bigintAsNumber)}\n`;
}

function bigintAsNumber(_key: string, value: unknown): unknown {
  if (typeof value !== 'bigint') return value;
  return value <= Number.MAX_SAFE_INTEGER && value >= Number.MIN_SAFE_INTEGER
    ? Number(value)
    : String(value);
}

/** For anything that can be thrown: an error without a code of ours is a bug. */
export function failureOf(
  error: unknown,
  signal: AbortSignal,
  redact: (text: string) => string,
): Failure {
  const line = (text: string): string => redact(text.replace(/\s*[\r\n]+\s*/g, ' ').trim());
  if (error instanceof UnderstudyError) {
    const { code, message, hint, exit } = error.toJSON();
    return { code, message: line(message), hint: line(hint), exit };
  }
  if (isAbortOf(error, signal)) {
    const reason: unknown = signal.reason;
    const message = reason instanceof Stopped ? reason.message : 'stopped';
    const exit = reason instanceof Stopped ? reason.exit : exitCodes.bug;
    return { code: 'STOPPED', message, hint: 'Run the command again.', exit };
  }
  return {
    code: 'BUG',
    message: line(`unexpected failure: ${thrownText(error)}`),
    hint: 'Please report this; UNDERSTUDY_LOG_LEVEL=debug adds the stack.',
    exit: exitCodes.bug,
  };
}

function thrownText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error && typeof error.code === 'string' ? ` (${error.code})` : '';
  return `${error.message === '' ? error.name : error.message}${code}`;
}

/** The stack followed by the stacks of the causes, for the debug level only. */
export function stackOf(error: unknown): string {
  const stacks: string[] = [];
  for (let at: unknown = error; at instanceof Error && stacks.length < 8; at = at.cause) {
    stacks.push(at.stack ?? at.message);
  }
  return stacks.join('\ncaused by ');
}

/** The two lines on stderr. */
export function failureLines(failure: Failure): readonly string[] {
  return [`error: ${failure.message}`, `HINT: ${failure.hint}`];
}

type Cell = string | number | bigint | boolean | null;

/** A table for people: columns as wide as needed, numbers to the right, `-` for the unknown. */
export function tableLines(
  headers: readonly string[],
  rows: readonly (readonly Cell[])[],
): readonly string[] {
  const texts = rows.map((row) => row.map((cell) => (cell === null ? '-' : String(cell))));
  const widths = headers.map((header, column) =>
    Math.max(header.length, ...texts.map((row) => (row[column] ?? '').length)),
  );
  const isNumeric = headers.map((_, column) =>
    rows.every((row) => row[column] === null || /^(number|bigint)$/.test(typeof row[column])),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return isNumeric[column] ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [line(headers), ...texts.map(line)];
}
