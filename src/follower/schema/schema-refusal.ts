/**
 * What a follower's Postgres answers to a statement of the leader's schema. The statement and the
 * error come in; one error that names both, with the remedy, comes out, and how long to wait before
 * the next attempt. An error of the connection is not about the statement, and is returned as it
 * is. Pure.
 */
import { statementLockTimeout, statementRefused } from '../../errors/row.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { boundedDelayMs } from '../../waiting.ts';
import { describeStatement, extensionOf } from './schema-plan.ts';

export function sqlStateOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

export function lockTimeout(statement: string, node: string, cause: unknown): UnderstudyError {
  return statementLockTimeout(describeStatement(statement), node, cause);
}

const connectionStates = /^(?:|08...|57P0[123])$/;

/** A lost connection is no refusal of the statement. */
export function refusalOf(statement: string, node: string, error: unknown): unknown {
  const sqlState = sqlStateOf(error);
  if (error instanceof UnderstudyError || connectionStates.test(sqlState)) return error;
  const reason = error instanceof Error ? (error.message.split('\n', 1)[0] ?? '') : String(error);
  const extension = extensionOf(statement);
  const refused = { statement: describeStatement(statement), node, sqlState, reason, extension };
  return statementRefused(refused, error);
}

const retryPauses = { baseMs: 4_000, capMs: 10 * 60_000 };
const pausePerTry = 10;

/**
 * How long to wait before a refused statement is retried. While an index is built the applier waits
 * for its table: attempts that take long stay a small share of the time.
 */
export function pauseAfterRefusalMs(tries: number, tookMs: number, random: () => number): number {
  return Math.max(boundedDelayMs(tries, retryPauses, random), tookMs * pausePerTry);
}
