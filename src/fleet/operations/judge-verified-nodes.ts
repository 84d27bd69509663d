/**
 * Chooses the nodes that a verification compares: the followers, from the control log, the delays
 * and the nodes that were named; and the nodes that it leaves out, with the reason. Pure.
 *
 * A delayed node is at an earlier LSN, of which the leader no longer has a snapshot. To bring it to
 * a current one would defeat its delay, so a comparison never does that.
 */
import { formatEpochLsn } from '../../change/position.ts';
import type { ControlState } from '../../control/control-state.ts';
import { delayedNotComparable, leaderNotComparable } from '../../errors/node-state.ts';
import type { Cluster } from '../cluster.ts';
import { leaderOf, requireAttached } from '../node/member-session.ts';
import { delayText } from '../status/lag.ts';

export interface LeftOut {
  readonly name: string;
  readonly why: string;
}

interface ChosenNodes {
  readonly leader: string;
  readonly epoch: number;
  readonly followers: readonly string[];
  readonly leftOut: readonly LeftOut[];
}

export function chooseNodes(
  state: ControlState,
  { name: cluster, settings }: { readonly name: string; readonly settings: VerifiedSettings },
  named: readonly string[],
): ChosenNodes {
  const leader = leaderOf(state, cluster);
  if (named.includes(leader.node)) {
    throw leaderNotComparable(leader.node);
  }
  const { nodeNames, delayMs } = settings;
  const chosen = { leader: leader.node, epoch: leader.epoch };
  for (const node of named) {
    requireAttached(state, node);
    if (delayMs(node) > 0) throw delayedNotComparable(node, delayText(delayMs(node)));
  }
  if (named.length > 0) return { ...chosen, followers: named, leftOut: [] };
  const others = nodeNames.filter((name) => name !== leader.node);
  const leftOut = others.flatMap((name): LeftOut[] => {
    const detached = state.detached.get(name);
    if (detached !== undefined) {
      return [{ name, why: `detached at ${formatEpochLsn(detached.at)}` }];
    }
    return delayMs(name) > 0 ? [{ name, why: delayText(delayMs(name)) }] : [];
  });
  const followers = others.filter((name) => !leftOut.some((one) => one.name === name));
  const [first] = leftOut;
  if (followers.length > 0 || first === undefined) return { ...chosen, followers, leftOut };
  if (delayMs(first.name) > 0)
    throw delayedNotComparable(first.name, delayText(delayMs(first.name)));
  requireAttached(state, first.name);
  return { ...chosen, followers, leftOut };
}

type VerifiedSettings = Pick<Cluster['settings'], 'nodeNames' | 'delayMs'>;
