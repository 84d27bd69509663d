/**
 * The findings of a preflight, one per cause, each with its remedy and the statements of it; their
 * order, their exit code, and the error with which a verb refuses because of them. Pure.
 */

import { type ErrorCode, type ExitCode, errorTable, exitCodes } from '../../errors/codes.ts';
import { unmetRequirement } from '../../errors/prerequisite.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';

/** Warnings stop no command. Scripts match on these codes as on those of errors. */
type WarningCode =
  | 'SHARED_SERVER'
  | 'SYSTEM_ID_COPIED'
  | 'LOCALE_DIFFERS'
  | 'ENCODING_DIFFERS'
  | 'SLOT_MAY_BE_LOST'
  | 'SLOT_UNLIMITED'
  | 'SLOT_LEFT'
  | 'PREPARED_TRANSACTIONS'
  | 'SEQUENCE_CLOSED'
  | 'NO_TABLES'
  | 'PATTERN_UNMATCHED'
  | 'NODE_NOT_NAMED'
  | 'NOT_IN_STREAM'
  | 'TABLE_UNLOGGED'
  | 'APPEND_ONLY'
  | 'NOT_NULL_DIFFERS'
  | 'GENERATED_DIFFERS'
  | 'TRIGGER_HELD'
  | 'TOPIC_SETTING'
  | 'NOT_LOOKED_AT';

/** One statement of a remedy. It ends in a semicolon and runs as it is. */
export interface RemedyStatement {
  /** In whose database it is to run. */
  readonly node: string;
  readonly statement: string;
  /** Why a person has to decide on it; null where it may be run with the others. */
  readonly caution: string | null;
}

/** What findings of one kind have in common, for people who read many of them. */
interface FindingGroup {
  /** After their number: `tables have no replica identity`. */
  readonly cause: string;
  readonly remedy: string;
  /** This one in the list of them, such as the name of its table. */
  readonly item: string;
}

interface FindingText {
  /** `node a`, `public.orders`, `shop.changes`, `kafka`, `registry`. */
  readonly object: string;
  readonly message: string;
  readonly hint: string;
  /** In the order in which they run; none where statements are not the remedy. */
  readonly sql: readonly RemedyStatement[];
  readonly group: FindingGroup | null;
}

interface FindingMore {
  readonly sql?: readonly RemedyStatement[];
  readonly group?: FindingGroup;
}

export type Finding =
  | ({ readonly severity: 'error'; readonly code: ErrorCode } & FindingText)
  | ({ readonly severity: 'warning'; readonly code: WarningCode } & FindingText);

export function errorFinding(
  code: ErrorCode,
  object: string,
  message: string,
  hint: string,
  { sql = [], group }: FindingMore = {},
): Finding {
  return { severity: 'error', code, object, message, hint, sql, group: group ?? null };
}

export function warningFinding(
  code: WarningCode,
  object: string,
  message: string,
  hint: string,
  { sql = [], group }: FindingMore = {},
): Finding {
  return { severity: 'warning', code, object, message, hint, sql, group: group ?? null };
}

/**
 * A failed check as a finding. Errors of the command line and of the file are known without any
 * server and are rethrown; so are bugs.
 */
export function findingOf(error: unknown, object: string): Finding {
  if (!(error instanceof UnderstudyError) || error.exit === exitCodes.usage) throw error;
  // Its line has nothing else, and an address does not name the node.
  const isNamed = !object.startsWith('node ') || error.message.includes(object);
  const message = isNamed ? error.message : `${object}: ${error.message}`;
  return errorFinding(error.code, object, message, error.hint);
}

function isUnreachable(finding: Finding): boolean {
  if (finding.severity === 'warning') return false;
  return errorTable[finding.code].exit === exitCodes.unreachable;
}

/** Errors before warnings, unreachable servers first, else in the order of the checks. */
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

/** For verbs that need all requirements met: throws the most urgent error, if there is any. */
export function refuseErrors(findings: readonly Finding[]): void {
  const [first] = inOrderOfUrgency(findings);
  if (first?.severity !== 'error') return;
  throw unmetRequirement(first);
}

/** `a, b, c and 4 more`. */
export function enumerate(names: readonly string[], shownMax = 3): string {
  const shown = names.slice(0, shownMax).join(', ');
  const rest = names.length - shownMax;
  return rest > 0 ? `${shown} and ${rest} more` : shown;
}
