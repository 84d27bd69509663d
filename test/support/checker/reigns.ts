/**
 * Which writes had to outlive the changes of leader. Flows in: the epochs of a topic and the token
 * of a write; flows out: whether the write lies in what every later epoch continues. LSNs are
 * compared within one server's WAL only.
 */
import type { EpochBegin } from '../../../src/change/change.ts';
import type { EpochLsn } from '../../../src/change/position.ts';

export type Reign = Pick<EpochBegin, 'epoch' | 'leader' | 'systemId' | 'timeline' | 'base'>;

/** `survives`: below the base wherever another server took over. `unknown`: nobody can say. */
export type Fate = 'survives' | 'may be lost';

export function fateOf(token: EpochLsn | null, reigns: readonly Reign[]): Fate {
  if (token === null)
    return reigns.some((reign) => changesServer(reign, reigns)) ? 'may be lost' : 'survives';
  const later = reigns.filter(({ epoch }) => epoch > token.epoch).sort((a, b) => a.epoch - b.epoch);
  for (const reign of later) {
    // The same server goes on: its WAL is read again from the base, and nothing is left out.
    if (!changesServer(reign, reigns)) continue;
    // The token is at or after the end of the commit: at the base it is covered.
    return reign.base !== null && token.lsn <= reign.base.lsn ? 'survives' : 'may be lost';
  }
  return 'survives';
}

function changesServer(reign: Reign, reigns: readonly Reign[]): boolean {
  if (reign.base === null) return false;
  const before = reigns.findLast(({ epoch }) => epoch < reign.epoch);
  if (before === undefined) return true;
  return before.systemId !== reign.systemId || before.timeline !== reign.timeline;
}
