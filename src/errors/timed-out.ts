/**
 * An expected event that did not happen in time (TIMED_OUT). `timeoutMs` is how long it was waited
 * for.
 */
import { UnderstudyError } from './understudy-error.ts';

/** Sessions of agents and commands are named in the message by what they call themselves. */
const endSessions =
  'Wait for those named understudy: they are agents and commands. End the others ' +
  '(`SELECT pg_terminate_backend(<pid>)`)';

/** `part` is a database, the topic or the control log. */
export function statusPartTimeout(part: string, timeoutMs: number): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `${part} did not answer within ${timeoutMs} ms`,
    'Check its server, then retry.',
    undefined,
    { part, timeoutMs },
  );
}

/** The error itself is in the log of the agent. */
export function agentErrorNotLeft(node: string, timeoutMs: number): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the database of node ${node} did not take the agent’s error within ${timeoutMs} ms`,
    'Read the error in the log of the agent.',
    undefined,
    { node, timeoutMs },
  );
}

/** Of the HTTP server, whose callers give up soon. */
export function statusTimeout(timeoutMs: number): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `no status within ${timeoutMs} ms`,
    'Request it again, or run `understudy status`.',
    undefined,
    { timeoutMs },
  );
}

/** The label is in the WAL of the leader. */
export function pointNotPublished(node: string, label: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the point ${label} is in the WAL of node ${node}, but not in the log yet`,
    `It is published when the agent of the leader runs: \`understudy run ${node}\``,
    cause,
    { node, label },
  );
}

export function pointMissing(label: string, timeoutMs: number, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `there was no point ${label} within ${timeoutMs} ms`,
    'List the points: `understudy points`. Check that the agent of the leader runs.',
    cause,
    { label, timeoutMs },
  );
}

/** `at` is the position of the node now; null where it has none. */
export function pointNotReached(
  node: string,
  at: string | null,
  target: string,
  timeoutMs: number,
): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${node} is at ${at ?? 'no position'} and did not reach ${target} within ${timeoutMs} ms`,
    'Find the reason: `understudy status`',
    undefined,
    { node, at, target, timeoutMs },
  );
}

export function controlLogTimeout(timeoutMs: number): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the expected record was not in the control log within ${timeoutMs} ms`,
    'Check that Kafka is reachable and that the agents run: `understudy status` shows both.',
    undefined,
    { timeoutMs },
  );
}

/** For a wait that was under way. */
export function controlLogClosed(): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    'the control log was closed during a wait',
    'Nothing is wrong if this process was stopped. Start it again to continue.',
  );
}

/** `blockers` are the transactions that hold up the creation of its slot. */
/** `end` is the end of the log, null where it is empty. */
export function logTooShort(to: string, end: string | null, timeoutMs: number): UnderstudyError {
  const where = end === null ? 'is empty' : `ends at ${end}`;
  return new UnderstudyError(
    'TIMED_OUT',
    `the log ${where} and did not reach ${to} within ${timeoutMs} ms`,
    'Nothing was changed. Check the LSN, and that the agent of the leader runs: `understudy ' +
      'status`',
    undefined,
    { to, end, timeoutMs },
  );
}

/** The agent was asked through the control log; `verb` asks again. */
export function agentTimeout(
  node: string,
  verb: 'detach' | 'rebuild',
  timeoutMs: number,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the agent of node ${node} did not answer within ${timeoutMs / 1000} s`,
    `See its log and \`understudy status\`, then retry: \`understudy ${verb} ${node}\``,
    cause,
    { node, timeoutMs },
  );
}

export function promotionTimeout(node: string, timeoutMs: number, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the agent of node ${node} did not promote it within ${timeoutMs / 1000} s`,
    'See its log, then retry: agents ignore a request that is older than this.',
    cause,
    { node, timeoutMs },
  );
}

/** The epoch is claimed: no retry is needed. */
export function promotionIncomplete(
  node: string,
  epoch: number,
  timeoutMs: number,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${node} has claimed epoch ${epoch} and does not lead after ${timeoutMs / 1000} s`,
    'Its agent completes the promotion whenever it runs: see its log, or start it: ' +
      `\`understudy run ${node}\``,
    cause,
    { node, epoch, timeoutMs },
  );
}

/** Another command moved the node while it was being detached. */
export function detachInterrupted(node: string): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${node} got another request meanwhile`,
    `A verify asked it to hold. Run it again: \`understudy detach ${node}\``,
    undefined,
    { node },
  );
}

