/**
 * Leaves in the control log that the agent of a leader stopped at a change which the stream does
 * not carry, and removes it once the node leads again: followers may lack the change at their
 * positions, also where the leader's database, which has the error, is lost. Flows in: the error
 * that ends the agent; flows out: one record for each node, of which the last counts. It never
 * replaces the error itself.
 */
import { hasCode, type UnderstudyError } from '../errors/understudy-error.ts';
import type { NodeAccess } from '../fleet/node/node-access.ts';

type StoppingNode = Pick<NodeAccess, 'control' | 'name' | 'cluster'>;

export async function noteStop(node: StoppingNode, error: unknown): Promise<void> {
  if (hasCode(error, 'SCHEMA_CHANGED')) await append(node, error.toJSON());
}

export async function noteWorking(node: StoppingNode): Promise<void> {
  if (node.control.state.stops.has(node.name)) await append(node, null);
}

async function append(
  { control, name, cluster }: StoppingNode,
  error: ReturnType<UnderstudyError['toJSON']> | null,
): Promise<void> {
  const { log, nowMs } = cluster.around;
  const time = new Date(nowMs()).toISOString();
  try {
    await control.append({ kind: 'stop', node: name, error, time });
  } catch (failed) {
    log.warn({ node: name, error: failed }, 'could not record why the leader stopped');
  }
}
