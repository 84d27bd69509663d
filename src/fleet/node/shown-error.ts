/**
 * What whoever asked an agent for something is told of its failure. Flows in: whatever was thrown;
 * flows out: an error with a code and a remedy. Pure.
 */
import { UnderstudyError } from '../../errors/understudy-error.ts';

export function shownError(error: unknown): UnderstudyError {
  if (error instanceof UnderstudyError) return error;
  return new UnderstudyError('BUG', String(error), 'See the log of the agent.', error);
}
