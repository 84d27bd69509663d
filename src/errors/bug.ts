/**
 * An internal rule of this program that was broken (BUG, exit 70). Neither a user nor a server can
 * cause it.
 */
import { type ErrorFacts, UnderstudyError } from './understudy-error.ts';

/** `broken` names the rule, in one line. */
export function bug(broken: string, cause?: unknown, facts?: ErrorFacts): UnderstudyError {
  return new UnderstudyError('BUG', broken, 'Please report this.', cause, facts);
}

/** For the default branch of a switch over a union: a new member does not compile. */
export function unreachable(value: never): never {
  throw bug(`unexpected ${JSON.stringify(value)}`);
}

/** Answers GET /status after an unknown error, whose text may hold a secret; the log redacts it. */
export function statusFailed(): UnderstudyError {
  return new UnderstudyError('BUG', 'the status could not be read', 'See the log of the agent.');
}
