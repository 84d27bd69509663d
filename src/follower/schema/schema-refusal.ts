/**
 * What a follower's Postgres says to a statement of the leader's schema, in words. Flows in: the
 * statement and the error; flows out: one error that names both, with the remedy. An error of the
 * connection is none of the statement, and comes back as it was. Pure.
 */

import { UnderstudyError } from '../../errors/understudy-error.ts';
import { boundedDelayMs } from '../../waiting.ts';
import { describeStatement, extensionOf } from './schema-plan.ts';

export const undefinedObject = '42704';

export function sqlStateOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

/** What Postgres says of a statement; the session and the other statements are not concerned. */
export class StepRefused extends UnderstudyError {
  readonly reason: string;

  constructor(
    { code, message, hint }: Pick<UnderstudyError, 'code' | 'message' | 'hint'>,
    reason: string,
    cause: unknown,
  ) {
    super(code, message, hint, cause);
    this.reason = reason;
  }
}

export function held(statement: string, node: string, cause: unknown): UnderstudyError {
  const reason = 'waited too long for a lock';
  const message = `${describeStatement(statement)} ${reason} on node ${node}`;
  const hint = 'End the transactions that hold it: see pg_stat_activity and pg_locks there.';
  return new StepRefused({ code: 'TIMED_OUT', message, hint }, reason, cause);
}

const connectionStates = /^(?:|08...|57P0[123])$/;

/** A connection that died says nothing of the statement. */
export function refused(statement: string, node: string, error: unknown): unknown {
  const code = sqlStateOf(error);
  if (error instanceof UnderstudyError || connectionStates.test(code)) return error;
  const reason = error instanceof Error ? (error.message.split('\n', 1)[0] ?? '') : String(error);
  const message = `node ${node} refuses ${describeStatement(statement)}: ${reason}`;
  const hint = buildHint(statement, code, node);
  return new StepRefused({ code: 'SCHEMA_BUILD_FAILED', message, hint }, reason, error);
}

const duplicates = ['42710', '42P07', '42P06', '42723', '42P04'];

function buildHint(statement: string, code: string, node: string): string {
  const extension = extensionOf(statement);
  if (extension !== null && code !== '42501') {
    return (
      `Install the extension ${extension} on the server of node ${node} (those of PostgreSQL are ` +
      `in the package postgresql-contrib, others in their own, such as postgresql-18-${extension}` +
      '), then try again.'
    );
  }
  if (code === '42501') {
    return `Give the role of the URL of node ${node} that right, or let a superuser build there.`;
  }
  if (code === undefinedObject) {
    return `Make on the server of node ${node} what is missing, then try again.`;
  }
  if (duplicates.includes(code)) {
    return `Drop it on node ${node}, or make that database anew: it has to be empty for this.`;
  }
  return `Remove the cause on node ${node}, then try again: what was built stays.`;
}

const retryPauses = { baseMs: 4_000, capMs: 10 * 60_000 };
const pausePerTry = 10;

/**
 * How long what was refused is left alone. While an index is made the applier waits for its table:
 * tries that take long stay a small share of the time.
 */
export function pauseAfterRefusalMs(tries: number, tookMs: number, random: () => number): number {
  return Math.max(boundedDelayMs(tries, retryPauses, random), tookMs * pausePerTry);
}
