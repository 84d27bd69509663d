/**
 * Whether a cluster exists, and what a user has to allow or look into: ALREADY_INITIALISED,
 * NOT_INITIALISED, NEEDS_ALLOW_DATA_LOSS, DIFFERENT.
 */
import { type DatabasePlace, servedText } from './belonging.ts';
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

const removeFirst =
  'Remove the old cluster first (understudy destroy --yes), or choose another cluster name.';

export function topicExists(topic: string): UnderstudyError {
  const message = `the topic ${topic} exists already`;
  return new UnderstudyError('ALREADY_INITIALISED', message, removeFirst, undefined, { topic });
}

export function nodeOfCluster(node: string, cluster: string): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `node ${node} belongs to the cluster ${cluster}`,
    removeFirst,
    undefined,
    { node, cluster },
  );
}

/** Another init of the same name runs at the same time. */
export function firstEpochClaimed(cluster: string): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `another init claimed the first epoch of ${cluster}`,
    removeFirst,
    undefined,
    { cluster },
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
export function leaderLostDatabase(node: string, served: DatabasePlace | null): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    `node ${node} leads, and this database belongs to no cluster: ${servedText(node, served)}`,
    'Correct the URL of the node; in a copy of understudy.yaml, give the copy a cluster name of ' +
      'its own. If the database is lost, promote another node (understudy failover), then: ' +
      `understudy run ${node} --replace`,
    undefined,
    { node, served: served?.address ?? null },
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

/** The node and the leader of a failover that may lose rows. */
interface RiskyFailover {
  readonly node: string;
  /** Null where the last leader released its epoch. */
  readonly leader: string | null;
}

function needsAllowance(
  { node, leader }: RiskyFailover,
  message: string,
  before: string,
): UnderstudyError {
  const allow = `understudy failover ${node} --allow-data-loss --reason "…"`;
  const facts = { node, leader };
  return new UnderstudyError(
    'NEEDS_ALLOW_DATA_LOSS',
    message,
    `${before}: ${allow}`,
    undefined,
    facts,
  );
}

export function backfillNeedsAllowance(
  failover: RiskyFailover,
  tables: readonly string[],
): UnderstudyError {
  return needsAllowance(
    failover,
    `node ${failover.node} is backfilling ${tables.join(', ')}: as leader it would never get the ` +
      'missing rows',
    `Wait until understudy status shows it exact. If ${failover.leader ?? 'the leader'} cannot ` +
      'return, allow the loss',
  );
}

/** `lacks`: parts of the schema that its Postgres refuses. */
export function schemaNeedsAllowance(
  failover: RiskyFailover,
  lacks: readonly string[],
): UnderstudyError {
  return needsAllowance(
    failover,
    `node ${failover.node} would lead without parts of the schema: ${lacks.join('; ')}`,
    'Remove the cause on that node: its agent retries by itself. To promote it as it is',
  );
}

export function unpublishedNeedsAllowance(failover: RiskyFailover): UnderstudyError {
  return needsAllowance(
    failover,
    `durability is async: transactions that ${failover.leader ?? 'the leader'} acknowledged and ` +
      'did not publish yet would be lost',
    'If the leader cannot return, allow the loss',
  );
}

/** `open` are the damages that `repair-damage` would close. */
export function damageNotClosed(open: readonly string[]): UnderstudyError {
  return new UnderstudyError(
    'DAMAGED',
    `the topic is damaged, and nothing was changed: ${open.join('; ')}`,
    'Find out what removed or added records. To have every row published again and to close it: ' +
      'understudy repair-damage --reason <text>',
  );
}
