/**
 * Whether a cluster exists, and what a user has to allow or look into: ALREADY_INITIALISED,
 * NOT_INITIALISED, NEEDS_ALLOW_DATA_LOSS, DIFFERENT.
 */
import { type DatabasePlace, placeText, servedText } from './belonging.ts';
import { UnderstudyError } from './understudy-error.ts';

/** The database that was to become a node is one already. */
export function belongsToOtherNode(node: string, cluster: string): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `the database is node ${node} of cluster ${cluster}`,
    `Correct the URL of the node, or take the database out of ${cluster}: ` +
      `\`understudy detach ${node}\``,
    undefined,
    { node, cluster },
  );
}

const anotherName = 'In a copy of understudy.yaml, give the copy a cluster name of its own.';

/** `leader` is null between two epochs. */
function streamText(cluster: string, stream: string, leader: string | null): string {
  return `the cluster ${cluster} exists: stream ${stream}, led by ${leader ?? 'no node now'}`;
}

/** The databases of understudy.yaml belong to it. */
export function clusterExists(
  cluster: string,
  stream: string,
  leader: string | null,
): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    streamText(cluster, stream, leader),
    'Start its agents (`understudy run <node>`), and see how it is: `understudy status`. To ' +
      'begin another ' +
      'stream with these databases, remove this one before: `understudy destroy`',
    undefined,
    { cluster, stream, leader },
  );
}

/** No database of understudy.yaml belongs to it. */
export function clusterElsewhere(
  cluster: string,
  stream: string,
  leader: string | null,
  served: DatabasePlace | null,
): UnderstudyError {
  const where = served === null ? '' : `, served from ${placeText(served)}`;
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `${streamText(cluster, stream, leader)}${where}; no database of understudy.yaml belongs to it`,
    `${anotherName} Or correct kafka.brokers, or the URLs of the nodes.`,
    undefined,
    { cluster, stream, leader },
  );
}

/** A new node of a file whose other nodes all answer, and are not of the stream. */
export function fileElsewhere(
  cluster: string,
  node: string,
  stream: string,
  leader: string | null,
  served: DatabasePlace | null,
): UnderstudyError {
  const where = served === null ? '' : `, served from ${placeText(served)}`;
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `${streamText(cluster, stream, leader)}${where}; no database of understudy.yaml belongs to it`,
    `${anotherName} Where the nodes of the file have lost their databases, and ${node} is to be ` +
      `built from the topic all the same: \`understudy run ${node} --replace\``,
    undefined,
    { cluster, node, stream, leader },
  );
}

export function controlLogUnreadable(cluster: string, reason: string): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `the cluster ${cluster} has a control log that cannot be read: ${reason}`,
    'Run the newest version of pg-understudy. What understudy.yaml leads to: `understudy destroy`',
    undefined,
    { cluster },
  );
}

/** The databases are those of a stream whose topics are not there, or hold nothing. */
export function topicsGone(cluster: string, node: string, stream: string): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `node ${node} belongs to the stream ${stream} of the cluster ${cluster}, and its topics are ` +
      'missing or empty',
    'Check kafka.brokers and cluster in understudy.yaml. If the topics are lost: `understudy ' +
      'destroy --yes`, then `understudy init --replace-rows`',
    undefined,
    { cluster, node, stream },
  );
}

/** An init of other databases that did not end, or another program. */
export function topicsOfNoStream(topic: string, isEmpty: boolean): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `topics of this cluster exist (${topic}), and no database of understudy.yaml belongs to them`,
    isEmpty
      ? `${anotherName} If an init was ended before it had begun, and none runs now, remove its ` +
          'empty topics: `understudy destroy --yes`'
      : anotherName,
    undefined,
    { topic },
  );
}

/** Another init of the same name made the topic at the same time. */
export function topicExists(topic: string): UnderstudyError {
  const message = `another init has created ${topic} meanwhile`;
  return new UnderstudyError('ALREADY_INITIALISED', message, anotherName, undefined, { topic });
}

/** Another init of the same name runs at the same time. */
export function firstEpochClaimed(cluster: string): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    `another init claimed the first epoch of ${cluster}`,
    anotherName,
    undefined,
    { cluster },
  );
}

export function notInitialised(cluster: string, cause?: unknown): UnderstudyError {
  const message = `the cluster ${cluster} has not been initialised`;
  return new UnderstudyError('NOT_INITIALISED', message, 'Run: `understudy init`', cause, {
    cluster,
  });
}

/** The topics exist, and the last step of init is missing. */
export function initUnfinished(cluster: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    `the control log of ${cluster} names no stream: init did not end`,
    'Run `understudy init` again: it removes what the first one left.',
    undefined,
    { cluster },
  );
}

export function nodeOfNoCluster(node: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    `node ${node} belongs to no cluster`,
    'Run: `understudy init`',
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
      'its own. If the database is lost, promote another node (`understudy failover ' +
      '<node>`), then: ' +
      `\`understudy run ${node} --replace\``,
    undefined,
    { node, served: served?.address ?? null },
  );
}

/** A follower is opened in a database that was never prepared. */
export function withoutPosition(): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    'this node is not a follower: it has no position in the stream',
    'Start its agent, which builds it from the log: `understudy run <node>`',
  );
}

/** The topic exists, and nothing was published to all of its partitions. */
export function noCommonPoint(): UnderstudyError {
  return new UnderstudyError(
    'NOT_INITIALISED',
    'no consistency point is in every partition of the topic: init did not end',
    'Run `understudy init` again: it removes what the first one left. If it refuses, a topic was ' +
      'emptied: `understudy destroy --yes`, then `understudy init --replace-rows`',
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
  const allow = `\`understudy failover ${node} --allow-data-loss --reason "<text>"\``;
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
    `Wait until \`understudy status\` shows it exact. If ${failover.leader ?? 'the leader'} ` +
      'cannot ' +
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
      '`understudy repair-damage --reason "<text>"`',
  );
}
