/**
 * How far a node is that is being built from the log, in words. Flows in: the state of its
 * bootstrap; flows out: one line for `status`, and what keeps it from leading. Pure.
 */
import { UnderstudyError } from '../errors.ts';
import { type BootstrapState, shareRead } from '../follower/bootstrap-state.ts';

/** `isAtEnd`: whether it has applied all that the log holds. */
export function buildingText(state: BootstrapState, isAtEnd: boolean): string {
  const rows = state.rows.toLocaleString('en-US');
  if (state.horizon === null) {
    const percent = Math.floor(shareRead(state) * 100);
    return `it is being built from the log: ${percent} % read, ${rows} rows`;
  }
  if (!isAtEnd) {
    return `it is being built from the log: ${rows} rows read, not exact before the end of the log`;
  }
  return (
    'it is being built from the log, which ends where rows are missing: it becomes exact once a ' +
    'leader has published them'
  );
}

export function notBuilt(node: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} is being built from the log and is not exact yet`,
    'Wait until understudy status shows it exact, or choose another node.',
  );
}
