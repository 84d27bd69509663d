/**
 * Tells the control log of damage. Flows in: a node and what it found; flows out: one record, also
 * when several nodes find the same. The topic is everybody's: while damage is open nobody may take
 * the lead.
 */
import type { UnderstudyError } from '../errors/understudy-error.ts';
import type { NodeAccess } from '../fleet/node/node-access.ts';

export async function recordDamage(
  { control, name, cluster }: NodeAccess,
  error: UnderstudyError,
): Promise<void> {
  const open = [...control.state.openDamage.values()];
  if (open.some(({ reason }) => reason === error.message)) return;
  await control.append({
    kind: 'damage',
    id: cluster.around.randomId(),
    epoch: control.state.current?.epoch ?? 1,
    at: null,
    reason: error.message,
    node: name,
    time: new Date(cluster.around.nowMs()).toISOString(),
  });
}
