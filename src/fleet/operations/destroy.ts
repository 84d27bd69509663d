/**
 * The verb `destroy`: removes what Understudy created: slots, publications, guards, databases that
 * a rebuild left and the `understudy` schema on every node that can be reached, then the topics. It
 * returns what was, or would be, removed. Users' tables and rows stay as they are. All nodes are
 * locked before anything is removed, so a running agent prevents it. A node that cannot be reached
 * keeps its slot, which keeps WAL, and is named.
 */
import type { Client } from 'pg';
import { quoteIdentifier } from '../../catalog/postgres-session.ts';
import { dropPublication } from '../../catalog/publication.ts';
import { dropUnderstudySchema, readNode } from '../../catalog/understudy-schema.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import { openBuild } from '../../follower/schema/schema-build.ts';
import { readLeftoverDatabases } from '../../follower/state/rebuild-state.ts';
import { removeGuard, restoreTriggers } from '../../follower/write-guard.ts';
import { dropSlot, listSlots } from '../../leader/stream/slot.ts';
import { Releasers } from '../../lifecycle.ts';
import { deleteTopic, describeTopic } from '../../topic/kafka/admin.ts';
import { controlTopic, publicationName, slotPattern } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import { lockNode } from '../node/node-lock.ts';

interface Dismantled {
  readonly cluster: string;
  readonly removed: boolean;
  readonly nodes: readonly {
    readonly name: string;
    readonly slots: readonly string[];
    /** Left by a rebuild that is not complete. */
    readonly databases: readonly string[];
  }[];
  readonly unreachable: readonly string[];
  readonly topics: readonly string[];
}

interface FoundNode {
  readonly name: string;
  readonly client: Client;
  readonly slots: readonly string[];
  readonly databases: readonly string[];
}

export async function dismantle(cluster: Cluster, yes: boolean): Promise<Dismantled> {
  const releasers = new Releasers();
  try {
    const { nodes, unreachable } = await findNodes(cluster, releasers, yes);
    const topics: string[] = [];
    for (const topic of [cluster.topic, controlTopic(cluster.name)]) {
      if ((await describeTopic(cluster.kafka, topic)) !== null) topics.push(topic);
    }
    if (yes) {
      for (const node of nodes) await clean(cluster, node);
      for (const topic of topics) await deleteTopic(cluster.kafka, topic);
    }
    return {
      cluster: cluster.name,
      removed: yes,
      nodes: nodes.map(({ name, slots, databases }) => ({ name, slots, databases })),
      unreachable,
      topics,
    };
  } finally {
    await releasers.close();
  }
}

/** Throws where an agent serves a node; a node whose server cannot be reached is left out. */
async function findNodes(
  cluster: Cluster,
  releasers: Releasers,
  yes: boolean,
): Promise<{ nodes: FoundNode[]; unreachable: string[] }> {
  const { settings } = cluster;
  const nodes: FoundNode[] = [];
  const unreachable: string[] = [];
  for (const name of settings.nodeNames) {
    try {
      const client = await cluster.openSession(releasers, name, 'destroy');
      if (yes) {
        const lock = await lockNode(settings.nodeUrl(name), settings.maintenanceDatabase, name);
        releasers.push(`the lock of ${name}`, () => lock.release());
      }
      const known = await readNode(client);
      const slots = await listSlots(client, slotPattern(cluster.name));
      const databases = known === null ? [] : await readLeftoverDatabases(client);
      if (known?.cluster === cluster.name || slots.length > 0) {
        nodes.push({ name, client, slots, databases });
      }
    } catch (error) {
      if (!hasCode(error, 'POSTGRES_UNREACHABLE')) throw error;
      unreachable.push(name);
    }
  }
  return { nodes, unreachable };
}

async function clean(cluster: Cluster, node: FoundNode): Promise<void> {
  const { client, slots, databases } = node;
  for (const database of databases) {
    await client.query(`DROP DATABASE IF EXISTS ${quoteIdentifier(database)} WITH (FORCE)`);
  }
  for (const slot of slots) await dropSlot(client, slot);
  await dropPublication(client, publicationName(cluster.name));
  if ((await readNode(client)) === null) return;
  const open = await openBuild(client);
  if (open !== null) {
    cluster.around.log.warn(
      { node: node.name, ...open },
      'the schema of this node was not completely built: re-create its database',
    );
  }
  await restoreTriggers(client);
  await removeGuard(client);
  await dropUnderstudySchema(client);
}
