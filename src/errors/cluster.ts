/**
 * Whether a cluster exists, and what a user has to allow or look into: ALREADY_INITIALISED,
 * NOT_INITIALISED, NEEDS_ALLOW_DATA_LOSS, DIFFERENT.
 */
import { UnderstudyError } from './understudy-error.ts';

/** The database that was to become a node is one already. */
export function belongsToOtherNode(node: string, cluster: string): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `the database is node ${node} of cluster ${cluster}`,
    `Correct the URL of the node, or take the database out of ${cluster}: ` +
      `understudy detach ${node}`,
    undefined,
    { node, cluster },
  );
}
