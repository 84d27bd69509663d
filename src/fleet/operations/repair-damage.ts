/**
 * The verb `repair-damage`: closes the damage of the topic that is open. It shows what is open,
 * has the leader publish every row again, and writes into the control log who closed the damage and
 * why, which stays there. From then on nodes may be promoted and rebuilt; a follower that stopped
 * at the damage is rebuilt, because the records that it needs are gone.
 *
 * The request for the rows is in the leader's WAL before the damage is closed: an agent that starts
 * again finds it there. Repeated after a failure, both are done once more, which changes nothing.
 */
import { readNode } from '../../catalog/understudy-schema.ts';
import { formatEpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { RecordOf } from '../../control/control-records.ts';
import { damageNotClosed } from '../../errors/cluster.ts';
import { Releasers } from '../../lifecycle.ts';
import type { Cluster } from '../cluster.ts';
import { leaderOf, openFleetLog, openMember } from '../node/member-session.ts';
import { requireCurrentSchema } from '../node/schema-upgrade.ts';
import { requireLeader } from '../promotion/new-slot.ts';
import { requestResnapshot, resnapshotRelations } from '../promotion/resnapshot-tables.ts';

interface RepairDamageRequest {
  /** Null where none was given: what is open is refused, with its reasons. */
  readonly reason: string | null;
  /** The user and the machine of this command. */
  readonly by: string;
  /** Whether the leader publishes every row again; not possible where its server is lost. */
  readonly resnapshot: boolean;
}

interface ClosedDamage {
  readonly id: string;
  readonly lsn: string | null;
  readonly reason: string;
  readonly node: string;
  readonly time: string;
}

export interface RepairDamageResult {
  /** Empty where no damage was open: nothing was changed then. */
  readonly closed: readonly ClosedDamage[];
  readonly by: string;
  readonly reason: string | null;
  /** The number of tables that the leader publishes again; null where it was not asked to. */
  readonly tables: number | null;
}

export async function repairDamage(
  cluster: Cluster,
  { reason, by, resnapshot }: RepairDamageRequest,
): Promise<RepairDamageResult> {
  const releasers = new Releasers();
  try {
    const control = await openFleetLog(cluster, releasers);
    const { openDamage } = await control.verify();
    const open = [...openDamage.values()];
    if (open.length === 0) return { closed: [], by, reason, tables: null };
    if (reason === null) throw damageNotClosed(open.map(openText));
    const tables = resnapshot ? await requestRows(cluster, control, releasers) : null;
    const time = new Date(cluster.around.nowMs()).toISOString();
    for (const { id } of open) {
      await control.append({ kind: 'repair', damage: id, by, reason, time });
    }
    await control.verify();
    return { closed: open.map(closedDamage), by, reason, tables };
  } finally {
    await releasers.close();
  }
}

async function requestRows(
  cluster: Cluster,
  control: ControlLog,
  releasers: Releasers,
): Promise<number> {
  const { node } = leaderOf(control.state, cluster.name);
  const client = await openMember(cluster, releasers, node, 'repair');
  await requireCurrentSchema(cluster, node, client);
  requireLeader(node, (await readNode(client))?.role ?? 'none');
  const relations = await resnapshotRelations(client, false);
  await requestResnapshot(client, relations);
  return relations.length;
}

function openText({ reason, node, time }: RecordOf<'damage'>): string {
  return `${reason} (found by node ${node} at ${time})`;
}

function closedDamage({ id, at, reason, node, time }: RecordOf<'damage'>): ClosedDamage {
  return { id, lsn: at === null ? null : formatEpochLsn(at), reason, node, time };
}
