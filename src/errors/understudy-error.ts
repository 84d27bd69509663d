/**
 * The one error class that users see: a code, one line of cause, one hint with the exact remedy,
 * and the facts as fields for the log. Only the named factories of this folder create it, one file
 * for each family of failures. Messages never hold a secret.
 */
import { type ErrorCode, type ExitCode, errorTable } from './codes.ts';

/**
 * The names and numbers of the message, as fields for the log: `{ node: 'b', at: '3:0/16B3748' }`.
 */
export type ErrorFacts = Readonly<Record<string, string | number | boolean | null>>;

export class UnderstudyError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;
  readonly facts: ErrorFacts;

  constructor(
    code: ErrorCode,
    message: string,
    hint: string,
    cause?: unknown,
    facts: ErrorFacts = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'UnderstudyError';
    this.code = code;
    this.hint = hint;
    this.facts = facts;
  }

  get exit(): ExitCode {
    return errorTable[this.code].exit;
  }

  get retry(): boolean {
    return errorTable[this.code].retry;
  }

  toJSON(): { code: ErrorCode; message: string; hint: string; exit: ExitCode } {
    return { code: this.code, message: this.message, hint: this.hint, exit: this.exit };
  }
}

/** Whether an error has one of these codes; any other value has none. */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is UnderstudyError {
  return error instanceof UnderstudyError && codes.includes(error.code);
}
