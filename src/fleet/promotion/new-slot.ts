/**
 * Ends the epoch of a leader whose slot is lost or unusable: changes may be missing that the slot
 * would have sent. Without the leader's agent it begins another epoch of the same node, with
 * another slot, in which all tables are backfilling; the agent then reads them.
 */
import type { UnfinishedTable } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import { isMine, ownerOf } from '../../control/claim.ts';
import { deposed } from '../../errors/ownership.ts';
import { chosenToLead } from '../../errors/prerequisite.ts';
import { hit } from '../../failpoints.ts';
import { dropSlot, listSlots } from '../../leader/stream/slot.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { Watermarks } from '../../topic/log.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import { publicationName, slotName, slotPattern } from '../../topic/records/layout.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { requireCurable, takeAlteredTables } from './altered-tables.ts';
import { drainLedLog, requireLedLog } from './leader-restart.ts';
import { type Candidate, flushedLsn, PromotionSteps } from './promotion-steps.ts';
import {
  endedRelations,
  repairPublication,
  requestBackfill,
  resnapshotRelations,
} from './resnapshot-tables.ts';

/** Gives the epoch that begins. */
export async function beginEpochWithNewSlot(
  node: NodeAccess,
  releasers: Releasers,
): Promise<number> {
  const { control, name, cluster } = node;
  const { log } = cluster.around;
  requireLeader(name, node.identity.role);
  const owner = ownerOf(control.state);
  if (owner === null || !isMine(control.state, name, owner.epoch)) {
    throw deposed(name, owner?.node ?? null);
  }
  const onStep = (step: string): void => log.info({ node: name, step }, 'beginning the next epoch');
  const steps = new PromotionSteps(node, releasers, new NewSlot(node), onStep);
  const ready = await steps.run(owner.epoch + 1);
  if (ready === null) throw deposed(name, ownerOf(control.state)?.node ?? null);
  await ready.owner.close();
  return ready.epoch;
}

/** A node that owns the epoch and has not begun to lead may lack rows that others have. */
export function requireLeader(name: string, role: string): void {
  if (role !== 'leader') throw chosenToLead(name);
}

class NewSlot implements Candidate {
  readonly endsItsEpoch = true;
  readonly sequences = [];
  readonly lacks = [];
  readonly #node: NodeAccess;

  constructor(node: NodeAccess) {
    this.#node = node;
  }

  /**
   * The slots first, of which none is usable: an agent that starts after a crash here finds that it
   * has none. A slot that is older than its publication sends nothing, so the publication is
   * repaired before the new slot is created.
   */
  async prepare(): Promise<void> {
    const { client, cluster, name } = this.#node;
    await requireCurable(client);
    await resnapshotRelations(client, true);
    const slots = await listSlots(client, slotPattern(cluster.name));
    for (const slot of slots) await dropSlot(client, slot);
    await hit('anew.after-drop');
    for (const { known, what } of await takeAlteredTables(client)) {
      const table = `${known.shape.schema}.${known.shape.name}`;
      cluster.around.log.info({ node: name, table, what }, 'the stream takes a table as it is now');
    }
    await repairPublication(client, publicationName(cluster.name));
    await hit('anew.after-publication');
  }

  async slotFor(epoch: number): Promise<{ readonly slot: string; readonly exists: boolean }> {
    return { slot: slotName(this.#node.cluster.name, epoch), exists: false };
  }

  checkLog(end: LogEnd, watermarks: readonly Watermarks[]): Promise<void> {
    return requireLedLog(this.#node, end, watermarks);
  }

  drain(ends: readonly Watermarks[]): Promise<LogEnd> {
    return drainLedLog(this.#node, ends);
  }

  startLsn(): Promise<Lsn> {
    return flushedLsn(this.#node.client);
  }

  /** The requests are in the WAL behind the start of the epoch. */
  async backfilling(): Promise<readonly UnfinishedTable[]> {
    const { client } = this.#node;
    const relations = await resnapshotRelations(client, true);
    // Before the new relations: a table has one at a time.
    return requestBackfill(client, relations, await endedRelations(client));
  }
}
