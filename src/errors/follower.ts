/**
 * STALE, FORKED, UNFINISHED, DETACHED: a follower that cannot go on, or whose rows are not exact.
 */
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { UnderstudyError } from './understudy-error.ts';

export function detachedAt(node: string, at: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'DETACHED',
    `node ${node} was detached at ${formatEpochLsn(at)} and is a database of its own`,
    'Remove it from understudy.yaml. Where understudy status shows that this has not ended: ' +
      `understudy detach ${node}`,
    undefined,
    { node, at: formatEpochLsn(at) },
  );
}

/** `reason` is what its database answers. */
export function rowsNotExact(node: string, reason: string): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} is not exact: ${reason}`,
    'Wait until understudy status shows it exact, or choose another node.',
    undefined,
    { node },
  );
}

/** Its build was begun for the end of the log, before it was told to stop at `until`. */
export function notExactAt(node: string, until: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} is at ${formatEpochLsn(until)} and is not exact: its build was begun for the ` +
      'end of the log',
    `Let it follow (understudy run ${node}), or give it a new database and run this again.`,
    undefined,
    { node, until: formatEpochLsn(until) },
  );
}

/** Refuses what needs the node's rows. */
export function notExact(node: string): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} is not exact: it is being built from the log`,
    'Retry once understudy status shows it exact, or use another node.',
    undefined,
    { node },
  );
}
