/**
 * Errors on their way through the control log: from the agent that failed to the command that asked
 * it. Code, message and hint arrive; cause and facts are in the log of the agent.
 */
import { type ErrorCode, errorTable } from './codes.ts';
import { UnderstudyError } from './understudy-error.ts';

/** What an agent answers. */
export function answerable(error: unknown): UnderstudyError {
  if (error instanceof UnderstudyError) return error;
  return new UnderstudyError('BUG', String(error), 'See the log of the agent.', error);
}

/** What a command throws. A newer agent may have codes that this version lacks. */
export function answeredWith(
  answer: { readonly code: string; readonly message: string; readonly hint: string },
  node: string,
): UnderstudyError {
  const { code, message, hint } = answer;
  const text = `node ${node}: ${message}`;
  return new UnderstudyError(isErrorCode(code) ? code : 'BUG', text, hint, undefined, { node });
}

function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(errorTable, text);
}
