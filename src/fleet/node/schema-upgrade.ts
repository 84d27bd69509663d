/**
 * The `understudy` schema that an older version left in a node's database is upgraded before
 * anything else is read of it: by the agent, or a command in its place, when it has the lock of the
 * node; by a command that writes to a node without serving it, under the lock for that long. While
 * an agent of the older version serves the node, such a command is refused.
 */
import type { Client } from 'pg';
import {
  readSchemaFormat,
  understudySchemaFormat,
  upgradeUnderstudySchema,
} from '../../catalog/understudy-schema.ts';
import { schemaOfOlderAgent } from '../../errors/node-state.ts';
import type { Cluster } from '../cluster.ts';
import { isLocked, lockNode } from './node-lock.ts';

/** Only under the lock of the node: no agent of an older version uses it. */
export async function upgradeSchema(cluster: Cluster, node: string, client: Client): Promise<void> {
  const from = await upgradeUnderstudySchema(client);
  if (from === null) return;
  const to = understudySchemaFormat;
  cluster.around.log.info({ node, from, to }, 'the understudy schema was upgraded');
}

/** For a command that writes to a node without serving it. */
export async function requireCurrentSchema(
  cluster: Cluster,
  node: string,
  client: Client,
): Promise<void> {
  const format = await readSchemaFormat(client);
  if (format === null || format === understudySchemaFormat) return;
  if (await isLocked(client)) throw schemaOfOlderAgent(node, format, understudySchemaFormat);
  const { nodeUrl, maintenanceDatabase } = cluster.settings;
  const lock = await lockNode(nodeUrl(node), maintenanceDatabase, node);
  try {
    await upgradeSchema(cluster, node, client);
  } finally {
    await lock.release();
  }
}
