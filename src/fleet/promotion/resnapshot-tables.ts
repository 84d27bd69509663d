/**
 * What a resnapshot needs in the leader's database: which relations can be read again, a message in
 * the WAL that requests it, and a publication that sends every change of them from then on.
 */
import type { Client } from 'pg';
import { type KnownRelation, loadKnownRelations } from '../../catalog/known-relations.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import {
  addToPublication,
  createPublication,
  dropPublication,
  readPublicationState,
} from '../../catalog/publication.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import type { TableShape } from '../../catalog/table.ts';
import { type RelationId, type UnfinishedTable, unreadTable } from '../../change/change.ts';
import { resnapshotWithoutKey } from '../../errors/table.ts';
import { hit } from '../../failpoints.ts';

/** A relation of the stream and the table that holds its rows here. */
export interface StreamTable {
  readonly relation: RelationId;
  readonly table: TableShape;
  /** Without a key, rows cannot be told apart. */
  readonly hasKey: boolean;
}

/** Without partitioned roots: their rows are in their partitions. */
export async function streamTables(client: Client): Promise<StreamTable[]> {
  const tables = await readTables(client, ['*.*']);
  const known = await loadKnownRelations(client);
  return known.flatMap(({ shape, tableOid }: KnownRelation) => {
    const table = tables.find(({ oid }) => oid === tableOid);
    if (shape.dropped || table === undefined || table.kind === 'partitioned') return [];
    return [{ relation: shape.id, table, hasKey: shape.identity.length > 0 }];
  });
}

/** `all`: refuses the resnapshot where a relation has no key. */
export async function resnapshotRelations(client: Client, all: boolean): Promise<RelationId[]> {
  const tables = await streamTables(client);
  const keyless = tables.find(({ hasKey }) => !hasKey);
  if (all && keyless !== undefined) throw resnapshotWithoutKey(keyless.relation);
  return tables.filter(({ hasKey }) => hasKey).map(({ relation }) => relation);
}

/** In the WAL, in the transaction under way or in one of its own. */
export async function requestResnapshot(
  client: Client,
  relations: readonly RelationId[],
): Promise<void> {
  await client.query('SELECT understudy.read_anew($1)', [relations]);
}

/** Relations without a table: the stream says so of each where it is requested as a resnapshot. */
export async function endedRelations(client: Client): Promise<RelationId[]> {
  const known = await loadKnownRelations(client);
  return known.flatMap(({ shape }) => (shape.dropped ? [shape.id] : []));
}

/** For an epoch that begins with these relations backfilling; gives what its begin names. */
export async function requestBackfill(
  client: Client,
  relations: readonly RelationId[],
  ended: readonly RelationId[] = [],
): Promise<readonly UnfinishedTable[]> {
  await requestResnapshot(client, [...ended, ...relations]);
  await hit('own.after-ask');
  return relations.map(unreadTable);
}

/** So that it has every table of the stream, and sends every change of them. */
export async function repairPublication(client: Client, publication: string): Promise<void> {
  const state = await readPublicationState(client, publication);
  const own = await readTables(client, ['*.*']);
  const known = new Set(
    (await loadKnownRelations(client)).flatMap(({ shape, tableOid }) => {
      return shape.dropped ? [] : [tableOid];
    }),
  );
  const roots = own.filter(({ oid, isPartition }) => known.has(oid) && !isPartition);
  await inTransaction(client, async () => {
    if (state === 'whole') {
      for (const table of roots) await addToPublication(client, publication, table);
      return;
    }
    await dropPublication(client, publication);
    await createPublication(client, publication, roots);
  });
}
