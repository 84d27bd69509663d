/**
 * Which nodes a verification compares. Flows in: who leads and who was detached, delays, and the
 * nodes that were named; flows out: the followers to compare with the leader, and who is left out,
 * with the reason. Pure.
 *
 * A delayed node stands at an earlier LSN, of which the leader has no snapshot any more. To bring
 * it to one of now would end what it is for, so it is never done for a comparison.
 */
import { formatEpochLsn } from '../../change/position.ts';
import type { ControlState } from '../../control/control-state.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
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
    throw new UnderstudyError(
      'PREREQUISITE',
      `node ${leader.node} leads: it is what the others are compared with`,
      `Name followers, or none for all: understudy verify`,
    );
  }
  const { nodeNames, delayMs } = settings;
  const chosen = { leader: leader.node, epoch: leader.epoch };
  for (const node of named) {
    requireAttached(state, node);
    if (delayMs(node) > 0) throw isDelayed(node, delayMs(node));
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
  if (delayMs(first.name) > 0) throw isDelayed(first.name, delayMs(first.name));
  requireAttached(state, first.name);
  return { ...chosen, followers, leftOut };
}

type VerifiedSettings = Pick<Cluster['settings'], 'nodeNames' | 'delayMs'>;

function isDelayed(node: string, delayMs: number): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is ${delayText(delayMs)}, and the leader has no snapshot of that time`,
    `To compare it, take its delay out of understudy.yaml, start its agent again, and wait until ` +
      'understudy status shows it streaming.',
  );
}
