/**
 * STALE, FORKED, UNFINISHED, DETACHED: a follower that cannot go on, or whose rows are not exact.
 */
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { UnderstudyError } from './understudy-error.ts';

export function detachedAt(node: string, at: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'DETACHED',
    `node ${node} was detached at ${formatEpochLsn(at)} and is a database of its own`,
    'Remove it from understudy.yaml. Where `understudy status` shows that this has not ended: ' +
      `\`understudy detach ${node}\``,
    undefined,
    { node, at: formatEpochLsn(at) },
  );
}

/** `reason` is what its database answers. */
export function rowsNotExact(node: string, reason: string): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} is not exact: ${reason}`,
    'Wait until `understudy status` shows it exact, or choose another node.',
    undefined,
    { node },
  );
}

/** `lacks`: what of the schema is not built yet. */
export function schemaUnfinished(node: string, lacks: readonly string[]): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} lacks a part of the schema: ${lacks.join('; ')}`,
    'Detach it once its agent has built it: `understudy status` shows when.',
    undefined,
    { node },
  );
}

/** `backfilling` names the tables. */
export function backfillingAt(node: string, at: EpochLsn, backfilling: string): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} at ${formatEpochLsn(at)} is not exact: ${backfilling}`,
    'Detach it at a later position, or another node: `understudy status` shows which are exact.',
    undefined,
    { node, at: formatEpochLsn(at) },
  );
}

/** A rebuild was requested of a node that holds no older rows. */
export function builtAlready(node: string): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} is being built from the log already`,
    'See its progress: `understudy status`',
    undefined,
    { node },
  );
}

/** Its build was begun for the end of the log, before `run --until` asked for `until`. */
export function notExactAt(node: string, until: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} is at ${formatEpochLsn(until)} and is not exact: its build was begun for the ` +
      'end of the log',
    `Let it follow (\`understudy run ${node}\`), or give it a new database and run this again.`,
    undefined,
    { node, until: formatEpochLsn(until) },
  );
}

/** Refuses what needs the node's rows. */
export function notExact(node: string): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} is not exact: it is being built from the log`,
    'Retry once `understudy status` shows it exact, or use another node.',
    undefined,
    { node },
  );
}

/** Compaction may have removed records that the node has not read. */
export function stale(awayMs: number, keptMs: number, cause: unknown): UnderstudyError {
  const [awayS, keptS] = [Math.round(awayMs / 1_000), Math.round(keptMs / 1_000)];
  return new UnderstudyError(
    'STALE',
    `this node was away for ${awayS} s and the topic keeps each change for ${keptS} s: records ` +
      'that it has not read were compacted',
    'Build it again from the log: `understudy rebuild <node>`. With rebuild: swap or in-place in ' +
      'understudy.yaml its agent does so by itself.',
    cause,
    { awayMs, keptMs },
  );
}

/** `base` is null for an epoch that continues nothing. */
export function forked(epoch: number, base: EpochLsn | null, at: EpochLsn): UnderstudyError {
  const continued = base === null ? 'nothing' : formatEpochLsn(base);
  return new UnderstudyError(
    'FORKED',
    `epoch ${epoch} continues ${continued}, but this node is at ${formatEpochLsn(at)}`,
    'This node applied what the new leader never had. Build it again from the log: `understudy ' +
      'rebuild <node>`',
    undefined,
    { epoch, base: base === null ? null : formatEpochLsn(base), at: formatEpochLsn(at) },
  );
}
