/**
 * Nodes that are not, or are no longer, the owner of what they want to write: of the epoch, of a
 * claim or of a node.
 */
import { UnderstudyError } from './understudy-error.ts';

/** Kafka fenced the producer; `answer` is the name of its error code. */
export function otherPublisher(
  transactionalId: string,
  answer: string,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'LOST_LEADERSHIP',
    `another publisher took over ${transactionalId} (${answer})`,
    'This is expected after a promotion: understudy status shows the leader.',
    cause,
    { transactionalId, answer },
  );
}
