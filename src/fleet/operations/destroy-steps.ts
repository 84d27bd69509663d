/**
 * How what Understudy created in a database is removed: slots, databases that a rebuild left, the
 * publication, the guard, and last the `understudy` schema, so that an interrupted removal is found
 * and continued. Users' tables and rows stay.
 */
import type { Client } from 'pg';
import { quoteIdentifier } from '../../catalog/postgres-session.ts';
import { dropPublication } from '../../catalog/publication.ts';
import { dropRowFunctions } from '../../catalog/row-roles.ts';
import { dropUnderstudySchema, readNode } from '../../catalog/understudy-schema.ts';
import { openBuild } from '../../follower/schema/schema-build.ts';
import { readLeftoverDatabases } from '../../follower/state/rebuild-state.ts';
import { removeGuard, restoreTriggers } from '../../follower/write-guard.ts';
import { dropSlot, listSlots } from '../../leader/stream/slot.ts';
import { publicationName, slotPattern } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import { besideName } from '../provision/beside-database.ts';

export interface Remains {
  readonly slots: readonly string[];
  /** Left by a rebuild that is not complete. */
  readonly databases: readonly string[];
}

/** Of a database that is a node of this cluster, which `name` is. */
export async function readRemains(
  client: Client,
  { name: cluster }: Cluster,
  database: string,
): Promise<Remains> {
  const own = [besideName(database, 'rebuild'), besideName(database, 'old')];
  const left = await readLeftoverDatabases(client);
  return {
    slots: await listSlots(client, slotPattern(cluster)),
    // On another server than that of the rebuild, its OID is that of any database.
    databases: left.filter((one) => own.includes(one)),
  };
}

export async function removeFromDatabase(
  cluster: Cluster,
  node: string,
  client: Client,
  { slots, databases }: Remains,
): Promise<void> {
  for (const database of databases) {
    await client.query(`DROP DATABASE IF EXISTS ${quoteIdentifier(database)} WITH (FORCE)`);
  }
  for (const slot of slots) await dropSlot(client, slot);
  await dropPublication(client, publicationName(cluster.name));
  if ((await readNode(client)) === null) return;
  const open = await openBuild(client);
  if (open !== null) {
    cluster.around.log.warn(
      { node, ...open },
      'the schema of this node was not completely built: re-create its database',
    );
  }
  await restoreTriggers(client);
  await removeGuard(client);
  await dropRowFunctions(client);
  await dropUnderstudySchema(client);
}
