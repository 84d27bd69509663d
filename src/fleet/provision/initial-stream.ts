/**
 * The topics and the tables of a new stream. It takes a cluster and the leader's catalog; it
 * creates the topics, gives the tables their first ids, finds those whose rows have to be
 * backfilled, and refuses rows that cannot be read or that only a follower has.
 */
import type { Client } from 'pg';
import { inTransaction, qualifiedName } from '../../catalog/postgres-session.ts';
import { newShape } from '../../catalog/relation-ids.ts';
import { displayName, type KeylessTables, type TableShape } from '../../catalog/table.ts';
import { problemsOf } from '../../catalog/table-problems.ts';
import type { RelationShape, UnfinishedTable } from '../../change/change.ts';
import { unreadTable } from '../../change/change.ts';
import { topicExists } from '../../errors/cluster.ts';
import { followerHoldsRows, rowsWithoutKey } from '../../errors/table.ts';
import { ApplyTargets } from '../../follower/apply/apply-targets.ts';
import { createTopic, describeCluster } from '../../topic/kafka/admin.ts';
import {
  changesTopicSettings,
  controlTopic,
  controlTopicSettings,
} from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeSession } from '../node/member-session.ts';

/**
 * Names each topic before it creates it, so that the caller can undo a partial success. What
 * `onCreate` returns is called for a topic that was there already, which is refused.
 */
export async function createTopics(
  { kafka, settings, topic, name }: Cluster,
  onCreate: (topic: string) => () => void,
): Promise<void> {
  const { brokers } = await describeCluster(kafka);
  const replication = settings.replication ?? Math.min(3, brokers);
  const wanted = [
    {
      topic,
      partitions: settings.partitions,
      replication,
      settings: changesTopicSettings(replication, settings.topicOverrides),
    },
    {
      topic: controlTopic(name),
      partitions: 1,
      replication,
      settings: controlTopicSettings(replication),
    },
  ];
  for (const one of wanted) {
    const wasThere = onCreate(one.topic);
    if (await createTopic(kafka, one)) continue;
    wasThere();
    throw topicExists(one.topic);
  }
}

/** Shapes by qualified name, with the ids that a new stream gives. */
export function shapesOf(
  tables: readonly TableShape[],
  keyless: KeylessTables,
): Map<string, RelationShape> {
  const used = new Set<string>();
  return new Map(
    tables.map((table) => {
      const name = qualifiedName(table.schema, table.name);
      return [name, newShape(table, used, keyless)];
    }),
  );
}

/** One statement names at most this many tables, and locks them until its transaction ends. */
const probedAtOnceMax = 100;

/** The tables that hold a row in the session's snapshot. */
export async function withRows(
  client: Client,
  tables: readonly TableShape[],
): Promise<TableShape[]> {
  const holders = tables.filter(({ kind }) => kind !== 'partitioned');
  const holding: TableShape[] = [];
  for (let first = 0; first < holders.length; first += probedAtOnceMax) {
    const part = holders.slice(first, first + probedAtOnceMax);
    const probes = part.map(
      ({ schema, name }, at) =>
        `SELECT ${at} AS at WHERE EXISTS (SELECT FROM ONLY ${qualifiedName(schema, name)})`,
    );
    const { rows } = await client.query<{ at: string }>(probes.join(' UNION ALL '));
    const found = new Set(rows.map(({ at }) => Number(at)));
    holding.push(...part.filter((_, at) => found.has(at)));
  }
  return holding;
}

/**
 * The leader's tables that begin backfilling. Chunks are read in the order of keys, so each needs a
 * key. Where the backfill replaces rows of followers, tables that are empty here belong to it too.
 */
export async function unfinishedAtFirst(
  { name, client }: NodeSession,
  tables: readonly TableShape[],
  shapes: ReadonlyMap<string, RelationShape>,
  replaceRows: boolean,
): Promise<UnfinishedTable[]> {
  const keyed = keyedTables(tables, shapes);
  const keyless = tables.filter((table) => !keyed.includes(table));
  const holding = await withRows(client, replaceRows ? keyless : tables);
  return [...(replaceRows ? keyed : []), ...holding].map((table) => {
    const quoted = qualifiedName(table.schema, table.name);
    const shape = shapes.get(quoted);
    if (shape !== undefined && shape.identity.length > 0) return unreadTable(shape.id);
    throw rowsWithoutKey(name, displayName(table), problemsOf(table)[0]?.hint ?? '');
  });
}

function keyedTables(
  tables: readonly TableShape[],
  shapes: ReadonlyMap<string, RelationShape>,
): TableShape[] {
  return tables.filter(({ kind, schema, name }) => {
    const identity = shapes.get(qualifiedName(schema, name))?.identity ?? [];
    return kind !== 'partitioned' && identity.length > 0;
  });
}

/**
 * A follower keeps its rows for its readers until the backfill is complete; then the rows that it
 * did not contain are deleted. Rows without a key cannot be told apart, and are refused.
 */
export async function replaceRows(
  node: NodeSession,
  tables: readonly TableShape[],
  shapes: ReadonlyMap<string, RelationShape>,
): Promise<void> {
  const keyed = keyedTables(tables, shapes);
  await refuseFollowerRows(
    node,
    tables.filter((table) => !keyed.includes(table)),
  );
  const targets = await ApplyTargets.open(node.client);
  await inTransaction(node.client, async () => {
    for (const { schema, name } of keyed) {
      const { id } = shapes.get(qualifiedName(schema, name)) ?? {};
      if (id !== undefined) await targets.resnapshots.begin(targets.getOfRows(id));
    }
  });
}

/** A follower gets every row from the stream, and no change of the stream would delete its own. */
export async function refuseFollowerRows(
  node: NodeSession,
  tables: readonly TableShape[],
): Promise<void> {
  const [table] = await withRows(node.client, tables);
  if (table !== undefined) throw followerHoldsRows(node.name, displayName(table));
}
