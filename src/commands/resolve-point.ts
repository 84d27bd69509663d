/**
 * P as a place in the log. A point as people name it flows in; its epoch and end LSN flow out. Only
 * an LSN with its epoch stands for itself: the control log knows labels and the current epoch.
 */

import type { EpochLsn } from '../change/position.ts';
import type { ControlLog } from '../control/control-log.ts';
import { notInitialised } from '../errors/cluster.ts';
import { hasCode, UnderstudyError } from '../errors/understudy-error.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { openFleetLog } from '../fleet/node/member-session.ts';
import type { CommandContext } from './command.ts';
import type { PointReference } from './point-reference.ts';

/** Opens the control log only where it is needed: `wait` works while Kafka is away. */
export async function resolvePoint(
  { releasers, signal }: Pick<CommandContext, 'releasers' | 'signal'>,
  cluster: Cluster,
  at: PointReference,
  timeoutMs: number,
): Promise<EpochLsn> {
  if (at.kind === 'lsn' && at.epoch !== null) return { epoch: at.epoch, lsn: at.lsn };
  const control = await openFleetLog(cluster, releasers);
  return resolveIn(control, cluster.name, at, timeoutMs, signal);
}

/** Waits for a label that is not there yet: a point is named a moment after its transaction. */
export async function resolveIn(
  control: ControlLog,
  cluster: string,
  at: PointReference,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<EpochLsn> {
  if (at.kind === 'lsn') {
    const epoch = at.epoch ?? control.state.current?.epoch;
    if (epoch !== undefined) return { epoch, lsn: at.lsn };
    throw notInitialised(cluster);
  }
  const { label } = at;
  const named = control.waitFor(({ labels }) => labels.has(label), timeoutMs, signal);
  const { labels } = await named.catch((error: unknown) => {
    throw noSuchPoint(error, label, timeoutMs);
  });
  const point = labels.get(label);
  if (point === undefined) throw new Error('a label that was waited for is there');
  return point.at;
}

function noSuchPoint(error: unknown, label: string, timeoutMs: number): unknown {
  if (!hasCode(error, 'TIMED_OUT')) return error;
  return new UnderstudyError(
    'TIMED_OUT',
    `there was no point ${label} within ${timeoutMs} ms`,
    'Points that exist: understudy points. Check that the agent of the leader runs.',
    error,
  );
}
