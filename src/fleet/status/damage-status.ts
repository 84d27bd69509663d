/**
 * The damage of the topic that was ever found, as `status` lists it. Flows in: the content of the
 * control log; flows out: one entry for each, in the order in which they were found, with who
 * closed it, why and when. None is ever left out: whether a topic was whole at some time is asked
 * long after. Pure.
 */
import { formatEpochLsn } from '../../change/position.ts';
import type { ControlState } from '../../control/control-state.ts';
import type { DamageStatus } from './node-status.ts';

export function damageStatus({
  damage,
  repairs,
}: Pick<ControlState, 'damage' | 'repairs'>): DamageStatus[] {
  return [...damage.values()].map(({ id, at, reason, node, time }) => {
    const lsn = at === null ? null : formatEpochLsn(at);
    return { id, lsn, reason, node, time, repair: repairOf(repairs.get(id)) };
  });
}

function repairOf(record: DamageStatus['repair'] | undefined): DamageStatus['repair'] {
  if (record == null) return null;
  const { by, reason, time } = record;
  return { by, reason, time };
}
