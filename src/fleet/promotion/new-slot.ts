/**
 * Ends the epoch of a leader whose slot is of no use any more. Flows in: the leader, without its
 * agent; flows out: another epoch of its own, with another slot, in which every row is to be read:
 * nobody knows what the old slot would have told.
 */
import { isMine, ownerOf } from '../../control/claim.ts';
import { deposed } from '../../errors/ownership.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { LeadTaking } from './promotion-steps.ts';

/** Gives the epoch that begins; it is its agent that reads the rows. */
export async function beginNextEpoch(node: NodeAccess, releasers: Releasers): Promise<number> {
  const { control, name, cluster } = node;
  const { log } = cluster.around;
  requireLeader(name, node.identity.role);
  const owner = ownerOf(control.state);
  if (owner === null || !isMine(control.state, name, owner.epoch)) {
    throw deposed(name, owner?.node ?? null);
  }
  const onStep = (step: string): void => log.info({ node: name, step }, 'beginning the next epoch');
  const taken = await new LeadTaking(node, releasers, null, onStep, true).take(owner.epoch + 1);
  if (taken === null) throw deposed(name, ownerOf(control.state)?.node ?? null);
  await taken.producer.close();
  return taken.epoch;
}

/** A node that was chosen and has not begun to lead may lack what others have. */
export function requireLeader(name: string, role: string): void {
  if (role === 'leader') return;
  throw new UnderstudyError(
    'PREREQUISITE',
    `node ${name} was chosen to lead and has not begun`,
    `Start its agent, which goes on with that: understudy run ${name}`,
  );
}
