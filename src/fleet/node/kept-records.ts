/**
 * What the broker has certainly kept. Flows in: the control log; flows out: the time from which on
 * no record of the stream has been taken for a newer one. The brokers' clocks count: they give the
 * times that cleaning goes by.
 */
import type { ControlLog } from '../../control/control-log.ts';
import { keptForMs } from '../../follower/apply/log-fit.ts';

/** The broker has just given a time to a record of ours. */
export async function brokerNowMs(control: ControlLog): Promise<number> {
  await control.verify();
  return control.newestAppendMs;
}

/** Nothing is, where nobody knows how long the topic keeps each change. */
export async function keptFromMs(control: ControlLog): Promise<number> {
  const lagMs = control.state.smallestCompactionLagMs;
  if (lagMs === null) return Number.POSITIVE_INFINITY;
  return (await brokerNowMs(control)) - keptForMs(lagMs);
}
