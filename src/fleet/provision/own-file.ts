/**
 * Whether the understudy.yaml that names a new node is one of the cluster whose topics it leads to.
 * A copy of the file for another environment, with the same cluster and the same brokers, would
 * have the rows of that cluster built into its own database. Takes the file's other nodes, and what
 * their databases say of themselves; refuses where all of them answer and none is of the stream.
 */
import { connectPostgres, endSession } from '../../catalog/postgres-session.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlState } from '../../control/control-state.ts';
import { fileElsewhere } from '../../errors/cluster.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { Cluster } from '../cluster.ts';
import { judgeBelonging } from '../node/judge-belonging.ts';
import { placeOf } from '../node/judge-database.ts';
import { readFoundDatabase } from '../node/stream-facts.ts';

/** A leader that is down does not hold up a new node for longer. */
const answerMaxMs = 5_000;

export async function requireOwnFile(
  cluster: Cluster,
  node: string,
  state: ControlState,
): Promise<void> {
  const others = cluster.settings.nodeNames.filter((name) => name !== node);
  const areMembers = await Promise.all(others.map((name) => isMember(cluster, name, state)));
  if (others.length === 0 || areMembers.some((found) => found !== false)) return;
  const leader = ownerOf(state)?.node ?? null;
  const served = placeOf(state.starts.get(leader ?? '') ?? null);
  throw fileElsewhere(cluster.name, node, state.stream?.streamId ?? '', leader, served);
}

/** Null where that is not known: the server is down, or the file's secret for it is not here. */
async function isMember(
  cluster: Cluster,
  name: string,
  state: ControlState,
): Promise<boolean | null> {
  try {
    const client = await connectPostgres(cluster.settings.nodeUrl(name), {
      applicationName: `understudy ${name} file`,
      connectTimeoutMs: answerMaxMs,
    });
    try {
      const found = await readFoundDatabase(name, client);
      return judgeBelonging(cluster.name, found, state).kind === 'member';
    } finally {
      await endSession(client);
    }
  } catch (error) {
    if (error instanceof UnderstudyError) return null;
    throw error;
  }
}
