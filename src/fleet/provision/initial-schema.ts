/**
 * The schema of a new cluster. It reads the leader's schema in the slot's own snapshot, gives the
 * payload of the stream's schema record, and creates the tables on followers. A follower that has
 * all tables of the stream stays as it is; one that has none gets the leader's schema in one
 * transaction, whole or not at all; one that has some of them is refused.
 */
import { dumpSchema } from '../../catalog/dump/schema-dump.ts';
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { inTransaction, qualifiedName } from '../../catalog/postgres-session.ts';
import { readServer, readTables } from '../../catalog/read-catalog.ts';
import { compareWithTable } from '../../catalog/relation-ids.ts';
import { displayName, type TableShape } from '../../catalog/table.ts';
import type { EpochBegin, RelationShape } from '../../change/change.ts';
import { builtDifferently, tablesMissing } from '../../errors/row.ts';
import {
  type BuildOptions,
  buildFromSchema,
  buildPostData,
} from '../../follower/schema/schema-build.ts';
import { type SchemaPart, schemaParts } from '../../topic/records/schema-record.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeSession } from '../node/member-session.ts';
import { enumerate } from '../preflight/finding.ts';

/** Null where the tables are created by hand: `ddl: manual`. */
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
  /** No table is backfilling: the post-data section may be built at once. */
  readonly areEmpty: boolean;
}

/** Whether the node's tables were created here. */
export async function giveSchema(
  { name, client }: NodeSession,
  schema: SchemaPayload,
  { published, shapes, areEmpty }: InitialTables,
  buildOptions: BuildOptions,
): Promise<boolean> {
  const own = new Set((await readTables(client, ['*.*'])).map(nameOf));
  const missing = published.filter((table) => !own.has(nameOf(table)));
  if (missing.length === 0) return false;
  if (missing.length < published.length) {
    throw tablesMissing(name, enumerate(missing.map(displayName)));
  }
  await inTransaction(client, async () => {
    const options = { ...buildOptions, inOpenTransaction: true };
    await buildFromSchema(client, schema, 'pre-data', options);
    if (areEmpty) await buildPostData(client, options);
    const built = new Map(
      (await readTables(client, ['*.*'])).map((table) => [nameOf(table), table]),
    );
    for (const [table, shape] of shapes) {
      const copy = built.get(table);
      const difference =
        copy === undefined ? `${displayName(shape)} does not exist` : compareWithTable(shape, copy);
      if (difference !== null) throw builtDifferently(name, difference);
    }
  });
  return true;
}

function nameOf({ schema, name }: TableShape): string {
  return qualifiedName(schema, name);
}
