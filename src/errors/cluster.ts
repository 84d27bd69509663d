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

export function notInitialised(cluster: string, cause?: unknown): UnderstudyError {
  const message = `the cluster ${cluster} has not been initialised`;
  return new UnderstudyError('NOT_INITIALISED', message, 'Run: understudy init', cause, {
    cluster,
  });
}

/** The topics exist, and the last step of init is missing. */
export function initUnfinished(cluster: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    `the control log of ${cluster} names no stream: init did not end`,
    'Run: understudy destroy --yes, then: understudy init',
    undefined,
    { cluster },
  );
}

export function nodeOfNoCluster(node: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    `node ${node} belongs to no cluster`,
    'Run: understudy init',
    undefined,
    { node },
  );
}

/** The control log says that the node leads, and its database is not a node. */
export function leaderLostDatabase(node: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    `node ${node} leads, and its database belongs to no cluster`,
    'If its database is lost, promote another node first (understudy failover), then run this ' +
      'again; else correct the URL of the node.',
    undefined,
    { node },
  );
}

/** A follower is opened in a database that was never prepared. */
export function withoutPosition(): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    'this node is not a follower: it has no position in the stream',
    'Start its agent, which builds it from the log: understudy run <node>',
  );
}

/** The topic exists, and nothing was published to all of its partitions. */
export function noCommonPoint(): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    'no consistency point is in every partition of the topic: init did not end',
    'Run: understudy destroy --yes, then: understudy init',
  );
}
