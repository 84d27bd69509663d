/**
 * Which agent serves a node and which node owns the epoch: NODE_LOCKED, LOST_LEADERSHIP,
 * CLAIM_LOST, RESTORED_COPY, TIMELINE_MISMATCH and NOT_PROMOTABLE.
 */
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { repairHint } from './topic.ts';
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
    'This is expected after a promotion: `understudy status` shows the leader.',
    cause,
    { transactionalId, answer },
  );
}

/** `position` as text: `3:0/16B3748`. */
export function serverBehindEpoch(position: string): UnderstudyError {
  return new UnderstudyError(
    'TIMELINE_MISMATCH',
    `position ${position} is past the end of this server’s WAL`,
    'This server was restored from an older copy: fail over to a follower (`understudy failover ' +
      '<node>`). To continue with the rows of the copy instead: `understudy resnapshot --all`',
    undefined,
    { at: position },
  );
}

const seeWhoCan = 'Choose another node: `understudy status` shows which ones are promotable.';

/** `holder` describes the session that holds the lock. */
export function nodeLocked(node: string, holder: string): UnderstudyError {
  return new UnderstudyError(
    'NODE_LOCKED',
    `another agent serves node ${node} (${holder})`,
    'One agent per node: stop the other one first, or let it serve the node.',
    undefined,
    { node, holder },
  );
}

/** Of a node that led. Its database may hold commits that the stream never got. */
export function deposed(node: string, owner: string | null): UnderstudyError {
  return new UnderstudyError(
    'LOST_LEADERSHIP',
    `node ${node} no longer leads: ${owner ?? 'another node'} claimed the next epoch`,
    'Its writes are refused, and it cannot follow with this database. Save what only this ' +
      'database holds, then give the node a new empty database, which its agent builds from the ' +
      `log: \`understudy run ${node} --replace\``,
    undefined,
    { node, owner },
  );
}

/** The control log gives this node an epoch that the changes topic is already past. */
export function topicPastEpoch(inTopic: number, owned: number): UnderstudyError {
  return new UnderstudyError(
    'LOST_LEADERSHIP',
    `the topic holds epoch ${inTopic}, the control log gives this node epoch ${owned}`,
    'One of the two topics was replaced: destroy the cluster and init it again.',
    undefined,
    { inTopic, owned },
  );
}

export function claimLost(owner: string | null): UnderstudyError {
  return new UnderstudyError(
    'CLAIM_LOST',
    `node ${owner ?? 'of another claim'} took the lead first`,
    'See who leads now: `understudy status`',
    undefined,
    { owner },
  );
}

/** Compared are the start numbers of the database and of the control log. */
export function restoredCopy(node: string, ofDatabase: bigint, ofLog: bigint): UnderstudyError {
  return new UnderstudyError(
    'RESTORED_COPY',
    `the database of node ${node} has start number ${ofDatabase}, the control log has ${ofLog}`,
    'It was restored from an older copy and may lack writes. If this node leads, promote another ' +
      'one first (`understudy failover <node>`). Then give it a new empty database, which its ' +
      `agent builds from the log: \`understudy run ${node} --replace\``,
    undefined,
    { node, ofDatabase: String(ofDatabase), ofLog: String(ofLog) },
  );
}

interface ServerTimeline {
  readonly systemId: string;
  readonly timeline: number;
}

/** The server is another than the one on which the node led. */
export function serverChanged(
  node: string,
  led: ServerTimeline,
  now: ServerTimeline,
): UnderstudyError {
  return new UnderstudyError(
    'TIMELINE_MISMATCH',
    `node ${node} led on system ${led.systemId}, timeline ${led.timeline}; its server is now ` +
      `system ${now.systemId}, timeline ${now.timeline}`,
    'The LSNs of the stream do not apply to this server: promote a follower ' +
      '(`understudy failover <node>`).',
    undefined,
    { node, systemId: now.systemId, timeline: now.timeline },
  );
}

/** The server of the leader was replaced, as after the promotion of a physical standby. */
export function leaderServerReplaced(node: string): UnderstudyError {
  return new UnderstudyError(
    'TIMELINE_MISMATCH',
    `node ${node} is not the server on which its epoch began`,
    'Changes are missing in the stream, of any table. Read every table again: ' +
      '`understudy resnapshot --all`',
    undefined,
    { node },
  );
}

/** While a command waited for the leader of an earlier epoch. */
export function epochEnded(epoch: number): UnderstudyError {
  return new UnderstudyError(
    'LOST_LEADERSHIP',
    `epoch ${epoch} began meanwhile: its leader continues the resnapshot`,
    'See its progress: `understudy status`',
    undefined,
    { epoch },
  );
}

export function leadsAlready(node: string, epoch: number): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} owns epoch ${epoch} already`,
    `If it does not stream, start its agent: \`understudy run ${node}\``,
    undefined,
    { node, epoch },
  );
}

/** `damage` is the reason in the control log. */
export function topicDamaged(damage: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `the topic is damaged: ${damage}`,
    `No node is known to be exact. ${repairHint}`,
  );
}

/** The leader whose own records the topic lost: `damage` is the reason in the control log. */
export function leaderOfDamaged(node: string, damage: string): UnderstudyError {
  return new UnderstudyError(
    'DAMAGED',
    `node ${node} leads a topic that is damaged, and publishes nothing: ${damage}`,
    `${repairHint}, then start the agent: \`understudy run ${node}\``,
    undefined,
    { node },
  );
}

export function notOfStream(node: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} does not follow this stream`,
    seeWhoCan,
    undefined,
    { node },
  );
}

/** `reasons` as `status` shows them. */
export function rowsInDoubt(node: string, reasons: readonly string[]): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} cannot be promoted: ${reasons.join('; ')}`,
    'Choose another node (`understudy status`), or rebuild this one from the log: `understudy ' +
      `rebuild ${node}\``,
    undefined,
    { node },
  );
}

export function notCaughtUp(node: string, withinMs: number): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} did not reach the end of the log within ${withinMs} ms`,
    'Wait until `understudy status` shows it streaming, or choose another node.',
    undefined,
    { node, withinMs },
  );
}

/** All of the log is applied, and the position is not where the log ends. */
export function notAtLogEnd(node: string, at: EpochLsn, end: EpochLsn | null): UnderstudyError {
  const [atText, endText] = [formatEpochLsn(at), end === null ? null : formatEpochLsn(end)];
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} is at ${atText}, and the log ends at ${endText ?? 'no point'}`,
    seeWhoCan,
    undefined,
    { node, at: atText, end: endText },
  );
}

/** `lacks`: what of the schema is not built yet. */
export function schemaIncomplete(node: string, lacks: readonly string[]): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} lacks a part of the schema: ${lacks.join('; ')}`,
    'Wait until `understudy status` shows it promotable, or choose another node.',
    undefined,
    { node },
  );
}

export function stoppedDuringSchema(node: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} stopped following while its schema was being built`,
    'See its log, then retry.',
    undefined,
    { node },
  );
}

export function notBuilt(node: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} is being built from the log and is not exact yet`,
    'Wait until `understudy status` shows it exact, or choose another node.',
    undefined,
    { node },
  );
}
