/**
 * `understudy points`: lists the named consistency points, the oldest first, with their LSN and
 * time, as the control log has them.
 */

import { compareEpochLsn, formatEpochLsn } from '../change/position.ts';
import type { RecordOf } from '../control/control-records.ts';
import { exitCodes } from '../errors/codes.ts';
import { openFleetLog } from '../fleet/node/member-session.ts';
import { tableLines } from './answer.ts';
import { clusterOf } from './cluster-of.ts';
import type { Command } from './command.ts';

type PointsInput = Readonly<Record<string, never>>;

export const pointsCommand: Command<PointsInput> = {
  name: 'points',
  examples: ['understudy points', 'understudy --json points'],
  declare: () => undefined,
  read: () => ({}),
  run: async (context) => {
    const control = await openFleetLog(clusterOf(context), context.releasers);
    const points = [...control.state.labels.values()]
      .sort((a, b) => compareEpochLsn(a.at, b.at))
      .map(namedPoint);
    const rows = points.map(({ label, lsn, time }) => [label, lsn, time]);
    const lines = rows.length === 0 ? ['no points'] : tableLines(['LABEL', 'LSN', 'TIME'], rows);
    return { answer: { points }, lines, exit: exitCodes.ok };
  },
};

interface NamedPoint {
  readonly label: string;
  readonly lsn: string;
  /** The commit time of the transaction before the point. */
  readonly time: string;
}

export function namedPoint({ label, at, commitTimeMicros }: RecordOf<'point'>): NamedPoint {
  return { label, lsn: formatEpochLsn(at), time: isoMicros(commitTimeMicros) };
}

/** `2025-11-21T09:30:00.123456Z`, of microseconds since 1970. */
export function isoMicros(micros: bigint): string {
  const ms = micros / 1000n;
  const rest = String(micros % 1000n).padStart(3, '0');
  return new Date(Number(ms)).toISOString().replace('Z', `${rest}Z`);
}
