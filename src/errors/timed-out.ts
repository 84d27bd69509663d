/**
 * An expected event that did not happen in time (TIMED_OUT). `timeoutMs` is how long it was waited
 * for.
 */
import { UnderstudyError } from './understudy-error.ts';

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
    `It is published when the agent of the leader runs: understudy run ${node}`,
    cause,
    { node, label },
  );
}

export function pointMissing(label: string, timeoutMs: number, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `there was no point ${label} within ${timeoutMs} ms`,
    'List the points: understudy points. Check that the agent of the leader runs.',
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
    'Find the reason: understudy status',
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
export function leaderSnapshotTimeout(timeoutMs: number, blockers: string): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the leader returned no consistent snapshot within ${timeoutMs} ms: it waits for every open ` +
      `transaction of the server (${blockers})`,
    'Wait for those transactions, or end them (SELECT pg_terminate_backend(pid)), then run ' +
      'verify again.',
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
    'See which transaction blocks them on the leader: SELECT pid, xact_start, query FROM ' +
      'pg_stat_activity ORDER BY xact_start; they are published once it has ended.',
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
    'End those transactions (SELECT pg_terminate_backend(pid)), then retry.',
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
    'End these by hand, or let the agent do it: GRANT pg_signal_backend to its role (sessions of ' +
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
    'Start the agent again: understudy run <node>',
  );
}

/** `what` is a lock or a group of transactions, `blockers` hold it up. */
export function writeGuardTimeout(what: string, blockers: readonly string[]): UnderstudyError {
  const shown = blockers.join(', ') || 'no session any more';
  return new UnderstudyError(
    'TIMED_OUT',
    `the write guard waited too long for ${what}: ${shown}`,
    'End these yourself, for example SELECT pg_terminate_backend(pid), then retry.',
    undefined,
    { what, blockers: shown },
  );
}
