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

/** `position` as text: `3:0/16B3748`. */
export function serverBehindEpoch(position: string): UnderstudyError {
  return new UnderstudyError(
    'TIMELINE_MISMATCH',
    `position ${position} is past the end of this server’s WAL`,
    'This server was restored from an older copy: fail over to a follower.',
    undefined,
    { at: position },
  );
}
