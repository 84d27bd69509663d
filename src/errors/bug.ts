/**
 * A rule of this program that it broke itself (BUG, exit 70). Nothing that a person does or a
 * server answers leads here.
 */
import { type ErrorFacts, UnderstudyError } from './understudy-error.ts';

/** `broken` says which rule, in one line. */
export function bug(broken: string, cause?: unknown, facts?: ErrorFacts): UnderstudyError {
  return new UnderstudyError('BUG', broken, 'Please report this.', cause, facts);
}

/** For the default branch of a switch over a union: a new member does not compile. */
export function unreachable(value: never): never {
  throw bug(`unexpected ${JSON.stringify(value)}`);
}