/** A session that waits for a token uses the schema for as long as it waits. */
export function schemaInUse(node: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `a session on node ${node} uses the schema understudy: it waits for a token`,
    `End it (\`SELECT pid, query FROM pg_stat_activity\`), then retry: ` +
      `\`understudy detach ${node}\``,
    cause,
    { node },
  );
}

export function holdTimeout(node: string, timeoutMs: number, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the agent of node ${node} does not answer`,
    `Start it: \`understudy run ${node}\``,
    cause,
    { node, timeoutMs },
  );
}

/** `to` is the LSN of the leader's snapshot. */
export function snapshotNotReached(
  node: string,
  to: string,
  timeoutMs: number,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${node} did not reach ${to} within ${timeoutMs} ms`,
    `See its lag (\`understudy status\`), then wait for it: \`understudy wait ${node} --at ${to}\``,
    cause,
    { node, to, timeoutMs },
  );
}

export function repairTimeout(
  leader: string,
  table: string,
  timeoutMs: number,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${leader} did not publish rows of ${table} within ${timeoutMs} ms`,
    'Check that its agent leads (`understudy status`), and which transactions block it there: ' +
      '`SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start`; then repair ' +
      'again.',
    cause,
    { leader, table, timeoutMs },
  );
}

export function resnapshotNotBegun(timeoutMs: number): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the leader’s agent has published nothing for ${timeoutMs} ms`,
    'The request stays in the WAL of its database: start the agent (`understudy run <node>`); ' +
      '`understudy status` then shows the progress.',
    undefined,
    { timeoutMs },
  );
}

export function leaderSnapshotTimeout(timeoutMs: number, blockers: string): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the leader returned no consistent snapshot within ${timeoutMs} ms: it waits for every open ` +
      `transaction of the server (${blockers})`,
    `${endSessions}, then run verify again.`,
    undefined,
    { timeoutMs, blockers },
  );
}

/** `found` is the position of its snapshot; null where it has none. */
export function followerDidNotHold(
  node: string,
  at: string,
  found: string | null,
): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${node} did not stop at ${at}: the position of its snapshot is ${found ?? 'missing'}`,
    'Run verify again; run one verify at a time.',
    undefined,
    { node, at, found },
  );
}

export function tableLockTimeout(timeoutMs: number, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `a schema change locked a table of the stream for more than ${timeoutMs} ms`,
    'Wait until the schema change is over, then run verify again.',
    cause,
    { timeoutMs },
  );
}

export function topicWithoutLeaders(topic: string, withinMs: number): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `${topic} was created, but not every partition has a leader after ${withinMs} ms`,
    'Check that enough brokers run, then retry.',
    undefined,
    { topic, withinMs },
  );
}

export function rowsNotPublished(rows: number, timeoutMs: number): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `${rows} rows could not be read within ${timeoutMs} ms`,
    'See which transaction blocks them on the leader: `SELECT pid, xact_start, query FROM ' +
      'pg_stat_activity ORDER BY xact_start`; they are published once it has ended.',
    undefined,
    { rows, timeoutMs },
  );
}

/** Creating a slot waits for every open transaction of the server; `blockers` names them. */
export function slotNotReady(slot: string, timeoutMs: number, blockers: string): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the slot ${slot} was not ready within ${timeoutMs} ms: creating one waits for every open ` +
      `transaction of the server (${blockers})`,
    `${endSessions}, then retry.`,
    undefined,
    { slot, timeoutMs },
  );
}

/** A code that is retried, so that a test sees how the retry goes. */
export function failpointHit(name: string): UnderstudyError {
  return new UnderstudyError('TIMED_OUT', `failpoint ${name}`, 'Unset UNDERSTUDY_FAILPOINTS.');
}

/** `users` names the sessions and prepared transactions that could not be ended. */
export function databaseInUse(
  node: string,
  database: string,
  users: string,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the database ${database} of node ${node} could not be swapped: it is used by ${users}`,
    'End these by hand, or let the agent do it: `GRANT pg_signal_backend TO <role>` (sessions of ' +
      'superusers only a superuser ends). The agent retries by itself.',
    cause,
    { node, database, users },
  );
}

/** For a wait for its position. */
export function followerStopped(): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    'the follower stopped before it reached the position',
    'Start the agent again: `understudy run <node>`',
  );
}

/** `what` is a lock or a group of transactions, `blockers` hold it up. */
export function writeGuardTimeout(what: string, blockers: readonly string[]): UnderstudyError {
  const shown = blockers.join(', ') || 'no session any more';
  return new UnderstudyError(
    'TIMED_OUT',
    `the write guard waited too long for ${what}: ${shown}`,
    'End these yourself, for example `SELECT pg_terminate_backend(<pid>)`, then retry.',
    undefined,
    { what, blockers: shown },
  );
}
