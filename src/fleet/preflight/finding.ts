/**
 * What a preflight has to say: findings. Flows in: what is wrong, with whose remedy; flows out: one
 * finding per cause, and the error that a verb refuses with because of them. Pure.
 */

import { type ErrorCode, type ExitCode, exitCodes } from '../../errors/codes.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';

/** What is worth knowing and stops nothing. Scripts match on these as on the codes of errors. */
type WarningCode =
  | 'SHARED_SERVER'
  | 'SYSTEM_ID_COPIED'
  | 'LOCALE_DIFFERS'
  | 'ENCODING_DIFFERS'
  | 'SLOT_MAY_BE_LOST'
  | 'SLOT_UNLIMITED'
  | 'PREPARED_TRANSACTIONS'
  | 'NO_TABLES'
  | 'NOT_IN_STREAM'
  | 'TABLE_UNLOGGED'
  | 'APPEND_ONLY'
  | 'NOT_NULL_DIFFERS'
  | 'GENERATED_DIFFERS'
  | 'TRIGGER_HELD'
  | 'TOPIC_SETTING'
  | 'NOT_LOOKED_AT';

interface FindingText {
  /** `node a`, `public.orders`, `shop.changes`, `kafka`, `registry`. */
  readonly object: string;
  readonly message: string;
  readonly hint: string;
}

export type Finding =
  | ({ readonly severity: 'error'; readonly code: ErrorCode } & FindingText)
  | ({ readonly severity: 'warning'; readonly code: WarningCode } & FindingText);

export function errorFinding(
  code: ErrorCode,
  object: string,
  message: string,
  hint: string,
): Finding {
  return { severity: 'error', code, object, message, hint };
}

export function warningFinding(
  code: WarningCode,
  object: string,
  message: string,
  hint: string,
): Finding {
  return { severity: 'warning', code, object, message, hint };
}

/**
 * The finding that a failure to look is. What the command line or the file says wrong is known
 * without any server and stays an error of its own; so does a bug.
 */
export function findingOf(error: unknown, object: string): Finding {
  if (!(error instanceof UnderstudyError) || error.exit === exitCodes.usage) throw error;
  // A message stands alone on its line, and an address does not say which node it is.
  const isNamed = !object.startsWith('node ') || error.message.includes(object);
  const message = isNamed ? error.message : `${object}: ${error.message}`;
  return errorFinding(error.code, object, message, error.hint);
}

function isUnreachable(finding: Finding): boolean {
  if (finding.severity === 'warning') return false;
  return new UnderstudyError(finding.code, '', '').exit === exitCodes.unreachable;
}

/** Errors before warnings, what is unreachable first, else in the order they were found. */
export function inOrderOfUrgency(findings: readonly Finding[]): Finding[] {
  const rank = (finding: Finding): number => {
    if (finding.severity === 'warning') return 2;
    return isUnreachable(finding) ? 0 : 1;
  };
  return [...findings].sort((a, b) => rank(a) - rank(b));
}

/** 0 without an error, 2 when something could not be reached, else 4. */
export function exitOfFindings(findings: readonly Finding[]): ExitCode {
  if (findings.some(isUnreachable)) return exitCodes.unreachable;
  const hasError = findings.some(({ severity }) => severity === 'error');
  return hasError ? exitCodes.notAsRequired : exitCodes.ok;
}

/** For verbs that need everything as required: throws the most urgent error, if there is any. */
export function refuseErrors(findings: readonly Finding[]): void {
  const [first] = inOrderOfUrgency(findings);
  if (first?.severity !== 'error') return;
  throw new UnderstudyError(first.code, first.message, first.hint);
}

/** `a, b, c and 4 more`. */
export function enumerate(names: readonly string[], shownMax = 3): string {
  const shown = names.slice(0, shownMax).join(', ');
  const rest = names.length - shownMax;
  return rest > 0 ? `${shown} and ${rest} more` : shown;
}
