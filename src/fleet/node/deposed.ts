/**
 * What a node is told that led and does not any more. Flows in: its name and its successor's; flows
 * out: the error that ends its agent.
 */
import { UnderstudyError } from '../../errors/understudy-error.ts';

export function deposed(node: string, owner: string | null): UnderstudyError {
  return new UnderstudyError(
    'LOST_LEADERSHIP',
    `node ${node} no longer leads: ${owner ?? 'another node'} claimed the next epoch`,
    'Its writes are refused. It cannot follow as it is: destroy the cluster and init it ' +
      'again to bring it back.',
  );
}
