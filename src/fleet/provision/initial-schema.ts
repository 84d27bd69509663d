/**
 * The schema of a new cluster. Flows in: the leader, whose schema is read in the slot's own
 * snapshot, and followers; flows out: the payload of the stream's schema record, and followers with
 * the same tables. A follower that has all of the stream's tables is left as it is, one that has
 * none gets the leader's schema in one transaction, whole or not at all. Some of them is neither.
 */

import { dumpSchema } from '../../catalog/dump/schema-dump.ts';
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { inTransaction, qualifiedName } from '../../catalog/postgres-session.ts';
import { readServer, readTables } from '../../catalog/read-catalog.ts';
import { compareWithTable } from '../../catalog/relation-ids.ts';
import { displayName, type TableShape } from '../../catalog/table.ts';
import type { EpochBegin, RelationShape } from '../../change/change.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { buildFromSchema, buildPostData } from '../../follower/schema/schema-build.ts';
import { type SchemaPart, schemaParts } from '../../topic/records/schema-record.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeSession } from '../node/member-session.ts';
import { enumerate } from '../preflight/finding.ts';
import { schemaBuildOptions } from './schema-finish.ts';

/** Null where the tables are made by hand: `ddl: manual`. */
export async function readInitialSchema(
  cluster: Cluster,
  leader: NodeSession,
  snapshot: string,
  shapes: ReadonlyMap<string, RelationShape>,
): Promise<SchemaPayload | null> {
  const { settings } = cluster;
  const pgDump = settings.pgDump();
  if (pgDump === null) return null;
  const url = settings.nodeUrl(leader.name);
  const { version } = await readServer(leader.client);
  const options = { pgDump, url, node: leader.name, snapshot, serverVersion: version };
  return { ...(await dumpSchema(options)), relations: [...shapes.values()] };
}

/** The stream's first schema record in its parts; none where there is no schema. */
export function initialParts(
  { streamId, epoch, startLsn }: EpochBegin,
  schema: SchemaPayload | null,
): SchemaPart[] {
  if (schema === null) return [];
  return schemaParts({ streamId, at: { epoch, lsn: startLsn }, schema });
}

interface InitialTables {
  readonly published: readonly TableShape[];
  readonly shapes: ReadonlyMap<string, RelationShape>;
  /** Nothing is to be read: what rows can do without may be made before them. */
  readonly areEmpty: boolean;
}

/** Whether the node's tables were made here. */
export async function giveSchema(
  cluster: Cluster,
  { name, client }: NodeSession,
  schema: SchemaPayload,
  { published, shapes, areEmpty }: InitialTables,
): Promise<boolean> {
  const own = new Set((await readTables(client, ['*.*'])).map(nameOf));
  const missing = published.filter((table) => !own.has(nameOf(table)));
  if (missing.length === 0) return false;
  if (missing.length < published.length) throw lacksSome(name, missing);
  await inTransaction(client, async () => {
    const options = { ...schemaBuildOptions(cluster, name), inOpenTransaction: true };
    await buildFromSchema(client, schema, 'pre-data', options);
    if (areEmpty) await buildPostData(client, options);
    const built = new Map(
      (await readTables(client, ['*.*'])).map((table) => [nameOf(table), table]),
    );
    for (const [table, shape] of shapes) {
      const copy = built.get(table);
      const difference =
        copy === undefined ? `${displayName(shape)} is not there` : compareWithTable(shape, copy);
      if (difference !== null) throw builtOtherwise(name, difference);
    }
  });
  return true;
}

function nameOf({ schema, name }: TableShape): string {
  return qualifiedName(schema, name);
}

function lacksSome(node: string, missing: readonly TableShape[]): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `node ${node} lacks tables that the leader has: ${enumerate(missing.map(displayName))}`,
    `Make them on ${node} too, or give it an empty database, where all of them are made.`,
  );
}

function builtOtherwise(node: string, difference: string): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_DIFFERS',
    `from the leader’s schema another table came out on node ${node}: ${difference}`,
    `Make the tables on ${node} yourself and set ddl: manual; please report this.`,
  );
}
