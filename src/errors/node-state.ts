/**
 * A node that is in no state to do what was asked of it (PREREQUISITE): it leads, it does not
 * follow, its position is past the requested one. Positions are text, such as `3:0/16B3748`.
 */
import { UnderstudyError } from './understudy-error.ts';

/** The control log names the node as leader, and its database still follows. */
export function promotionUnfinished(node: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} owns the epoch, and its database is not promoted yet`,
    `Start its agent, which completes the promotion (\`understudy run ${node}\`), then retry.`,
    cause,
    { node },
  );
}

/** `what` is what would not happen without it. */
export function leaderAgentAbsent(leader: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `no agent of leader ${leader} runs: ${what}`,
    `Start it: \`understudy run ${leader}\`. If it ends, \`understudy status\` has its last error.`,
    undefined,
    { node: leader },
  );
}

/** `reason` is the message of the function of the `understudy` schema. */
export function positionDiscarded(
  node: string,
  target: string,
  reason: string,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} can never reach ${target}: ${reason}`,
    'The transactions there were discarded when another node was promoted. List the points that ' +
      'exist: `understudy points`',
    cause,
    { node, target },
  );
}

export function leaderNotDetachable(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is the leader: the other nodes follow its writes`,
    'Detach a follower. To keep this database alone and end the cluster: `understudy destroy`',
    undefined,
    { node },
  );
}

export function leaderNotRebuildable(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is the leader: the other nodes are built from its rows`,
    'Rebuild a follower: `understudy status` lists them.',
    undefined,
    { node },
  );
}

/** A node that was to be compared with the leader. */
export function leaderNotComparable(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is the leader, with which the others are compared`,
    'Name followers, or none for all: `understudy verify`',
    undefined,
    { node },
  );
}

export function formerLeaderNotComparable(node: string, leader: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} led before node ${leader} and does not follow: they have no common LSN`,
    'Name the nodes to compare: `understudy verify <node>…`',
    undefined,
    { node, leader },
  );
}

/** `delay` describes it: delayed by 15m. */
export function delayedNotComparable(node: string, delay: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is ${delay}, and the leader has no snapshot of that time`,
    'To compare it, remove its delay from understudy.yaml, restart its agent, and wait until ' +
      '`understudy status` shows it streaming.',
    undefined,
    { node },
  );
}

/** The cluster was initialised again, and the URL leads to a database of before. */
export function databaseOfOtherStream(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the database of node ${node} belongs to another stream of this name`,
    'Correct the URL of the node in understudy.yaml.',
    undefined,
    { node },
  );
}

export function notFollower(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is not a follower: it has no position in the stream`,
    'Choose a follower: `understudy status`',
    undefined,
    { node },
  );
}

/** Positions as text. */
export function alreadyPast(node: string, at: string, to: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is at ${at}, already past ${to}: a follower cannot move backwards`,
    'Choose a node that is further behind (`understudy status`), or build a new one and stop it ' +
      `there: \`understudy run <node> --until ${to}\``,
    undefined,
    { node, at, to },
  );
}

/** The node has followed as far as it could before the next epoch. */
export function noSuchPosition(node: string, at: string, to: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is at ${at}, and the stream has no ${to}: another epoch begins there`,
    'Name an earlier position: `understudy points`, `understudy status`',
    undefined,
    { node, at, to },
  );
}

/** Between a release and the next claim. */
export function leaderless(cluster: string, formerLeader: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `no node leads ${cluster}: node ${formerLeader} released its epoch`,
    'See which nodes are promotable: `understudy status`',
    undefined,
    { cluster, formerLeader },
  );
}

/** The URL of the node leads to the database of `found`. */
export function otherMember(
  node: string,
  found: { readonly name: string; readonly cluster: string },
): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the database of node ${node} is node ${found.name} of cluster ${found.cluster}`,
    'Correct the URL of the node in understudy.yaml.',
    undefined,
    { node, found: found.name, cluster: found.cluster },
  );
}

/** The agent holds the lock, so nothing may be changed under it. */
export function schemaOfOlderAgent(node: string, format: number, needed: number): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the understudy schema of node ${node} has format ${format}, this version needs ${needed}, ` +
      'and an agent of an older version serves the node',
    `Restart its agent with this version, which upgrades the schema: \`understudy run ${node}\``,
    undefined,
    { node, format, needed },
  );
}

/** For a command that only reads. */
export function schemaOlder(node: string, format: number, needed: number): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the understudy schema of node ${node} has format ${format}, and this version reads ${needed}`,
    `Start its agent with this version, which upgrades the schema: \`understudy run ${node}\``,
    undefined,
    { node, format, needed },
  );
}
