/**
 * What an agent does with evidence of damage. Flows in: the error that ended an attempt; flows out:
 * whether to read everything once more, from the position row on, before it is believed, and a
 * record of what was believed. Counts of the topic that add up for no node concern every node: they
 * go into the control log, and no node is promotable until `repair-damage` closes them. A row that
 * this node lacks concerns this node: it is kept in its own database.
 */
import { parseEpochLsn } from '../change/position.ts';
import type { ControlState } from '../control/control-state.ts';
import { isOfRows } from '../errors/node-damage.ts';
import { leaderOfDamaged } from '../errors/ownership.ts';
import { hasCode, type UnderstudyError } from '../errors/understudy-error.ts';
import type { NodeAccess } from '../fleet/node/node-access.ts';
import { saveDoubt } from '../follower/state/doubts.ts';

/** An error that comes back later than this is a new one. */
const sameTroubleMs = 10 * 60_000;

/** Outlives the attempts of an agent. */
export class Evidence {
  readonly #nowMs: () => number;
  #code = '';
  #seenMs = Number.NEGATIVE_INFINITY;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Whether another attempt has to find it too. What was read twice already needs none. */
  isDoubtful({ code, facts }: UnderstudyError): boolean {
    if (facts['readTwice'] === true) return false;
    const nowMs = this.#nowMs();
    const isSame = this.#code === code && nowMs - this.#seenMs < sameTroubleMs;
    this.#code = isSame ? '' : code;
    this.#seenMs = nowMs;
    return !isSame;
  }
}

/**
 * Gives whether the attempt is to be repeated. A row that was missing is noted at once: the log may
 * hold it whole by the next attempt, and others may be missing too.
 */
export async function weigh(
  node: NodeAccess,
  evidence: Evidence,
  error: unknown,
): Promise<boolean> {
  if (!hasCode(error, 'DAMAGED', 'NODE_DAMAGED')) return false;
  const { client, name, cluster } = node;
  // rule: missing-row-is-noted
  if (isOfRows(error)) await saveDoubt(client, { kind: 'damaged', what: error.message });
  if (evidence.isDoubtful(error)) {
    cluster.around.log.warn({ node: name, error }, 'found damage, reading once more to be sure');
    return true;
  }
  if (error.code === 'DAMAGED') await recordDamage(node, error);
  return false;
}

/**
 * A leader whose own records the topic lost stays stopped: its slot still holds what was not
 * confirmed, and what it published from here on would hide that the topic is not whole. Damage that
 * another node found is behind what the leader publishes.
 */
export function requireWholeTopic({ openDamage }: ControlState, leader: string): void {
  const own = [...openDamage.values()].find(({ node }) => node === leader);
  if (own !== undefined) throw leaderOfDamaged(leader, own.reason);
}

/** Once for all nodes that find it. While damage is open, no node may be promoted. */
async function recordDamage(
  { control, name, cluster }: NodeAccess,
  error: UnderstudyError,
): Promise<void> {
  const open = [...control.state.openDamage.values()];
  if (open.some(({ reason }) => reason === error.message)) return;
  await control.append({
    kind: 'damage',
    id: cluster.around.randomId(),
    epoch: control.state.current?.epoch ?? 1,
    at: parseEpochLsn(String(error.facts['at'] ?? '')),
    reason: error.message,
    node: name,
    time: new Date(cluster.around.nowMs()).toISOString(),
  });
}
