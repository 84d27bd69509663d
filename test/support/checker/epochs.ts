/**
 * Which writes had to outlive the changes of leader. Flows in: the epochs of a topic and the token
 * of a write; flows out: whether the write lies in what every later epoch continues. LSNs are
 * compared within one server's WAL only.
 */
import type { EpochBegin } from '../../../src/change/change.ts';
import type { EpochLsn } from '../../../src/change/position.ts';

export type KnownEpoch = Pick<EpochBegin, 'epoch' | 'leader' | 'systemId' | 'timeline' | 'base'>;

/** `survives`: at or below the base wherever another server became the leader. */
export type Fate = 'survives' | 'may be lost';

export function fateOf(token: EpochLsn | null, epochs: readonly KnownEpoch[]): Fate {
  if (token === null)
    return epochs.some((one) => changesServer(one, epochs)) ? 'may be lost' : 'survives';
  const later = epochs.filter(({ epoch }) => epoch > token.epoch).sort((a, b) => a.epoch - b.epoch);
  for (const one of later) {
    // The same server goes on: its WAL is read again from the base, and nothing is left out.
    if (!changesServer(one, epochs)) continue;
    // The token is at or after the end of the commit: at the base it is covered.
    return one.base !== null && token.lsn <= one.base.lsn ? 'survives' : 'may be lost';
  }
  return 'survives';
}

function changesServer(one: KnownEpoch, epochs: readonly KnownEpoch[]): boolean {
  if (one.base === null) return false;
  const before = epochs.findLast(({ epoch }) => epoch < one.epoch);
  if (before === undefined) return true;
  return before.systemId !== one.systemId || before.timeline !== one.timeline;
}
